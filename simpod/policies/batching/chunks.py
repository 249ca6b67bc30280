"""What many schedulers do: give a step's token budget to prompts in some order."""

from collections.abc import Iterable, Iterator, Sequence
from math import isnan

from simpod.policies.roles import BatchView, SequenceView

UNLIMITED = 1 << 62


def fill(
    view: BatchView,
    order: Iterable[SequenceView],
    budget: int,
    longest: int = UNLIMITED,
    *,
    more_slots: int = 0,
) -> dict[int, int]:
    """Give the token budget to the prompts in `order` until it, or the slots, run out.

    more_slots: those that the plan's preemptions free.
    """
    slots = view.free_seq_slots + more_slots
    chunks: dict[int, int] = {}
    for seq in order:
        if budget <= 0 or len(chunks) >= slots:
            break
        chunk = min(seq.uncached_tokens, budget, longest)
        chunks[seq.seq_id] = chunk
        budget -= chunk
    return chunks


def ongoing_first(view: BatchView, order: Sequence[SequenceView]) -> Iterator[SequenceView]:
    """The same order, but prompts under way come before the first new one that may find no room.

    Else the step's budget would go to one that can't start, while those whose blocks it waits for
    stand still.
    """
    free = view.free_blocks
    for place, seq in enumerate(order):
        if not seq.is_running:
            free -= -(-(seq.prompt_tokens + seq.emitted_tokens) // view.block_tokens)
            if free < 0:
                yield from (other for other in order[place:] if other.is_running)
                yield from (other for other in order[place:] if not other.is_running)
                return
        yield seq


def beside_decodes(view: BatchView) -> int:
    """Token budget that running decodes leave."""
    return view.max_step_tokens - view.num_decoding


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a parameter below `least`, or NaN."""
    if not value >= least:
        raise ValueError(f"{name}: must be >= {least}, got {value}")


def check_positive(name: str, value: float) -> None:
    """Refuse a parameter that is not above 0."""
    if not value > 0:
        raise ValueError(f"{name}: must be > 0, got {value}")


def check_share(name: str, value: float) -> None:
    """Refuse a parameter that is not within 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must be from 0 to 1, got {value}")


def expected_tokens(seq: SequenceView) -> float:
    """Predicted output length, or score; 0 for all without a predictor."""
    return 0.0 if isnan(seq.predicted_tokens) else seq.predicted_tokens
