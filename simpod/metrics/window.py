"""Which requests, and which stretch of time, the statistics are about.

The rule, one for open loop, closed loop and traces:

* **Latencies, attainment**: requests in order of arrival, without the first `warmup_frac` and the
  last `drain_frac` of them ("measured"). Of these, latencies are those of the finished ones.
* **Throughput, goodput**: finished requests in order of finish, without the first `warmup_frac`
  and the last `drain_frac` of them; their tokens, divided by the time from the last finish left
  out before them (or the first arrival, if none is) to the last finish counted. A rate of
  departures needs no request to arrive *and* finish in the window, so that it holds for short
  runs as well.
* When all measured requests arrive at one instant (an offline batch), or all finish at one
  instant, there is no steady part: the window is the whole run, nothing is left out, and
  `is_whole_run` says so.

With both fractions zero this is exactly the rule of `vllm bench serve`: first arrival to last
finish.
"""

from dataclasses import dataclass

import numpy as np

from simpod.errors import ConfigError
from simpod.metrics.latency import Bools
from simpod.records.columns import FINISHED, Ints, RequestRecords


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """The part of a run that counts; times are NaN if nothing arrived, or nothing finished."""

    measured: Bools  # [n] by arrival
    completed: Bools  # [n] by finish
    arrival_start_s: float  # first and last arrival of the measured
    arrival_end_s: float
    finish_start_s: float  # the completed ones finished within (start, end]
    finish_end_s: float
    is_whole_run: bool

    @property
    def duration_s(self) -> float:
        """What tokens of the completed requests are divided by."""
        return self.finish_end_s - self.finish_start_s

    @property
    def arrival_span_s(self) -> float:
        """First to last measured arrival; 0 for an offline batch."""
        return self.arrival_end_s - self.arrival_start_s


def measure(requests: RequestRecords, warmup_frac: float, drain_frac: float) -> Window:
    """Apply the rule above."""
    if not (warmup_frac >= 0 and drain_frac >= 0 and warmup_frac + drain_frac < 1):
        raise ConfigError(
            f"measure: warmup_frac {warmup_frac} and drain_frac {drain_frac} must be >= 0 "
            "and add up to less than 1"
        )
    trimmed = _window(requests, warmup_frac, drain_frac, is_whole_run=False)
    if trimmed.arrival_span_s > 0 and trimmed.duration_s > 0:
        return trimmed
    return _window(requests, 0.0, 0.0, is_whole_run=True)


def _window(
    requests: RequestRecords, warmup_frac: float, drain_frac: float, *, is_whole_run: bool
) -> Window:
    num_requests = len(requests.status)
    sent = np.argsort(requests.arrival_s, kind="stable")
    measured = sent[_kept(len(sent), warmup_frac, drain_frac)]
    done = np.flatnonzero(requests.status == FINISHED)
    done = done[np.argsort(requests.finish_s[done], kind="stable")]
    kept = _kept(len(done), warmup_frac, drain_frac)
    arrivals, finishes = requests.arrival_s[measured], requests.finish_s[done]
    first_arrival = requests.arrival_s[sent[0]] if len(sent) else np.nan
    before = finishes[kept.start - 1] if kept.start else first_arrival
    last = finishes[kept.stop - 1] if len(done) else np.nan
    # by time, not by rank: those that finish together are counted or left out together
    completed = (
        done[finishes <= last] if not kept.start else done[(finishes > before) & (finishes <= last)]
    )
    return Window(
        measured=_mask(measured, num_requests),
        completed=_mask(completed, num_requests),
        arrival_start_s=float(arrivals[0]) if len(arrivals) else np.nan,
        arrival_end_s=float(arrivals[-1]) if len(arrivals) else np.nan,
        finish_start_s=float(before),
        finish_end_s=float(last),
        is_whole_run=is_whole_run,
    )


def _kept(count: int, warmup_frac: float, drain_frac: float) -> slice:
    # the 1e-9 keeps 0.29 * 100 from being cut to 28
    return slice(int(warmup_frac * count + 1e-9), count - int(drain_frac * count + 1e-9))


def _mask(indices: Ints, length: int) -> Bools:
    mask = np.zeros(length, dtype=np.bool_)
    mask[indices] = True
    return mask
