"""What a controller sees over time: samples of every pool, and what finished requests got.

It reads what the engine logs anyway (ended requests, runs of steps), so that watching costs the
engine nothing.
"""

from array import array
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable
from math import isnan
from struct import Struct
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from simpod.engine.collect import REQUEST_FIELDS
from simpod.engine.ledger import ROW as STEP_ROW
from simpod.records.columns import FINISHED, TimeSeriesRecords

if TYPE_CHECKING:
    from simpod.engine.pool import Pool
    from simpod.engine.sequence import Sequence
    from simpod.engine.simulation import Simulation

Floats = NDArray[np.float64]

ROW: Final = (
    "time_s",
    "pool",
    "serving",
    "draining",
    "loading",
    "waiting_seqs",
    "running_seqs",
    "kv_frac",
    "prompt_tokens_per_s",
    "output_tokens_per_s",
    "arrivals_per_s",
    "arrived_tokens_per_s",
    "spare_dies",
)
_REQUEST: Final = Struct(f"{len(REQUEST_FIELDS)}d")
_RUN: Final = ("group", "first_decode_step", "first_step", "start_s", "base_s", "slope_s")


class LoadSamples:
    """Rows of `timeseries.parquet`, one a pool and sample."""

    def __init__(self, sim: "Simulation", sample_s: float) -> None:
        self.sample_s = sample_s
        self._sim = sim
        self._rows = array("d")
        self._arrived = self._arrived_tokens = 0
        self._before = [0.0] * (2 + 2 * len(sim.pools))
        self._ended_tokens = 0

    def counting(self, submit: "Callable[[Sequence], None]") -> "Callable[[Sequence], None]":
        """The same `submit`, and what comes is counted."""

        def count(seq: "Sequence") -> None:
            self._arrived += 1
            self._arrived_tokens += seq.prompt_tokens
            submit(seq)

        return count

    def ended(self, output_tokens: int) -> None:
        """A request has got its output."""
        self._ended_tokens += output_tokens

    def take(self, states: list[tuple[int, int, int]], spare_dies: int) -> None:
        """Sample now; states: of each pool the instances serving, draining, loading."""
        sim = self._sim
        now = [float(self._arrived), float(self._arrived_tokens)]
        for pool in sim.pools:
            out = self._output_tokens() if pool is (sim.decode or sim.entry) else 0
            now += [float(pool.dispatch.prompt_tokens), float(out)]
        per_s = [(a - b) / self.sample_s for a, b in zip(now, self._before, strict=True)]
        self._before = now
        for index, (pool, state) in enumerate(zip(sim.pools, states, strict=True)):
            queues = (sum(pool.dispatch.waiting_seqs), sum(pool.dispatch.running_seqs))
            kv_frac = self._kv_tokens(pool) / max(1, sum(state) * self._kv_capacity(pool))
            rates = (*per_s[2 + 2 * index : 4 + 2 * index], *per_s[:2])
            self._rows.extend((sim.clock.now, index, *state, *queues, kv_frac, *rates, spare_dies))

    def window(self, num_samples: int) -> Floats:
        """[pools, samples, len(ROW)] the last samples, the oldest first."""
        pools = len(self._sim.pools)
        table = np.array(self._rows[-num_samples * pools * len(ROW) :])
        return table.reshape(-1, pools, len(ROW)).swapaxes(0, 1)

    def records(self) -> TimeSeriesRecords:
        """All rows."""
        table = np.array(self._rows).reshape(-1, len(ROW))
        columns: dict[str, NDArray[np.generic]] = {
            name: values if name.endswith(("_s", "_frac")) else values.astype(np.int64)
            for name, values in zip(ROW, table.T, strict=True)
        }
        names = tuple(pool.spec.name for pool in self._sim.pools)
        return TimeSeriesRecords(**columns, pool_names=names)  # type: ignore[arg-type]

    def _output_tokens(self) -> int:
        """Output tokens so far, those of the runs under way included."""
        sim = self._sim
        clocks = [group.clock_tokens() for group in sim.groups]
        total = self._ended_tokens
        for seq in sim.live.values():
            total += seq.emitted_tokens
            if seq.join_clock >= 0:
                total += clocks[seq.ledger] - seq.join_clock
        return total

    def _kv_tokens(self, pool: "Pool") -> int:
        """KV in use now: sequences have grown since the run under way began."""
        return sum(
            group.kv_tokens + group.num_decoding * (group.clock_tokens() - group.kv.clock)
            for group in pool.groups
        )

    def _kv_capacity(self, pool: "Pool") -> int:
        """KV tokens of an instance."""
        spec = pool.spec
        return spec.kv_blocks * spec.block_tokens * spec.layout.dp


class Finishes:
    """TTFT, TPOT and lengths of the requests that finished in the last `window_s`."""

    def __init__(self, sim: "Simulation", window_s: float, on_end: Callable[[int], None]) -> None:
        self._sim = sim
        self._window_s = window_s
        self._on_end = on_end
        self._read_rows = self._read_runs = self._read_segments = 0
        self._recent: deque[tuple[float, float, float, int, int]] = deque()
        self._firsts: dict[int, list[int]] = defaultdict(list)  # group -> first step of each run
        self._runs: dict[int, list[tuple[int, float, float, float]]] = defaultdict(list)
        self._first_segment: dict[int, tuple[int, int]] = {}  # request -> group, step

    def catch_up(self) -> None:
        """Read what has been logged since the last time."""
        sim = self._sim
        self._note_runs()
        new = sim.segments[self._read_segments :]
        self._read_segments = len(sim.segments)
        for place in range(0, len(new), 4):
            self._first_segment.setdefault(new[place], (new[place + 1], new[place + 2]))
        rows = bytes(sim.rows[self._read_rows :])
        self._read_rows = len(sim.rows)
        for values in _REQUEST.iter_unpack(rows):
            self._note(dict(zip(REQUEST_FIELDS, values, strict=True)))
        while self._recent and self._recent[0][0] <= sim.clock.now - self._window_s:
            self._recent.popleft()

    def columns(self) -> Floats:
        """[5, finished] finish, TTFT, TPOT, prompt and output tokens."""
        return np.array(self._recent, dtype=np.float64).reshape(-1, 5).T

    def _note_runs(self) -> None:
        """Keep the runs with decodes: first tokens may come from them."""
        log = self._sim.log
        table = np.frombuffer(bytes(log.rows[self._read_runs :])).reshape(-1, len(STEP_ROW))
        self._read_runs = len(log.rows)
        decoding = table[table[:, STEP_ROW.index("decode_seqs")] > 0]
        for group, first, number, *times_s in decoding[
            :, [STEP_ROW.index(n) for n in _RUN]
        ].tolist():
            self._firsts[int(group)].append(int(first))
            start_s, base_s, slope_s = times_s
            self._runs[int(group)].append((int(number), start_s, base_s, slope_s))

    def _note(self, row: dict[str, float]) -> None:
        if row["status"] != FINISHED:
            return
        requests, seq_id = self._sim.inputs.requests, int(row["request_id"])
        output = int(requests.output_tokens[seq_id])
        self._on_end(output)
        segment = self._first_segment.pop(seq_id, None)
        first_s = row["first_token_s"]
        if isnan(first_s):
            own = int(row["ledger"]), int(row["first_decode_step"])
            first_s = self._end_of(*(segment or own))
        finish_s = row["finish_s"]
        tpot_s = (finish_s - first_s) / (output - 1) if output > 1 else float("nan")
        prompt = int(requests.prompt_tokens[seq_id])
        self._recent.append((finish_s, first_s - row["arrival_s"], tpot_s, prompt, output))

    def _end_of(self, group: int, step: int) -> float:
        """End of a decode step: the formula of `steps.StepRun`."""
        place = bisect_right(self._firsts[group], step) - 1
        first = self._firsts[group][place]
        number, start_s, base_s, slope_s = self._runs[group][place]
        done = step - first + 1
        ledger = self._sim.groups[group].ledger
        end_s = start_s + (done * base_s + slope_s * ledger.clock.gained_sum(first, done))
        if ledger.pauses is not None:
            end_s += ledger.pauses.before(number + done) - ledger.pauses.before(number)
        return end_s
