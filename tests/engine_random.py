"""Random small deployments that preempt, share prefixes, hand over, and refuse."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cost_examples import NPU_POD, SMALL_MOE
from engine_cases import LinearPricer, at, chained, pool_inputs, pool_spec, run_inputs
from hypothesis import strategies as st
from numpy.typing import NDArray

from simpod.cost import KvTransfer, StepPricer
from simpod.engine import PoolInputs, RunInputs, Simulation
from simpod.policies import BUILT_IN, MigrationView, Move, PolicyRef, Prediction, resolve
from simpod.records.columns import FINISHED, RunRecords
from simpod.workload import Requests

HASH_BLOCK_TOKENS = 4
EXAMPLES = int(os.environ.get("SIMPOD_LAW_EXAMPLES", "20"))
"""Random cases of each law of the engine; `make slow` takes more."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A deployment and a load, small enough to look at."""

    shape: str  # mixed, split or decode
    dp: int
    instances: int
    slots: int
    step_tokens: int
    block_tokens: int
    kv_tokens: int  # of one rank, rounded up to blocks
    prefix_caching: bool
    reserve_full_prompt: bool
    acceptance: float
    batching: str
    router: str
    real_prices: bool
    first_token_from_decode: bool
    swaps: bool
    migrates: bool
    has_paces: bool  # requests accept more or fewer drafts
    leads: bool  # prompts go from rank to rank before they begin
    load: str  # poisson, ticks, sessions or closed
    num_requests: int
    seed: int


def experiments(**fixed: Any) -> st.SearchStrategy[Experiment]:
    """Cases spread evenly over all choices (an integer is drawn, the rest follows from it)."""
    return st.integers(0, 2**32 - 1).map(lambda number: random_experiment(number, fixed))


def random_experiment(number: int, fixed: dict[str, Any]) -> Experiment:
    """Case `number`, but for what is `fixed`."""
    rng = np.random.default_rng(number)

    def choose(values: Iterable[Any]) -> Any:
        choices = list(values)
        return choices[int(rng.integers(len(choices)))]

    drawn = {
        "shape": choose(["mixed", "split", "decode"]),
        "dp": choose(range(1, 5)),
        "instances": choose([1, 2]),
        "slots": choose(range(1, 7)),
        "step_tokens": choose([8, 24, 512]),
        "block_tokens": choose([1, 4, 8]),
        "kv_tokens": choose(range(40, 120)),
        "prefix_caching": choose([False, True]),
        "acceptance": choose([0.0, 0.5, 0.9]),
        "batching": choose(sorted(BUILT_IN["batching"])),
        "router": choose(sorted(BUILT_IN["router"])),
        "real_prices": choose([False, True]),
        "first_token_from_decode": choose([False, True]),
        "load": choose(["poisson", "ticks", "sessions", "closed"]),
        "num_requests": choose(range(1, 40)),
        "reserve_full_prompt": choose([False, True]),
        "swaps": choose([False, True]),
        "migrates": choose([False, True]),
        "has_paces": choose([False, True]),
        "leads": choose([False, True]),
        "seed": number,
    }
    return Experiment(**(drawn | fixed))


def requests_of(case: Experiment, *, time_scale: float = 1.0) -> Requests:
    """The load of a case; a few requests are too long for a rank."""
    rng = np.random.default_rng(case.seed)
    num = case.num_requests
    prompts = rng.integers(1, 40, num)
    outputs = rng.integers(1, 30, num)
    # a step takes about a second with linear prices, a few milliseconds with real ones
    unit_s = time_scale * (2.0**-8 if case.real_prices else 1.0)
    arrival_s = unit_s * rng.exponential(4.0, num).cumsum()
    columns: dict[str, Any] = {"session_id": np.arange(num) % 3}
    columns |= {"tenant": rng.integers(0, 3, num), "priority": rng.integers(0, 3, num)}
    if case.load == "ticks":
        arrival_s = unit_s * np.floor(rng.uniform(0, num, num)).astype(float)
        arrival_s.sort()
    elif case.load == "closed":
        arrival_s = np.full(num, np.nan)
        columns["concurrency"] = 1 + case.seed % 5
    elif case.load == "sessions":
        after = np.arange(num) - 3
        columns["after"] = np.where(after >= 0, after, -1)
        columns["think_s"] = unit_s * np.round(rng.exponential(3.0, num))
        arrival_s = np.where(after >= 0, np.nan, arrival_s)
    families = rng.integers(0, 3, num)
    prefixes = [
        [1000 * int(family) + depth for depth in range(int(prompt + output) // HASH_BLOCK_TOKENS)]
        for family, prompt, output in zip(families, prompts, outputs, strict=True)
    ]
    columns |= chained(*prefixes, block_tokens=HASH_BLOCK_TOKENS)
    return at(arrival_s, prompts, outputs, **columns)


@dataclass
class Restless:
    """Moves the oldest sequence of each rank to the next rank, all the time."""

    period_s: float

    def __call__(self, view: MigrationView) -> list[Move]:
        num = view.targets.num_targets
        moves = []
        for source in range(num):
            first = next(iter(view.decoding(source)), None)
            if first is not None and num > 1:
                moves.append(Move(first.seq_id, source, (source + 1) % num))
        return moves


def prediction_of(case: Experiment) -> Prediction:
    """Predicted lengths that have nothing to do with the true ones."""
    rng = np.random.default_rng([case.seed, 1])
    return Prediction(rng.integers(1, 30, case.num_requests).astype(float))


def paces_of(case: Experiment) -> NDArray[np.float64] | None:
    """Tokens of a decode step of each request over the mean."""
    if not (case.has_paces and case.acceptance):
        return None
    return np.random.default_rng([case.seed, 2]).uniform(0.6, 1.4, case.num_requests)


def pricer_of(case: Experiment, spec: Any, time_scale: float) -> LinearPricer | StepPricer:
    if case.real_prices:
        hardware = NPU_POD
        return StepPricer(SMALL_MOE, hardware, spec.layout)
    return LinearPricer(
        base_s=0.5 * time_scale,
        s_per_prompt_token=0.03125 * time_scale,
        s_per_decode=0.0625 * time_scale,
        s_per_context_token=0.0078125 * time_scale,
    )


def pool_of(case: Experiment, role: str, time_scale: float, router: Any = None) -> PoolInputs:
    mtp = {"mtp_layers": 1, "mtp_acceptance": case.acceptance} if case.acceptance else {}
    spec = pool_spec(
        name=role,
        role=role,
        dp=case.dp if role != "prefill" else 1 + case.dp % 2,
        instances=case.instances if role != "decode" else 1,
        max_num_seqs=case.slots,
        max_step_tokens=case.step_tokens,
        block_tokens=case.block_tokens,
        kv_blocks=-(-case.kv_tokens // case.block_tokens),
        prefix_caching=case.prefix_caching,
        reserve_full_prompt=case.reserve_full_prompt,
        mtp={} if role == "prefill" else mtp,
    )
    inputs = pool_inputs(spec, pricer_of(case, spec, time_scale), router or case.router)
    if not case.swaps:
        return inputs
    unit_s = 0.00390625 if case.real_prices else time_scale
    link = KvTransfer(latency_s=0.0, bytes_per_token=8.0, s_per_token=0.0625 * unit_s)
    return replace(inputs, host_link=link)


def inputs_of(
    case: Experiment, *, time_scale: float = 1.0, router: Any = None, **changes: Any
) -> RunInputs:
    """Everything of a case, ready to run; times scaled by `time_scale` (linear prices only)."""
    given: dict[str, Any] = {
        "batching": case.batching,
        "first_token_from_decode": case.first_token_from_decode,
        "requests": requests_of(case, time_scale=time_scale),
        "prediction": prediction_of(case),
        "decode_pace": paces_of(case),
        "ttft_target_s": 20.0 * time_scale,
    }
    if case.shape == "split":
        unit_s = 0.00390625 if case.real_prices else time_scale
        given["decode"] = pool_of(case, "decode", time_scale, router)
        given["transfer"] = KvTransfer(
            latency_s=0.25 * unit_s, bytes_per_token=8.0, s_per_token=0.03125 * unit_s
        )
    if case.migrates:
        unit_s = 0.00390625 if case.real_prices else time_scale
        given["make_migration"] = lambda: Restless(period_s=3.0 * unit_s)
        given["migration_law"] = KvTransfer(
            latency_s=0.117 * unit_s, bytes_per_token=8.0, s_per_token=0.0617 * unit_s
        )  # no multiples of steps: at the very end of one, averages over time depend on the order
    if case.leads:
        ref = PolicyRef("collaborative", {"launch_tokens": 8, "attention_tokens": 16.0})
        given["make_leader"] = resolve("prefill_leader", ref)
        given["leader_name"] = "collaborative"
    entry_role = "prefill" if case.shape == "split" else case.shape
    given |= changes
    return run_inputs(given.pop("requests"), pool_of(case, entry_role, time_scale, router), **given)


class Watched(Simulation):
    """A simulation that notes, from outside, what passes by."""

    def __init__(self, inputs: RunInputs) -> None:
        super().__init__(inputs)
        self.tokens_of_prompts: Counter[int] = Counter()  # output tokens that a prompt's end gave
        self.computed: Counter[int] = Counter()  # tokens resident at the end of a prompt, by passes

    def prompt_done(self, seq: Any, group: Any, rank: Any) -> None:
        emitted, resident = seq.emitted_tokens, seq.resident_tokens
        super().prompt_done(seq, group, rank)
        self.tokens_of_prompts[seq.seq_id] += seq.emitted_tokens - emitted
        self.computed[seq.seq_id] += resident
        self.check_blocks()

    def finish(self, seq: Any) -> None:
        super().finish(seq)
        self.check_blocks()

    def check_blocks(self) -> None:
        """No rank holds more than it has."""
        for group in self.groups:
            assert (group.kv.used_everywhere() <= group.kv.capacity_blocks).all()
            assert (group.kv.used_everywhere() >= 0).all()


def run(case: Experiment, **changes: Any) -> tuple[Watched, RunRecords]:
    """Run a case under watch."""
    sim = Watched(inputs_of(case, **changes))
    return sim, sim.run()


def assert_all_tokens(case: Experiment, sim: Any, records: RunRecords) -> None:
    """Tokens = those of spans of decode steps + those that a prompt's end gave; a last step with
    draft tokens may give some more than are wanted."""
    spans = defaultdict(list)
    for request_id, ledger, first, last in records.segments.tolist():
        spans[request_id].append((ledger, first, last))
    requests = records.requests
    has_paces = case.has_paces and case.acceptance > 0.0
    spare_most = (2 if has_paces else 1) if case.acceptance else 0
    room_tokens = min(pool.spec.room_tokens for pool in sim.pools)
    for row in np.flatnonzero(requests.status == FINISHED).tolist():
        request_id = int(requests.request_id[row])
        if requests.last_decode_step[row] > requests.first_decode_step[row] >= 0:
            last_span = (requests.ledger, requests.first_decode_step, requests.last_decode_step)
            spans[request_id].append(tuple(int(column[row]) for column in last_span))
        decoded = 0
        for ledger, first, last in spans[request_id]:
            tokens, steps = records.groups[ledger].tokens_per_decode_step
            if has_paces:
                rate = requests.decode_pace[row] * tokens / steps
                decoded += int((last - first) * rate + 1e-9)
            else:
                decoded += last * tokens // steps - first * tokens // steps
        spare = decoded + sim.tokens_of_prompts[request_id] - requests.output_tokens[row]
        longest = requests.prompt_tokens[row] + requests.output_tokens[row] / 0.6
        if not has_paces or longest < room_tokens:  # else it may end where its rank is full
            assert spare >= 0
        assert spare <= spare_most


FIXED = Experiment(
    shape="split",
    dp=3,
    instances=2,
    slots=3,
    step_tokens=24,
    block_tokens=4,
    kv_tokens=80,
    prefix_caching=True,
    reserve_full_prompt=True,
    acceptance=0.9,
    batching="fcfs",
    router="power_of_two",
    real_prices=True,
    first_token_from_decode=False,
    swaps=False,
    migrates=False,
    has_paces=True,
    leads=True,
    load="sessions",
    num_requests=200,
    seed=12,
)
"""One case with a bit of everything, for runs in other processes."""

FIXED_CASES = (
    FIXED,
    replace(FIXED, shape="mixed", load="ticks", router="least_kv", acceptance=0.0),
)
