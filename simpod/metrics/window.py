"""Which requests, and which stretch of time, the statistics are about.

The rule, one for open loop, closed loop and traces:

* **Latencies, attainment**: requests in order of arrival, without the first `warmup_frac` and the
  last `drain_frac` of them ("measured"). Of these, latencies are those of the finished ones.
* **Throughput, goodput**: finished requests in order of finish, without the first `warmup_frac`
  and the last `drain_frac` of them; their tokens, divided by the time from the last finish left
  out before them (or the first arrival, if none is) to the last finish counted. A rate of
  departures needs no request to arrive *and* finish in the window, so that it holds for short
  runs as well.
* **Closed loop**: what comes after the first client has left, when its last request is answered, is
  left out as well, unless `drain_frac` is zero: batches empty from then on. So throughput ends at
  that moment, and measured are at most the requests that arrived before the last one of each
  client, or more where all of them finished by then (batches in lock step).
* When all measured requests arrive at one instant (an offline batch; in a closed loop: all there
  are), or all finish at one instant, there is no steady part: the window is the whole run, nothing
  is left out, and `is_whole_run` says so.

With both fractions zero this is exactly the rule of `vllm bench serve`: first arrival to last
finish.
"""

from dataclasses import dataclass

import numpy as np

from simpod.errors import ConfigError
from simpod.metrics.latency import Bools
from simpod.records.columns import FINISHED, REFUSED, Ints, RequestRecords


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """The part of a run that counts; times are NaN if nothing arrived, or nothing finished."""

    measured: Bools  # [n] by arrival
    completed: Bools  # [n] by finish
    arrival_start_s: float  # first and last arrival of the measured
    arrival_end_s: float
    finish_start_s: float  # the completed ones finished within (start, end]
    finish_end_s: float
    load_end_s: float  # requests kept coming from the first measured arrival to this time
    is_whole_run: bool

    @property
    def duration_s(self) -> float:
        """What tokens of the completed requests are divided by."""
        return self.finish_end_s - self.finish_start_s

    @property
    def arrival_span_s(self) -> float:
        """First to last measured arrival; 0 for an offline batch."""
        return self.arrival_end_s - self.arrival_start_s

    @property
    def load_span_s(self) -> float:
        """In which the load is judged; 0 for an offline batch."""
        return self.load_end_s - self.arrival_start_s


def measure(
    requests: RequestRecords, warmup_frac: float, drain_frac: float, clients: int | None = None
) -> Window:
    """Apply the rule above; clients: of a closed loop."""
    if not (warmup_frac >= 0 and drain_frac >= 0 and warmup_frac + drain_frac < 1):
        raise ConfigError(
            f"measure: warmup_frac {warmup_frac} and drain_frac {drain_frac} must be >= 0 "
            "and add up to less than 1"
        )
    closed = clients if drain_frac else None
    found = _window(requests, warmup_frac, drain_frac, closed)
    if found.load_span_s > 0 and found.duration_s > 0:
        return found
    return _window(requests, 0.0, 0.0, None, is_whole_run=True)


def _window(
    requests: RequestRecords,
    warmup_frac: float,
    drain_frac: float,
    clients: int | None,
    *,
    is_whole_run: bool = False,
) -> Window:
    num_requests = len(requests.status)
    sent = np.argsort(requests.arrival_s, kind="stable")
    done = np.flatnonzero(requests.status == FINISHED)
    done = done[np.argsort(requests.finish_s[done], kind="stable")]
    chosen, kept = (_kept(len(each), warmup_frac, drain_frac) for each in (sent, done))
    arrivals, finishes = requests.arrival_s[sent], requests.finish_s[done]
    is_closed = clients is not None and len(done) > clients
    if clients is not None and is_closed:
        leaves = len(done) - clients
        chosen = _up_to(chosen, max(leaves, _ended_by(requests, sent, finishes[leaves])))
        kept = _up_to(kept, leaves + 1)
        if kept.start and finishes[kept.start - 1] == finishes[kept.stop - 1]:
            kept = slice(0, kept.stop)
    first_arrival = arrivals[0] if len(sent) else np.nan
    before = finishes[kept.start - 1] if kept.start else first_arrival
    last = finishes[kept.stop - 1] if len(done) else np.nan
    # by time, not by rank: those that finish together are counted or left out together
    completed = (
        done[finishes <= last] if not kept.start else done[(finishes > before) & (finishes <= last)]
    )
    arrival_end_s = float(arrivals[chosen][-1]) if len(arrivals[chosen]) else np.nan
    return Window(
        measured=_mask(sent[chosen], num_requests),
        completed=_mask(completed, num_requests),
        arrival_start_s=float(arrivals[chosen][0]) if len(arrivals[chosen]) else np.nan,
        arrival_end_s=arrival_end_s,
        finish_start_s=float(before),
        finish_end_s=float(last),
        load_end_s=max(arrival_end_s, float(last)) if is_closed else arrival_end_s,
        is_whole_run=is_whole_run,
    )


def _kept(count: int, warmup_frac: float, drain_frac: float) -> slice:
    # the 1e-9 keeps 0.29 * 100 from being cut to 28
    return slice(int(warmup_frac * count + 1e-9), count - int(drain_frac * count + 1e-9))


def _up_to(kept: slice, stop: int) -> slice:
    """With a stop before its start: all until there."""
    last = min(kept.stop, stop)
    return slice(kept.start if kept.start < last else 0, last)


def _ended_by(requests: RequestRecords, sent: Ints, time_s: float) -> int:
    """How many, in order of arrival, until one that is still there at a time."""
    ends_s = np.where(requests.status == REFUSED, -np.inf, requests.finish_s)[sent]
    stays = np.flatnonzero(~(ends_s <= time_s))
    return int(stays[0]) if len(stays) else len(sent)


def _mask(indices: Ints, length: int) -> Bools:
    mask = np.zeros(length, dtype=np.bool_)
    mask[indices] = True
    return mask
