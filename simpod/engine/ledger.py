"""The step ledger of a group: end times of its decode steps, and one row a run of like steps."""

from array import array

import numpy as np
from numpy.typing import NDArray

from simpod.records.columns import STEP_PARTS

Floats = NDArray[np.float64]

RUN_FIELDS = (
    "first_step",
    "num_steps",
    "start_s",
    "end_s",
    "decode_seqs",
    "context_tokens",
    "prefill_tokens",
)


class Ledger:
    """Append-only. Token times are not stored: they follow from these and each sequence's step span."""

    def __init__(self) -> None:
        self.num_decode_steps = 0
        self.num_steps = 0
        self.busy_s = 0.0
        self._ends = np.empty(256)
        self._runs = array("d")
        self._decode_runs = array("q")  # num_steps, decode_seqs of each run that decoded

    def add_run(self, ends: Floats, start_s: float, composition: tuple[int, int, int]) -> None:
        """Enter `len(ends)` successive steps; `composition` = decode sequences, context, prefill tokens."""
        count = len(ends)
        end_s = float(ends[-1])
        self._runs.extend((self.num_steps, count, start_s, end_s, *composition))
        self.num_steps += count
        self.busy_s += end_s - start_s

    def add_parts(self, parts_s: Floats) -> None:
        """Enter the breakdown [len(STEP_PARTS)] of the run just added."""
        self._runs.extend(parts_s.tolist())

    def add_decodes(self, ends: Floats, decode_seqs: int) -> None:
        """Enter the ends of steps in which `decode_seqs` sequences decoded."""
        count = len(ends)
        first, last = self.num_decode_steps, self.num_decode_steps + count
        if last > len(self._ends):
            grown = np.empty(max(2 * len(self._ends), last))
            grown[:first] = self._ends[:first]
            self._ends = grown
        self._ends[first:last] = ends
        self.num_decode_steps = last
        self._decode_runs.extend((count, decode_seqs))

    @property
    def decode_end_s(self) -> Floats:
        """[num_decode_steps] ends of decode steps."""
        return self._ends[: self.num_decode_steps]

    @property
    def decode_seqs(self) -> NDArray[np.int64]:
        """[num_decode_steps] sequences in each decode step."""
        runs = np.frombuffer(self._decode_runs, dtype=np.int64).reshape(-1, 2)
        return np.repeat(runs[:, 1], runs[:, 0])

    @property
    def runs(self) -> Floats:
        """[num_runs, len(RUN_FIELDS) + len(STEP_PARTS)]."""
        width = len(RUN_FIELDS) + len(STEP_PARTS)
        return np.frombuffer(self._runs, dtype=np.float64).reshape(-1, width)
