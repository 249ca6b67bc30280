"""How tables and legends call the keys that vary."""

from collections.abc import Sequence


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The fewest last segments that tell the keys apart; a last `use` says nothing."""
    cores = {key: key.removesuffix(".use") for key in keys}
    if len(set(cores.values())) < len(cores):
        return dict(zip(keys, keys, strict=True))
    return {key: _tail(core, [cores[other] for other in keys]) for key, core in cores.items()}


def _tail(key: str, keys: Sequence[str]) -> str:
    segments = key.split(".")
    tails = (".".join(segments[-n:]) for n in range(1, len(segments)))
    rivals = [other for other in keys if other != key]
    return next(
        (t for t in tails if t not in rivals and not any(r.endswith(f".{t}") for r in rivals)), key
    )
