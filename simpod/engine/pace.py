"""Tokens of a sequence in the decode steps of its group, whose clock counts mean ones."""

from math import ceil
from typing import TYPE_CHECKING

from simpod.engine.sequence import Sequence
from simpod.records.columns import PACE_ROUNDING, Floats

if TYPE_CHECKING:
    from simpod.engine.group import Group


class Pace:
    """How fast sequences get their tokens: all alike, or each by the drafts that it accepts.

    A sequence with a pace of its own has floor(k * rate) tokens after k steps. The KV cache grows
    by the clock for all of them: what slow ones are counted too many, fast ones are too few.
    """

    def __init__(self, output_tokens: list[int], pace: Floats | None, room_tokens: int) -> None:
        """pace: [n] tokens of a step over the group's mean; None: all alike."""
        self._output_tokens = output_tokens
        self._pace: list[float] | None = None if pace is None else pace.tolist()
        self._room_tokens = room_tokens

    def finish_step(self, seq: Sequence, group: "Group") -> int:
        """The decode step of the group that gives the last token of a sequence that joins now.

        No later than where the sequence, which grows by the clock, would fill a rank alone.
        """
        left = self._output_tokens[seq.seq_id] - seq.emitted_tokens
        if self._pace is None:
            return group.tokens.step_of(group.kv.clock + left)
        clock, tokens = group.kv.clock, group.tokens
        rate = self._pace[seq.seq_id] * tokens.tokens / tokens.per_steps
        full = tokens.step_of(clock + max(left, self._room_tokens - seq.resident_tokens))
        return min(seq.first_decode_step + ceil(left / rate - PACE_ROUNDING), full)

    def outputs(self, seq: Sequence, group: "Group") -> int:
        """Tokens that a sequence has got in its steps so far."""
        if self._pace is None:
            return group.kv.clock - seq.join_clock
        rate = self._pace[seq.seq_id] * group.tokens.tokens / group.tokens.per_steps
        steps = group.ledger.num_decode_steps - seq.first_decode_step
        return int(steps * rate + PACE_ROUNDING)
