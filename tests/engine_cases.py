"""Small deployments for the tests of the engine, priced so that a clock can be kept by hand."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from simpod.cluster import PoolSpec
from simpod.cost import Batch, KvTransfer, Layout, StepPricer, StepPrices
from simpod.cost.stragglers import Arrivals, SlowestRanks
from simpod.engine import PoolInputs, RunInputs, Simulation
from simpod.policies import PolicyRef, resolve
from simpod.records.columns import STEP_PARTS, RunRecords
from simpod.workload import Requests, make_requests

AMPLE = 1 << 20
HOST_GAP = STEP_PARTS.index("host_gap")


@dataclass(frozen=True)
class LinearPricer:
    """A rank takes base_s + what its batch holds; the group takes as long as its slowest rank."""

    base_s: float = 1.0
    s_per_prompt_token: float = 0.0
    s_per_decode: float = 0.0
    s_per_context_token: float = 0.0
    mtp_share: float = 0.0

    def price(self, batch: Batch) -> StepPrices:
        context_tokens = batch.context_tokens + batch.gained_tokens * batch.decode_seqs
        attention_s = self.s_per_context_token * context_tokens
        slope_s = self.s_per_context_token * batch.decode_seqs
        fixed_s = self.base_s + self.s_per_prompt_token * batch.prefill_tokens
        fixed_s = fixed_s + self.s_per_decode * batch.decode_seqs
        busy_s = fixed_s + attention_s
        slowest = int(busy_s.argmax())
        parts_s = np.zeros(len(STEP_PARTS))
        parts_s[HOST_GAP] = fixed_s.mean()
        many = len(busy_s) > 1
        return StepPrices(
            base_s=float(busy_s[slowest]),
            slope_s=float(slope_s[slowest]),
            fixed_s=parts_s,
            attention_s=float(attention_s.mean()),
            attention_slope_s=float(slope_s.mean()),
            mtp_share=self.mtp_share,
            rank_busy_s=busy_s if many else None,
            room_tokens=UNBOUNDED,
            arrivals=Arrivals(SlowestRanks(len(busy_s), 0.0), busy_s, attention_s, slope_s),
        )


UNBOUNDED = 2**62
EVERY_STEP_1S = LinearPricer()


def pool_spec(**changes: Any) -> PoolSpec:
    """One rank without limits; what a case is about is given by name (`dp` sets the layout)."""
    dp = changes.pop("dp", 1)
    layout = Layout(dies=dp, dp=dp, ep=dp, **changes.pop("mtp", {}))
    given: dict[str, Any] = {
        "name": "pool",
        "role": "mixed",
        "instances": 1,
        "layout": layout,
        "max_num_seqs": 256,
        "max_step_tokens": AMPLE,
        "max_model_len": AMPLE,
        "block_tokens": 1,
        "kv_blocks": AMPLE,
        "prefix_caching": False,
        "reserve_full_prompt": True,
    }
    return PoolSpec(**(given | changes))


def pool_inputs(
    spec: PoolSpec,
    pricer: LinearPricer | StepPricer = EVERY_STEP_1S,
    router: str | Callable[..., int] = "round_robin",
) -> PoolInputs:
    """A pool with a built-in router, by name, or with a function."""
    name = router if isinstance(router, str) else "test"
    make = resolve("router", PolicyRef(router)) if isinstance(router, str) else lambda: router
    return PoolInputs(
        spec=spec,
        pricer=pricer,  # type: ignore[arg-type]
        dies_per_npu=1,
        make_router=make,
        router_name=name,
        pause_rng=np.random.default_rng(1),
        router_rng=np.random.default_rng(11),
    )


def run_inputs(requests: Requests, entry: PoolInputs, **changes: Any) -> RunInputs:
    """A run under fcfs, or another `batching` by name or as a factory."""
    batching = changes.pop("batching", "fcfs")
    is_name = isinstance(batching, str)
    return RunInputs(
        seed=0,
        requests=requests,
        entry=entry,
        make_batching=resolve("batching", PolicyRef(batching)) if is_name else batching,
        batching_name=batching if is_name else "test",
        **changes,
    )


def simulate(
    requests: Requests,
    pricer: LinearPricer | StepPricer = EVERY_STEP_1S,
    *,
    run: dict[str, Any] | None = None,
    router: str | Callable[..., int] = "round_robin",
    **spec: Any,
) -> RunRecords:
    """Run requests on one pool; `spec` as for `pool_spec`, `run` as for `run_inputs`."""
    entry = pool_inputs(pool_spec(**spec), pricer, router)
    return Simulation(run_inputs(requests, entry, **(run or {}))).run()


def in_two_stages(
    requests: Requests,
    *,
    prefill: PoolInputs,
    decode: PoolInputs,
    transfer_s: float,
    **changes: Any,
) -> RunRecords:
    """Run requests through a prefill and a decode pool with a transfer of `transfer_s`."""
    law = KvTransfer(latency_s=transfer_s, bytes_per_token=2.0, s_per_token=0.0)
    return Simulation(run_inputs(requests, prefill, decode=decode, transfer=law, **changes)).run()


def at(times_s: Any, prompts: Any = 1, outputs: Any = 1, **columns: Any) -> Requests:
    """Requests by their times and lengths; one number stands for a column."""
    return make_requests(times_s, prompts, outputs, **columns)


def chained(*prefixes: list[int], block_tokens: int) -> dict[str, Any]:
    """Columns of prefix identity from one list of ids a request."""
    return {
        "hash_offsets": np.cumsum([0] + [len(ids) for ids in prefixes]),
        "hash_ids": np.array([i for ids in prefixes for i in ids], dtype=np.int64),
        "hash_block_tokens": block_tokens,
    }


def tables(records: RunRecords) -> dict[str, np.ndarray]:
    """Every column of the records by a name of its own."""
    columns = {
        f"{part}.{f.name}": getattr(getattr(records, part), f.name)
        for part in ("requests", "steps", "transfers")
        for f in fields(getattr(records, part))
        if f.name != "plane_names"
    }
    for index, group in enumerate(records.groups):
        columns[f"group{index}.decode_end_s"] = group.decode_end_s
        columns[f"group{index}.decode_seqs"] = group.decode_seqs
        scalars = (group.busy_s, group.num_steps, group.num_preemptions, group.peak_kv_frac)
        columns[f"group{index}.scalars"] = np.array(scalars)
    for pool in records.pools:
        means = (pool.mean_slots_frac, pool.mean_kv_frac, pool.mean_waiting_seqs)
        columns[f"pool.{pool.name}"] = np.array(means)
    columns["segments"] = records.segments
    columns["end_s"] = np.array([records.end_s])
    return columns


def digest(records: RunRecords) -> str:
    """A hash of every byte of the records."""
    whole = hashlib.sha256()
    for name, column in sorted(tables(records).items()):
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(column).tobytes())
    return whole.hexdigest()


def assert_same(first: RunRecords, second: RunRecords, *, rtol: float = 1e-9) -> None:
    """Two runs left the same records, times to `rtol`."""
    mine, other = tables(first), tables(second)
    assert mine.keys() == other.keys()
    for name, column in mine.items():
        np.testing.assert_allclose(column, other[name], rtol=rtol, atol=1e-12, err_msg=name)


def each_step(records: RunRecords, column: str) -> list[int]:
    """A count of every single step, runs unrolled."""
    steps = records.steps
    values = getattr(steps, column)
    return np.repeat(values, steps.num_steps).tolist()
