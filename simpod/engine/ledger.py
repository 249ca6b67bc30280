"""The step ledgers: one row a run of like steps, from which every time follows."""

from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simpod.cost import StepPrices
from simpod.engine.held_steps import HeldSteps
from simpod.engine.pauses import StepPauses
from simpod.engine.steps import StepRun, TokenClock
from simpod.engine.warp import UNHINDERED, WarpedRun
from simpod.errors import InvariantError
from simpod.records.columns import STEP_PARTS

if TYPE_CHECKING:
    from simpod.engine.group import Group

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]

ROW = (
    "group",
    "first_step",
    "num_steps",
    "start_s",
    "end_s",
    "base_s",
    "slope_s",
    "first_decode_step",
    "decode_seqs",
    "context_tokens",
    "prefill_tokens",
    "slots",
    "kv_tokens",
    "attention_s",
    "attention_slope_s",
)
PACK_ROW = Struct(f"{len(ROW)}d").pack  # three times as fast as array.extend
EXPAND_AT_ONCE = 2**14  # steps: the temporary arrays stay in the cache


class RunLog:
    """The runs of all groups in the order in which they ended.

    One log, not one a group: with a thousand groups each has few rows, and appending to many
    arrays in turn finds none of them in the processor's cache.
    """

    def __init__(self) -> None:
        self.rows = bytearray()
        self.fixed_s: list[Floats] = []
        self.table: Floats = np.empty((0, len(ROW)))
        self.parts_s: Floats = np.empty((0, len(STEP_PARTS)))

    def close(self, ledgers: "list[Ledger]") -> None:
        """Put the rows in order of groups, each group's in order of time, and hand them out.

        Then `table` is [num_runs, len(ROW)] and `parts_s` [num_runs, parts of a step].
        """
        num_groups = len(ledgers)
        table, fixed_s = np.frombuffer(self.rows).reshape(-1, len(ROW)), self.fixed_s
        if num_groups > 1:
            groups = table[:, ROW.index("group")].astype(np.int32)
            order = np.argsort(groups, kind="stable")
            table, fixed_s = table[order], [fixed_s[row] for row in order.tolist()]
        self.table = table
        self.parts_s = np.array(fixed_s).reshape(-1, len(STEP_PARTS))  # also if nothing ran
        cuts = np.searchsorted(table[:, ROW.index("group")], np.arange(1, num_groups))
        steps = [ledger.num_decode_steps for ledger in ledgers]
        ends_s, seqs = np.empty(sum(steps)), np.empty(sum(steps), dtype=np.int32)  # of all, in one
        for ledger, table, parts_s, end_s, counts in zip(
            ledgers,
            np.split(self.table, cuts),
            np.split(self.parts_s, cuts),
            np.split(ends_s, np.cumsum(steps[:-1])),
            np.split(seqs, np.cumsum(steps[:-1])),
            strict=True,
        ):
            ledger.close(table, parts_s, end_s, counts)


class Ledger:
    """Append-only; token times follow from the runs and a sequence's span of steps.

    Its tables, `close`d, are there when the simulation is over.
    """

    __slots__ = (
        "_fixed _group _rows busy_s clock decode_end_s decode_seqs held num_decode_steps num_steps "
        "parts_s pauses table"
    ).split()

    def __init__(self, log: RunLog, group: int, clock: TokenClock) -> None:
        self.clock = clock
        self.pauses: StepPauses | None = None
        self.held: HeldSteps | None = None
        self.num_decode_steps = 0
        self.num_steps = 0
        self.busy_s = 0.0
        self.table: Floats = np.empty((0, len(ROW)))
        self.parts_s: Floats = np.empty((0, len(STEP_PARTS)))
        self.decode_end_s: Floats = np.empty(0)
        self.decode_seqs: Counts = np.empty(0, dtype=np.int32)
        self._group = group
        self._rows = log.rows
        self._fixed = log.fixed_s

    @property
    def beginner(self) -> Callable[[float, StepPrices, int, int, TokenClock], StepRun]:
        """What makes a run that begins with the next step."""
        if self.held is not None:
            return self.held.begin
        return StepRun if self.pauses is None else self.paused_run

    def paused_run(
        self, start_s: float, prices: StepPrices, first: int, steps: int, clock: TokenClock
    ) -> StepRun:
        """A run that begins with the next step, and its pauses."""
        if self.pauses is None:
            raise InvariantError("a ledger without pauses")
        held_s = self.pauses.since(self.num_steps)
        return WarpedRun(start_s, prices, first, steps, clock, (UNHINDERED, held_s))

    def close(self, table: Floats, parts_s: Floats, end_s: Floats, seqs: Counts) -> None:
        """Keep the group's part of the log.

        table [num_runs, len(ROW)]; parts_s [num_runs, parts of a step]; end_s, seqs
        [num_decode_steps]: room for the end of each decode step, and for the sequences in it.
        """
        self.table, self.parts_s, self.decode_end_s, self.decode_seqs = table, parts_s, end_s, seqs
        self._expand()

    def add(self, run: StepRun, group: "Group", decoding: int) -> None:
        """Enter a run that is done, with what the group had at its start."""
        prices, end_s, context = run.prices, run.end_s, group.context_tokens
        self._rows += PACK_ROW(
            self._group,
            self.num_steps,
            run.steps,
            run.start_s,
            end_s,
            prices.base_s,
            prices.slope_s,
            run.first,
            decoding,
            context,
            group.prefill_tokens,
            decoding + group.num_chunks + group.num_pulling,
            group.kv.tokens_beside + context,
            prices.attention_s,
            prices.attention_slope_s,
        )
        self._fixed.append(prices.fixed_s)
        self.num_steps += run.steps
        self.busy_s += end_s - run.start_s
        if decoding:
            self.num_decode_steps += run.steps

    def _expand(self) -> None:
        """From runs to decode steps: their ends, by the formula of `StepRun`, and sequences."""
        decoding = np.flatnonzero(self.table[:, ROW.index("decode_seqs")])
        counts, firsts, numbers, seqs = (
            self.table[decoding, ROW.index(name)].astype(np.int64)
            for name in ("num_steps", "first_decode_step", "first_step", "decode_seqs")
        )
        paused_s = self.pauses.sums(self.num_steps) if self.pauses is not None else None
        start_s, end_s, base_s, slope_s = (
            self.table[decoding, ROW.index(n)] for n in ("start_s", "end_s", "base_s", "slope_s")
        )
        if self.held is not None:
            start_s = self.held.starts(len(self.table))[decoding]
        cuts = np.flatnonzero(np.diff(firsts // EXPAND_AT_ONCE)) + 1  # bounds the temporary arrays
        for part in np.split(np.arange(len(decoding)), cuts):
            if len(part):
                row = np.repeat(part, counts[part])
                first = firsts.take(row)
                done = np.arange(first[0], first[0] + len(row)) + 1 - first
                gained = self.clock.gained_sums(first, done)
                found_s = start_s.take(row) + (done * base_s.take(row) + slope_s.take(row) * gained)
                if paused_s is not None:
                    found_s += paused_s[numbers[row] + done] - paused_s[numbers[row]]
                if self.held is not None:
                    found_s = self.held.whens(found_s, end_s[row])
                here = slice(first[0], first[0] + len(row))
                self.decode_end_s[here], self.decode_seqs[here] = found_s, seqs.take(row)

    def spans(self) -> tuple[Floats, Floats, Floats]:
        """[num_runs] start, end and steps of each run."""
        start_s, end_s, steps = (
            self.table[:, ROW.index(name)] for name in ("start_s", "end_s", "num_steps")
        )
        return start_s, end_s, steps

    def run_pauses_s(self) -> Floats:
        """[num_runs] seconds by which the steps of each run are held up."""
        if self.pauses is None:
            return np.zeros(len(self.table))
        number, steps = (
            self.table[:, ROW.index(name)].astype(np.int64) for name in ("first_step", "num_steps")
        )
        sums_s = self.pauses.sums(self.num_steps)
        held_s: Floats = sums_s[number + steps] - sums_s[number]
        return held_s
