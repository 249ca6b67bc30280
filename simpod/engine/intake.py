"""Engines that plan a step ahead: a prompt that arrives waits for the step that is planned already.

While the die runs one step the host plans the next (vLLM's asynchronous scheduling, the overlap
schedulers of SGLang and TensorRT-LLM), so what arrives during a step is seen at its end, and joins
the step after the next one. An arrival at the very end of a step, which an answer has triggered,
comes after the plan that is made there: its client sends it a little later.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpod.engine.sequence import Sequence

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.rank import Rank


@dataclass(slots=True, eq=False)
class Arrival:
    """A prompt that no scheduler has seen yet."""

    seq: Sequence
    rank: "Rank"
    seen_at: int
    """Steps of the group that are over when it is seen."""


def receive(group: "Group", seq: Sequence, rank: "Rank") -> int:
    """A prompt arrives: its rank sees it now, or, at work, when steps planned before are over.

    Returns the last step before it is seen; 0: it is seen already. Ranks that only decode are not
    kept waiting: what comes to them was computed elsewhere.
    """
    if group.spec.role == "decode":
        rank.inbox[seq.seq_id] = seq
        rank.touch()
        return 0
    ahead = group.sim.inputs.steps_ahead
    step = group.step_at_work() if ahead else 0
    if not step:
        _show(group, seq, rank)
        return 0
    group.unseen.append(Arrival(seq, rank, step + ahead))
    return step + ahead


def take_in(group: "Group") -> None:
    """Between two steps: let schedulers see what has waited long enough.

    All of it if nothing runs, for then nothing was planned ahead.
    """
    is_idle = not group.num_decoding and not any(rank.partial for rank in group.ranks)
    over = group.ledger.num_steps
    late = []
    for arrival in group.unseen:
        if is_idle or arrival.seen_at <= over:
            _show(group, arrival.seq, arrival.rank)
        else:
            late.append(arrival)
    group.unseen = late


def _show(group: "Group", seq: Sequence, rank: "Rank") -> None:
    """Queue a prompt, and let the schedulers whom it concerns plan again."""
    rank.waiting[seq.seq_id] = seq
    if rank.asks_group:
        for asked in group.ranks:
            asked.touch()
    else:
        rank.touch()
