"""What a step of a lock-step group holds, and what it was found to take."""

from dataclasses import dataclass, replace

import numpy as np

from simpod.cost.step_parts import ATTENTION, DISPATCH_WAIT, HOST_GAP, MTP
from simpod.cost.step_traffic import StepTraffic
from simpod.cost.stragglers import Arrivals
from simpod.cost.work import Floats, Ints

ROUNDING = 1e-13
"""Relative difference of two sums over hundreds of ranks that is none."""

NO_WAIT = np.zeros(1)
"""Of the one rank of a group."""
NO_WAIT.flags.writeable = False


@dataclass(slots=True, eq=False)
class Batch:
    """What the ranks of a group hold in one step; every array is [num_ranks], updated in place.

    context_tokens: resident tokens of the decoding sequences before the step, as if each had
    `gained_tokens` fewer than it has: what they all gain in a step is then one number.
    prefill_pairs: query-key pairs of the chunks, sum of chunk * (resident + (chunk + 1) / 2).
    prefill_context: tokens whose KV the chunks read, sum of resident + chunk.
    """

    decode_seqs: Ints
    context_tokens: Ints
    prefill_tokens: Ints
    prefill_pairs: Floats
    prefill_context: Ints
    num_chunks: Ints
    gained_tokens: int = 0

    @staticmethod
    def of(decode_seqs: Ints, context_tokens: Ints) -> "Batch":
        """A batch without prompts."""
        size = len(decode_seqs)
        prompts, context, chunks = (np.zeros(size, dtype=np.int64) for _ in range(3))
        return Batch(decode_seqs, context_tokens, prompts, np.zeros(size), context, chunks)

    def without_decodes(self) -> "Batch":
        """The same step while decodes pause."""
        nothing = np.zeros_like(self.decode_seqs)
        return replace(self, decode_seqs=nothing, context_tokens=nothing)


@dataclass(slots=True, eq=False)
class StepPrices:
    """The law of successive steps of one composition: a step lasts base_s + slope_s * g.

    g: resident tokens that each decoding sequence has gained since the first of them. `fixed_s`
    [NUM_PARTS] is the same in each step; attention over the cache takes attention_s +
    attention_slope_s * g (mean over ranks).
    """

    base_s: float
    slope_s: float
    fixed_s: Floats
    attention_s: float
    attention_slope_s: float
    mtp_share: float  # of attention
    rank_busy_s: Floats | None  # [num_ranks] until dispatch, first step, all layers; None: one rank
    room_tokens: int  # largest g before a rank's attention follows another line
    arrivals: Arrivals | None = None  # of ranks at their dispatches, where the law needs them
    traffic: StepTraffic | None = None  # where exchanges share links: on those of the dies

    def parts(self, num_steps: int = 1, gained: int = 0) -> Floats:
        """[NUM_PARTS] seconds summed over `num_steps` steps, whose g add up to `gained`."""
        parts_s = num_steps * self.fixed_s[np.newaxis]
        complete_breakdown(
            parts_s,
            attention_s=np.array([self.attention_s * num_steps + self.attention_slope_s * gained]),
            total_s=np.array([self.base_s * num_steps + self.slope_s * gained]),
            mtp_share=self.mtp_share,
        )
        return parts_s.reshape(-1)

    def launched(self, least_s: float) -> "StepPrices":
        """The same for a step by itself, if the host takes `least_s` to launch its kernels.

        No law of later steps: attention grows behind the launches, which do not.
        """
        waits_s = least_s - self.base_s
        if waits_s <= 0.0:
            return self
        fixed_s = self.fixed_s.copy()
        fixed_s[HOST_GAP] += waits_s
        return replace(self, base_s=least_s, fixed_s=fixed_s, room_tokens=0)

    def linear_tokens(self, wanted: int = 2**62) -> int:
        """Largest g, at most `wanted`, up to which the law holds: beyond it other ranks decide.

        What ranks take is convex in g: where it lies above the law, the law ends no later than
        where the line through that point meets it. Where it grows no faster there, the difference
        is rounding.
        """
        room = min(self.room_tokens, wanted)
        if self.arrivals is None or room <= 0:
            return max(room, 0)
        now_s, slope_s = self.arrivals.last()
        while room > 0:
            then_s, steeper_s = self.arrivals.last(room)
            ahead_s = then_s - (now_s + room * slope_s)
            steeper_s -= slope_s
            if ahead_s <= ROUNDING * then_s or steeper_s <= ROUNDING * slope_s:
                break
            room = min(room - 1, int(room - ahead_s / steeper_s))
        return max(room, 0)

    @property
    def rank_wait_s(self) -> Floats:
        """[num_ranks]: wait of each rank for the slowest, first step, all layers."""
        if self.rank_busy_s is None:
            return NO_WAIT
        slowest_s: float = self.rank_busy_s.max()
        return slowest_s - self.rank_busy_s


def complete_breakdown(
    parts_s: Floats, *, attention_s: Floats, total_s: Floats, mtp_share: float
) -> None:
    """Add what is missing to the parts of m runs: the rest of a run is wait for slower ranks.

    parts_s [m, NUM_PARTS] without attention over the cache, changed in place; attention_s,
    total_s [m] of the whole run.
    """
    parts_s[:, ATTENTION] += attention_s * (1.0 - mtp_share)
    parts_s[:, MTP] += attention_s * mtp_share
    parts_s[:, DISPATCH_WAIT] += np.maximum(0.0, total_s - parts_s.sum(axis=1))


def least(values: Floats) -> float:
    """Faster than `min` on a few hundred ranks."""
    return values.item(values.argmin())
