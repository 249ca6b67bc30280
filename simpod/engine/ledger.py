"""The step ledger of a group: one row a run of like steps, from which every time follows."""

from struct import Struct

import numpy as np
from numpy.typing import NDArray

from simpod.engine.steps import StepRun, TokenClock
from simpod.records.columns import STEP_PARTS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROW = (
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
EXPAND_AT_ONCE = 2**20


class Ledger:
    """Append-only; token times follow from the runs and a sequence's span of steps."""

    def __init__(self, clock: TokenClock) -> None:
        self.clock = clock
        self.num_decode_steps = 0
        self.num_steps = 0
        self.busy_s = 0.0
        self._rows = bytearray()
        self._fixed: list[Floats] = []

    def add(  # one packed row: a tuple would only hide the columns
        self, run: StepRun, decoding: int, context: int, prompt: int, slots: int, kv_tokens: int
    ) -> None:
        """Enter a run that is done, with what was in its steps: sequences and tokens."""
        prices, end_s = run.prices, run.end_s
        self._rows += PACK_ROW(
            self.num_steps,
            run.steps,
            run.start_s,
            end_s,
            prices.base_s,
            prices.slope_s,
            run.first,
            decoding,
            context,
            prompt,
            slots,
            kv_tokens,
            prices.attention_s,
            prices.attention_slope_s,
        )
        self._fixed.append(prices.fixed_s)
        self.num_steps += run.steps
        self.busy_s += end_s - run.start_s
        if decoding:
            self.num_decode_steps += run.steps

    @property
    def table(self) -> Floats:
        """[num_runs, len(ROW)]; the ledger takes no more runs while anybody holds it."""
        return np.frombuffer(self._rows).reshape(-1, len(ROW))

    @property
    def fixed_s(self) -> Floats:
        """[num_runs, parts of a step] seconds of one step, without what grows with the context."""
        return np.array(self._fixed).reshape(-1, len(STEP_PARTS))  # also for a group without steps

    def decode_ends(self) -> Floats:
        """[num_decode_steps] end of each decode step, by the formula of `StepRun`."""
        table = self._decoding()
        ends = np.empty(self.num_decode_steps)
        counts, firsts = (
            table[:, ROW.index(name)].astype(np.int64)
            for name in ("num_steps", "first_decode_step")
        )
        start_s, base_s, slope_s = (
            table[:, ROW.index(n)] for n in ("start_s", "base_s", "slope_s")
        )
        cuts = np.flatnonzero(np.diff(firsts // EXPAND_AT_ONCE)) + 1  # bounds the temporary arrays
        for part in np.split(np.arange(len(table)), cuts):
            if len(part):
                row = np.repeat(part, counts[part])
                done = np.arange(firsts[part[0]], firsts[part[0]] + len(row)) + 1 - firsts[row]
                gained = self.clock.running_sums(firsts[row], done)
                ends[firsts[part[0]] :][: len(row)] = start_s[row] + (
                    done * base_s[row] + slope_s[row] * gained
                )
        return ends

    def decode_seqs(self) -> Ints:
        """[num_decode_steps] sequences in each decode step."""
        table = self._decoding()
        seqs, counts = (
            table[:, ROW.index(name)].astype(np.int64) for name in ("decode_seqs", "num_steps")
        )
        return np.repeat(seqs, counts)

    def _decoding(self) -> Floats:
        table = self.table
        return table[table[:, ROW.index("decode_seqs")] > 0]
