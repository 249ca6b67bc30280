"""`simpod explain --collective`: one exchange, transfer or collective priced, part by part."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import typer

from simpod.cli.output import add_rows, plain_table, print_json, show
from simpod.errors import ConfigError
from simpod.units import GB, MIB, US

if TYPE_CHECKING:
    from simpod.cost.exchange.named import Priced
    from simpod.cost.exchange.requests import Request
    from simpod.hardware.spec import HardwareProfile

MEANINGS: Final[Mapping[str, str]] = {
    "start_up_s": "launch, barrier of cores, latency of the links",
    "quantise_s": "casting activations to 8 bits",
    "metadata_s": "counts, offsets and flags written to peers",
    "message_s": "handling of messages that does not hide behind their bytes",
    "bytes_s": "bytes over the slowest link",
    "polling_s": "waiting for flags and acknowledgements",
    "local_s": "copies and sums in the die's own memory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options as given; None: not given."""

    operation: str
    hardware: str | None
    kernel: str | None
    dtype: str | None
    plane: str | None
    ep: int | None
    tokens: int | None
    hidden: int | None
    top_k: int | None
    experts: int | None
    size_bytes: float | None
    dies: int | None
    nodes: int | None
    cores: int | None
    attention_dies: int | None
    domains: int | None


def explain_collective(asked: Asked, *, as_json: bool) -> None:
    """Print one price with its breakdown, what it pins and what its constants rest on."""
    from simpod.config import load_hardware
    from simpod.cost.exchange.named import priced

    if asked.hardware is None:
        raise ConfigError("--collective needs --hardware NAME (see `simpod list hardware`)")
    hardware = load_hardware(asked.hardware)
    request = request_of(asked, hardware)
    found = priced(hardware, request)
    others = _others(hardware, request)
    if as_json:
        print_json(_as_json(hardware, found, others))
    else:
        _print(hardware, found, others)


def request_of(asked: Asked, hardware: "HardwareProfile") -> "Request":
    """What was asked for, with DeepSeek-R1's sizes and the published deployments' for the rest."""
    from simpod.cost.exchange import requests

    operation = asked.operation.replace("-", "_")
    if operation not in requests.OPERATIONS:
        known = ", ".join(requests.OPERATIONS)
        raise ConfigError(f"--collective {asked.operation}: no such operation; allowed: {known}")
    is_split = operation in requests.SPLITS
    is_collective = operation in requests.COLLECTIVES
    ranks = asked.dies if asked.dies is not None else asked.ep
    if ranks is None:
        usual = 288 if is_split else hardware.dies_per_node if is_collective else 32
        ranks = min(usual, hardware.num_dies)
    return requests.Request(
        operation=operation,
        kernel=_kernel(asked, operation, hardware),
        num_ranks=ranks,
        tokens=_or(asked.tokens, 96 if is_split else 128),
        hidden_size=_or(asked.hidden, 7168),
        top_k=_or(asked.top_k, 8),
        num_experts=_or(asked.experts, 0),
        dtype=asked.dtype or "",
        size_bytes=float(MIB) if asked.size_bytes is None else asked.size_bytes,
        num_cores=_or(asked.cores, 48 if operation == "p2p_send" else 0),
        plane=asked.plane or "ub",
        is_inter_node=_or(asked.nodes, 2) > 1,
        num_attention_dies=_or(asked.attention_dies, requests.SPLIT_ATTENTION_DIES),
        num_domains=_or(asked.domains, 3 if is_split else 1),
    )


def _or(given: int | None, usual: int) -> int:
    return usual if given is None else given


def _kernel(asked: Asked, operation: str, hardware: "HardwareProfile") -> str:
    from simpod.cost.exchange.named import kernels_on

    known = kernels_on(hardware, operation)
    if not known:
        raise ConfigError(
            f"hardware {hardware.name} has no constants of any kernel for {operation}"
        )
    if asked.kernel is not None and asked.kernel not in known:
        raise ConfigError(
            f"--kernel {asked.kernel}: hardware {hardware.name} has for {operation}:"
            f" {', '.join(known)}"
        )
    return asked.kernel or known[0]


def _others(hardware: "HardwareProfile", request: "Request") -> dict[str, "Priced"]:
    """The same by the other kernels that the profile has constants of."""
    from simpod.cost.exchange.named import kernels_on, priced

    return {
        name: priced(hardware, replace(request, kernel=name))
        for name in kernels_on(hardware, request.operation)
        if name != request.kernel
    }


def why_trampolines(found: "Priced", others: Mapping[str, "Priced"]) -> str:
    """What the naive exchange does more of; empty unless both were priced."""
    both = {found.request.kernel: found, **others}
    if not {"naive", "trampoline"} <= set(both):
        return ""
    naive, better = both["naive"], both["trampoline"]
    more = {name: part - better.parts_s[name] for name, part in naive.parts_s.items()}
    worst = max(more, key=lambda name: more[name])
    r, c = found.request, found.fit.constants
    attention, experts = r.num_attention_dies, r.num_ranks
    targets, sources = (experts, attention) if r.operation == "a2e" else (attention, experts)
    behind = -(-experts // attention) - 1
    if behind == 0:
        return "no more expert dies than attention dies: nothing to pass on, both take one hop"
    doing = {
        "metadata_s": f"a field to each of {targets} dies ({c.field_s / US:.3g} us by a core)",
        "message_s": f"a read from each of {sources} dies ({c.dma_post_s / US:.3g} us by a core)",
    }.get(worst, MEANINGS[worst])
    gap_s = naive.total_s - better.total_s
    return (
        f"naive takes {gap_s / US:+.1f} us ({gap_s / better.total_s:+.0%}), of which"
        f" {worst.removesuffix('_s')} {more[worst] / US:+.1f} us: every die posts {doing} with"
        f" {c.dma_cores} cores; a trampoline makes that {attention} dies and the {behind} behind it"
    )


def _as_json(
    hardware: "HardwareProfile", found: "Priced", others: Mapping[str, "Priced"]
) -> dict[str, Any]:
    fit = {key: value for key, value in asdict(found.fit).items() if key != "constants"}
    return {
        "hardware": hardware.name,
        "kernel": found.request.kernel,
        "request": {**asdict(found.request), "sent_as": found.request.sent_as},
        "total_s": found.total_s,
        "parts_s": found.parts_s,
        "message_bytes": found.message_bytes,
        "payload_bytes": found.payload_bytes,
        "bytes_per_s": found.bytes_per_s,
        "pinned_bytes": _pinned(found),
        "constants": {
            "variant": found.variant,
            "status": found.fit.status(hardware.die.name, hardware.family),
            **fit,
            **asdict(found.fit.constants),
        },
        "others": {
            name: {"total_s": other.total_s, "parts_s": other.parts_s}
            for name, other in others.items()
        },
        "why": why_trampolines(found, others),
    }


def _pinned(found: "Priced") -> dict[str, float] | None:
    if found.buffers is None:
        return None
    return {**asdict(found.buffers), "total_bytes": found.buffers.total_bytes}


def _print(hardware: "HardwareProfile", found: "Priced", others: Mapping[str, "Priced"]) -> None:
    request = found.request
    why = why_trampolines(found, others)
    beside = others if why else {}
    columns = (request.kernel, *beside)
    table = plain_table(
        f"{request.operation} on {hardware.name}, us",
        *columns,
        "share",
        "what it is",
        right=(*columns, "share"),
    )
    rows = [
        (
            name.removesuffix("_s").replace("_", " "),
            *(f"{each.parts_s[name] / US:.1f}" for each in (found, *beside.values())),
            f"{part_s / found.total_s:.0%}",
            MEANINGS[name],
        )
        for name, part_s in found.parts_s.items()
        if part_s or any(each.parts_s[name] for each in beside.values())
    ]
    totals = (f"{each.total_s / US:.1f}" for each in (found, *beside.values()))
    rows.append(("total", *totals, "", "waiting for slower ranks is not in it"))
    show(add_rows(table, rows))
    typer.echo()
    for line in (_sizes(found), _memory(found), _basis(hardware, found), why):
        if line:
            typer.echo(line)
    if others and not beside:
        each = (f"{name} {other.total_s / US:.1f} us" for name, other in others.items())
        typer.echo(f"By other kernels: {', '.join(each)}")


def _sizes(found: "Priced") -> str:
    from simpod.cost.exchange.requests import COLLECTIVES, SPLITS, TRANSFERS

    r = found.request
    rate = f"{found.bytes_per_s / GB:.1f} GB/s of {found.payload_bytes / 1e6:,.2f} MB"
    if r.operation in TRANSFERS:
        cores = f", {r.num_cores} vector cores on either side" if r.operation == "p2p_send" else ""
        return f"{rate} {'between nodes' if r.is_inter_node else 'inside a node'}{cores}"
    if r.operation in COLLECTIVES:
        return f"{rate} among {r.num_ranks} dies"
    of = f"{r.tokens} tokens x {r.top_k} experts, {found.message_bytes:,.0f} bytes a message"
    where = f"{r.num_ranks} ranks"
    if r.operation in SPLITS:
        where = (
            f"{r.num_domains} x {r.num_attention_dies} attention dies in turn,"
            f" {r.num_ranks} expert dies"
        )
    return f"{where}: {of} ({r.sent_as}), {rate} a rank"


def _memory(found: "Priced") -> str:
    held = found.buffers
    if held is None:
        return ""
    parts = {
        "dispatch": held.dispatch_bytes,
        "combine": held.combine_bytes,
        "metadata": held.metadata_bytes,
    }
    each = ", ".join(f"{name} {size / MIB:.1f}" for name, size in parts.items() if size)
    return f"Pinned on each die for such batches: {held.total_bytes / MIB:.1f} MiB ({each})"


def _basis(hardware: "HardwareProfile", found: "Priced") -> str:
    fit = found.fit
    status = fit.status(hardware.die.name, hardware.family)
    left = ""
    if fit.median_abs_error_frac is not None:
        left = f", left {fit.median_abs_error_frac:.1%} median error"
    return (
        f"Constants {found.variant} ({status}): {fit.device}, {fit.rows} rows{left}; {fit.source}"
    )
