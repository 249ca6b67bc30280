"""How far the load was from the deployment's limit, and how well that limit is known."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from simpod.metrics.frontend import frontend_use
from simpod.metrics.latency import Bools
from simpod.metrics.occupancy import BACKLOGGED, BURST, Stationarity
from simpod.metrics.pools import is_of, span_s
from simpod.metrics.window import Window
from simpod.records.columns import Floats, Ints, PoolRecords, RunRecords

MEASURED, ESTIMATE, LOWER_BOUND = "measured", "estimate", "lower_bound"

ALIKE = 1e-10
"""Terms of the step law whose squares differ by a smaller share cannot be told apart."""

Resource = tuple[str | None, str | None]  # pool; prefill, slots, kv or, of no pool, frontend

FRONTEND: Final[Resource] = (None, "frontend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """The pool and resource that fill first, and the rate of requests at which they do.

    In a closed loop or a burst no rate is offered: the resource is then the fullest one, and there
    is no capacity. Else `capacity_kind` says what the capacity is:

    * measured: the backlog grows, and this is the rate at which requests leave.
    * estimate: by the law of `_limit`; of a central frontend by the work that a request brings.
    * lower_bound: at least this. Prefill fills first, and steps can hold more prompts than any has
      held; or ranks in lock step wait for those with a prompt, so that more prompts are nearly
      free; or the steps were too much alike for a law.

    Errors against what leaves under 3 times the load, for runs at 10 to 95 % of it. Estimates:
    one-rank engines with chunked prefill -3 to +9 %; decode in lock step -41 to -22 % at 10 %, -9
    to +13 % from 20 % on; prefills that pause decodes -33 to +10 %. Bounds: prefill first -21 to
    +7 %; mixed pools in lock step -83 % at 10 %, -46 % at half, -2 % at 95 %.
    """

    pool: str | None
    resource: str | None  # prefill, slots, kv, frontend (of no pool); None: unknown
    used_frac: float  # mean share in use; prefill: of the ranks' time, with a prompt in work
    load_frac: float  # offered / capacity
    offered_rate_per_s: float
    capacity_rate_per_s: float
    capacity_kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    resource: Resource
    rate_per_s: float
    kind: str | None


UNKNOWN = _Limit(resource=(None, None), rate_per_s=np.nan, kind=None)


def saturation(
    records: RunRecords, window: Window, verdict: Stationarity, *, is_closed_loop: bool = False
) -> Saturation:
    """Find the limit that is nearest."""
    used = _used_fracs(records, window)
    if is_closed_loop or verdict.verdict == BURST:
        offered = np.nan
        fullest = max(used, key=lambda each: used[each], default=(None, None))
        limit = _Limit(resource=fullest, rate_per_s=np.nan, kind=None)
    else:
        offered = int(window.measured.sum()) / window.arrival_span_s
        limits = [_limit(records, pool, used, offered) for pool in records.pools]
        limits.append(_frontend_limit(records))
        limit = min(filter(None, limits), key=lambda each: each.rate_per_s, default=UNKNOWN)
        limit = _corrected(limit, int(window.completed.sum()) / window.duration_s, verdict)
    pool_name, resource = limit.resource
    return Saturation(
        pool=pool_name,
        resource=resource,
        used_frac=used.get(limit.resource, np.nan),
        load_frac=offered / limit.rate_per_s,
        offered_rate_per_s=offered,
        capacity_rate_per_s=limit.rate_per_s,
        capacity_kind=limit.kind,
    )


def _frontend_limit(records: RunRecords) -> _Limit | None:
    """When a central frontend is busy all the time: its work grows with the requests."""
    frontend = records.frontend
    served = int((~np.isnan(records.requests.engine_finish_s)).sum())
    work_s = 0.0 if frontend is None else float(frontend.work_s.sum())
    if not served or not work_s > 0:
        return None
    return _Limit(resource=FRONTEND, rate_per_s=served / work_s, kind=ESTIMATE)


def _corrected(limit: _Limit, departures_per_s: float, verdict: Stationarity) -> _Limit:
    """Correct it by the rate at which requests left: under a backlog the most that can."""
    if verdict.verdict == BACKLOGGED:
        return _Limit(resource=limit.resource, rate_per_s=departures_per_s, kind=MEASURED)
    if departures_per_s > limit.rate_per_s:
        return _Limit(resource=limit.resource, rate_per_s=departures_per_s, kind=LOWER_BOUND)
    return limit


def _limit(
    records: RunRecords, pool: PoolRecords, used: dict[Resource, float], offered_per_s: float
) -> _Limit | None:
    """When a pool is full, by the law of its own steps.

    A step takes a + b x decoding sequences + c x their context + e x prompt tokens. With m = what
    a request adds to the steps by its b, c and e, a group that serves r requests/s takes steps of
    d = a / (1 - r m). With q = a request's use of a resource in shares x steps, r q d of it is in
    use: all of it at r = 1 / (q a + m), so that the resource of the largest q fills first. For
    prefill the resource is the tokens of the fullest step that was seen.
    """
    steps, chosen = records.steps, is_of(records, pool)
    requests = records.requests
    ends_s = requests.prefill_end_s if pool.role == "prefill" else requests.engine_finish_s
    served = int((~np.isnan(ends_s)).sum())
    count, length_s = steps.num_steps[chosen], (steps.end_s - steps.start_s)[chosen]
    work = _work(records, chosen)
    tokens = work[:, 0] + work[:, 2]
    if not served or not length_s @ tokens > 0:
        return None
    # where prompts and decodes share steps, all steps count by their time; else the fullest most
    is_mixed = pool.role == "mixed"
    law, is_sure = _fit(work, length_s / count, length_s if is_mixed else count * tokens**2)
    shares = _shares(records, pool, work, served)
    resource = max(shares, key=lambda name: shares[name])
    added_s = float(law[1:] @ (count @ work)) / served
    full_s = shares[resource] * law[0] + added_s
    if not full_s > 0:
        return None
    rate_per_s = pool.average_instances / full_s
    if pool.role == "prefill" and (busy_frac := used.get((pool.name, "prefill"), 0.0)) > 0:
        rate_per_s = max(rate_per_s, offered_per_s / busy_frac)  # a busy rank may do more at once
    # where ranks wait for the one with a prompt, prompts on other ranks are nearly free
    has_waits = is_mixed and pool.ranks > pool.instances
    is_bound = resource == "prefill" or has_waits or not is_sure
    kind = LOWER_BOUND if is_bound else ESTIMATE
    return _Limit(resource=(pool.name, resource), rate_per_s=rate_per_s, kind=kind)


def _shares(records: RunRecords, pool: PoolRecords, work: Floats, served: int) -> dict[str, float]:
    """Use of each resource by the mean request: share of all there is x steps in which it has it.

    Slots and KV: the shares in use over the whole run, by the requests served, in steps as long as
    sequences see them.
    """
    steps, chosen = records.steps, is_of(records, pool)
    count, length_s = steps.num_steps[chosen], (steps.end_s - steps.start_s)[chosen]
    tokens = work[:, 0] + work[:, 2]
    shares = {}
    if pool.role != "decode":
        shares["prefill"] = float(count @ tokens) / served / float(tokens.max())
    if pool.role != "prefill":
        weight = work[:, 0] if length_s @ work[:, 0] > 0 else tokens
        steps_per_s = float(count @ weight) / float(length_s @ weight)
        lasted = steps_per_s * pool.average_instances * span_s(records) / served
        shares |= {"slots": pool.mean_slots_frac * lasted, "kv": pool.mean_kv_frac * lasted}
    return shares


def _work(records: RunRecords, chosen: Bools) -> Floats:
    """[m, 3] of the mean step of each run: decoding sequences, their context, prompt tokens."""
    steps = records.steps
    ups, downs = np.array([group.tokens_per_decode_step for group in records.groups]).T
    grown = (steps.num_steps - 1) / 2 * (ups / downs)[steps.group]
    columns = (
        steps.decode_seqs,
        steps.context_tokens + steps.decode_seqs * grown,
        steps.prefill_tokens / steps.num_steps,
    )
    return np.stack(columns, axis=1)[chosen].astype(np.float64)


def _fit(work: Floats, step_s: Floats, weight: Floats) -> tuple[Floats, bool]:
    """Least squares of the step law, [1 + 3] coefficients >= 0, and whether it is a sure one.

    Terms below zero are dropped, the worst first. Steps that are too much alike leave open what
    the constant term is; then it is 0 and all grows with the work, which bounds the rate below.
    """
    terms = np.column_stack([np.ones(len(work)), work])
    scale = np.where((peak := terms.max(axis=0)) > 0, peak, 1.0)
    terms /= scale
    squares, sums = terms.T @ (terms * weight[:, np.newaxis]), terms.T @ (step_s * weight)
    tolerance = ALIKE * float(squares.max())
    every, grows = (
        np.linalg.matrix_rank(part, tol=tolerance, hermitian=True)
        for part in (squares, squares[1:, 1:])
    )
    is_sure = bool(every > grows)
    law = np.zeros(len(scale))
    left = np.arange(0 if is_sure else 1, len(scale))
    while len(left):
        found = np.linalg.lstsq(squares[np.ix_(left, left)], sums[left], rcond=ALIKE)[0]
        if found.min() >= 0:
            law[left] = found
            break
        left = np.delete(left, found.argmin())
    return law / scale, is_sure


def _used_fracs(records: RunRecords, window: Window) -> dict[Resource, float]:
    """Mean share in use of every resource; those of a prefill pool follow from its queue."""
    used: dict[Resource, float] = {}
    for pool in records.pools:
        if pool.role != "decode":
            used[pool.name, "prefill"] = _prefill_busy_frac(records, pool, window)
        if pool.role != "prefill":
            used[pool.name, "slots"] = pool.mean_slots_frac
            used[pool.name, "kv"] = pool.mean_kv_frac
    if (frontend := frontend_use(records, window)) is not None:
        used[FRONTEND] = frontend.busy_frac
    return {name: share for name, share in used.items() if not np.isnan(share)}


def _prefill_busy_frac(records: RunRecords, pool: PoolRecords, window: Window) -> float:
    """Share of the ranks' time, while measured requests arrived, with a prompt in work."""
    requests = records.requests
    start_s, end_s = window.arrival_start_s, window.arrival_end_s
    if not end_s > start_s:
        end_s = records.end_s
    chosen = (requests.prefill_target >= 0) & ~np.isnan(requests.scheduled_s)
    if not end_s > start_s or not chosen.any():
        return np.nan
    ends_s = np.where(np.isnan(requests.prefill_end_s), end_s, requests.prefill_end_s)
    busy_s = covered_s(
        requests.prefill_target[chosen],
        np.clip(requests.scheduled_s[chosen], start_s, end_s) - start_s,
        np.clip(ends_s[chosen], start_s, end_s) - start_s,
    )
    return busy_s / (pool.average_ranks * (end_s - start_s))


def covered_s(lane: Ints, start_s: Floats, end_s: Floats) -> float:
    """Time in which a lane has at least one of its intervals, over all lanes; starts >= 0."""
    order = np.lexsort((start_s, lane))
    # lanes one after the other on one axis: an interval never reaches into the next lane
    shift_s = lane[order] * (np.max(end_s, initial=0.0) + 1.0)
    starts, ends = start_s[order] + shift_s, end_s[order] + shift_s
    reached = np.maximum.accumulate(np.concatenate([[0.0], ends]))[:-1]
    return float(np.sum(np.maximum(ends - np.maximum(starts, reached), 0.0)))
