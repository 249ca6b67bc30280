"""How many requests are in the system, and whether that grows."""

from dataclasses import dataclass

import numpy as np

from simpod.metrics.window import Window
from simpod.records.columns import REFUSED, Floats, RequestRecords, RunRecords

STABLE, GROWING, BACKLOGGED, BURST = "STABLE", "GROWING", "BACKLOGGED", "BURST"

NUM_SAMPLES = 201
"""Moments at which the window is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stationarity:
    """Whether the measured window was a steady state.

    Growth is the slope of a count over the window (least squares through `NUM_SAMPLES` moments)
    times its length. A count grows if that exceeds `threshold_seqs`: 5 standard deviations of a
    Poisson count of the mean in system, and 5 % of the window's arrivals.

    STABLE: the number in the system does not grow. BACKLOGGED: requests that *wait* (for their
    first step, or for room in the decode pool) grow: more is offered than served. GROWING: the
    number in the system grows but not the wait: not warm yet; run longer or measure later. BURST:
    all arrive at once. Those whose last tokens a central frontend has yet to send on wait too.
    """

    verdict: str
    mean_in_system: float
    growth_seqs: float
    waiting_growth_seqs: float
    threshold_seqs: float

    @property
    def is_stationary(self) -> bool:
        """The statistics are those of a steady state."""
        return self.verdict == STABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class LittlesLaw:
    """L = lambda W between the first arrival and the last event; an identity once drained."""

    mean_in_system: float  # L: time average of the number in the system
    rate_per_s: float  # lambda: arrivals over the time
    mean_time_s: float  # W: in the system, until the end of the run for those that stay


def stationarity(records: RunRecords, window: Window) -> Stationarity:
    """Judge the measured window by its growth; see `Stationarity` for the rule."""
    span_s = window.arrival_span_s
    if window.is_whole_run or not span_s > 0:
        return Stationarity(
            verdict=BURST,
            mean_in_system=littles_law(records).mean_in_system,
            growth_seqs=np.nan,
            waiting_growth_seqs=np.nan,
            threshold_seqs=np.nan,
        )
    times = np.linspace(window.arrival_start_s, window.arrival_end_s, NUM_SAMPLES)
    in_system = _in_system(records.requests, times)
    waiting = _waiting(records, times)
    mean = float(np.mean(in_system))
    threshold = max(5 * mean**0.5, 0.05 * int(window.measured.sum()))
    growth, waiting_growth = _growth(in_system), _growth(waiting)
    verdict = STABLE
    if growth > threshold:
        verdict = BACKLOGGED if waiting_growth > threshold else GROWING
    return Stationarity(
        verdict=verdict,
        mean_in_system=mean,
        growth_seqs=growth,
        waiting_growth_seqs=waiting_growth,
        threshold_seqs=threshold,
    )


def peak_in_system(requests: RequestRecords) -> int:
    """Most requests in the system at once; at equal times finishes come before arrivals."""
    arrivals = _arrivals(requests)
    gone = np.searchsorted(_finishes(requests), arrivals, side="right")
    return int(np.max(np.arange(1, len(arrivals) + 1) - gone, initial=0))


def littles_law(records: RunRecords) -> LittlesLaw:
    """Both sides of the law, computed apart: L from the count over time, W from the requests."""
    arrivals, finishes = _arrivals(records.requests), _finishes(records.requests)
    if len(arrivals) == 0 or not records.end_s > arrivals[0]:
        return LittlesLaw(mean_in_system=np.nan, rate_per_s=np.nan, mean_time_s=np.nan)
    span_s = records.end_s - float(arrivals[0])
    times = np.concatenate([arrivals, finishes])
    changes = np.repeat([1, -1], [len(arrivals), len(finishes)])
    order = np.argsort(times, kind="stable")
    lengths_s = np.diff(times[order], append=records.end_s)
    stays = len(arrivals) - len(finishes)
    return LittlesLaw(
        mean_in_system=float(np.dot(np.cumsum(changes[order]), lengths_s) / span_s),
        rate_per_s=len(arrivals) / span_s,
        mean_time_s=float(finishes.sum() + stays * records.end_s - arrivals.sum()) / len(arrivals),
    )


def _arrivals(requests: RequestRecords) -> Floats:
    """Of all that entered (refused ones never do), ascending."""
    return np.sort(requests.arrival_s[requests.status != REFUSED])


def _finishes(requests: RequestRecords) -> Floats:
    """Ascending; of those that entered."""
    return _known(requests.finish_s[requests.status != REFUSED])


def _known(times: Floats) -> Floats:
    return np.sort(times[~np.isnan(times)])


def _reached(times: Floats, moments: Floats) -> Floats:
    return np.searchsorted(times, moments, side="right").astype(np.float64)


def _in_system(requests: RequestRecords, moments: Floats) -> Floats:
    return _reached(_arrivals(requests), moments) - _reached(_finishes(requests), moments)


def _waiting(records: RunRecords, moments: Floats) -> Floats:
    """Sequences before their first step, those whose KV waits for room in the decode pool, and
    those that wait for a central frontend alone."""
    requests = records.requests
    waiting = _reached(_arrivals(requests), moments) - _reached(
        _known(requests.scheduled_s), moments
    )
    roles = {pool.role for pool in records.pools}
    if {"prefill", "decode"} <= roles:
        # a request that ends with its first token is never pulled
        leaves = np.fmin(requests.transfer_start_s, requests.engine_finish_s)
        waiting += _reached(_known(requests.prefill_end_s), moments)
        waiting -= _reached(_known(leaves), moments)
    if records.frontend is not None:
        waiting += _reached(_known(requests.engine_finish_s), moments)
        waiting -= _reached(_known(requests.finish_s), moments)
    return waiting


def _growth(counts: Floats) -> float:
    """Least-squares slope over equally spaced samples, times the whole length."""
    place = np.linspace(-0.5, 0.5, len(counts))
    return float(np.dot(place, counts) / np.dot(place, place))
