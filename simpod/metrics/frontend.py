"""The central frontend: how busy it is, and what waits there."""

from dataclasses import dataclass

import numpy as np

from simpod.metrics.window import Window
from simpod.records.columns import Floats, FrontendRecords, RunRecords


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontendUse:
    """NaN where no token came.

    load_frac is about the time in which measured requests arrived (from the first to the last step
    where they arrived all at once). At 1 or more the backlog grows as long as such load lasts, and
    every latency depends on how long the run was. In a closed loop clients wait for their tokens
    instead: it stays near 1, and the frontend is what limits the throughput. The other figures are
    of the whole run, from the first step that gave tokens on.
    """

    processes: int
    s_per_token: float  # of one process
    s_per_message: float
    tokens: int
    messages: int  # steps that gave tokens
    load_frac: float  # work that came / time
    busy_frac: float
    mean_backlog_tokens: float  # over time; a message's tokens leave together
    max_backlog_tokens: int
    mean_delay_s: float  # of a token, from the end of its step until its client had it
    max_delay_s: float


def frontend_use(records: RunRecords, window: Window) -> FrontendUse | None:
    """Use of the central frontend; None if there is none."""
    frontend = records.frontend
    if frontend is None:
        return None
    time_s, tokens, left_s = frontend.time_s, frontend.tokens, frontend.left_s
    span_s = records.end_s - float(time_s.min(initial=records.end_s))
    delay_s, total = left_s - time_s, int(tokens.sum())
    inside_s = np.minimum(left_s, records.end_s) - time_s
    # it works on a message just before that leaves; of a run cut off some lies beyond the end
    worked_s = np.clip(frontend.work_s - np.maximum(left_s - records.end_s, 0.0), 0.0, None)
    return FrontendUse(
        processes=frontend.processes,
        s_per_token=frontend.s_per_token,
        s_per_message=frontend.s_per_message,
        tokens=total,
        messages=len(tokens),
        load_frac=_load_frac(frontend, window),
        busy_frac=_ratio(float(worked_s.sum()), span_s),
        mean_backlog_tokens=_ratio(float(tokens @ inside_s), span_s),
        max_backlog_tokens=int(_backlog(frontend).max(initial=0)),
        mean_delay_s=_ratio(float(tokens @ delay_s), total),
        max_delay_s=float(delay_s.max()) if total else np.nan,
    )


def _backlog(frontend: FrontendRecords) -> Floats:
    """[m] tokens there as each message comes, its own counted; those that leave then are gone."""
    gone = np.searchsorted(frontend.left_s, frontend.time_s, side="right")
    sums = np.append(0, frontend.tokens.cumsum())
    backlog: Floats = sums[1:] - sums[np.minimum(gone, np.arange(len(gone)))]
    return backlog


def _load_frac(frontend: FrontendRecords, window: Window) -> float:
    start_s, end_s = window.arrival_start_s, window.arrival_end_s
    if window.is_whole_run or not end_s > start_s:
        start_s = float(frontend.time_s.min(initial=np.inf))
        end_s = float(frontend.time_s.max(initial=-np.inf))
    comes = (frontend.time_s > start_s) & (frontend.time_s <= end_s)
    return _ratio(float(frontend.work_s[comes].sum()), end_s - start_s)


def _ratio(amount: float, per: float) -> float:
    return amount / per if per > 0 else np.nan
