"""First tokens that leave when the step after theirs has been launched."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from cost_examples import LLAMA_70B, decode_batch
from engine_cases import at, pool_inputs, pool_spec, run_inputs

from simpod.config import load_experiment
from simpod.cost import Layout, PromptLaunches
from simpod.cost.graphs import TRTLLM_GRAPHS
from simpod.cost.semantics import SEMANTICS
from simpod.engine import Simulation
from simpod.run.simulate import run_inputs as run_inputs_of
from simpod.workload import build, streams


@dataclass(frozen=True)
class HostTakes:
    """The same for every step with prompts."""

    launch_s: float

    def seconds(self, batch):
        return self.launch_s


def first_tokens(launch_s, times_s=(0.0, 0.0, 0.0), outputs=20, duration_s=None):
    """Prompts of 10 tokens, one a step of 1 s."""
    pool = pool_inputs(pool_spec(max_step_tokens=12))
    pool = replace(pool, late_launches=None if launch_s is None else HostTakes(launch_s))
    load = at(list(times_s), 10, outputs)
    inputs = run_inputs(load, pool, batching="in_flight", duration_s=duration_s)
    records = Simulation(inputs).run()
    return records.requests.first_token_s.tolist()


@pytest.mark.parametrize(
    ("launch_s", "expected"),
    [
        (None, [1.0, 2.0, 3.0]),
        (0.4, [1.0, 2.0, 3.0]),  # the host is a step ahead
        (0.75, [1.5, 2.25, 3.0]),  # 0.75, 1.5, 2.25; the last is followed by decodes alone
        (1.0, [2.0, 3.0, 3.0]),  # the die waits for the host
    ],
)
def test_first_tokens_wait_for_the_launches_of_the_next_prompts(launch_s, expected):
    assert first_tokens(launch_s) == expected


def test_a_step_of_decodes_between_leaves_the_host_free():
    assert first_tokens(0.75, times_s=(0.0, 1.5)) == [1.0, 3.0]
    assert first_tokens(0.75, times_s=(0.0, 1.0)) == [1.5, 2.0]


def test_answers_of_one_token_are_over_before():
    assert first_tokens(0.75, outputs=1) == [1.0, 2.0, 3.0]


def test_what_would_leave_after_the_end_of_a_run_is_not_there():
    assert first_tokens(0.75, duration_s=2.1) == pytest.approx([1.5, np.nan, np.nan], nan_ok=True)


def test_launches_are_of_all_kernels_or_of_pieces():
    """80 layers: a piece and two kernels of attention each."""
    trtllm = replace(SEMANTICS["trtllm"], eager_launch_s=1e-3)
    pieces = replace(trtllm, graphs=TRTLLM_GRAPHS.with_pieces(1024))
    batch = decode_batch(24, 2400)
    batch.prefill_tokens[:] = 1000
    eager, in_pieces = (
        PromptLaunches(LLAMA_70B, Layout(dies=8, tp=8), each).seconds(batch)
        for each in (trtllm, pieces)
    )
    assert in_pieces == pytest.approx(80 * 3 * 1e-3)
    assert eager > 3 * in_pieces
    batch.decode_seqs = np.array([25])
    assert PromptLaunches(LLAMA_70B, Layout(dies=8, tp=8), pieces).seconds(batch) == eager


def test_which_engines_are_late():
    late = {name for name, semantics in SEMANTICS.items() if semantics.answers_late}
    assert late == {"sglang", "trtllm"}


def inputs_of(name):
    changes = ["workload.num_requests=5", "engine.semantics=trtllm"]
    experiment = load_experiment(name, changes)
    stream = streams(0)
    return run_inputs_of(experiment, build(experiment.workload, stream), stream)


def test_servers_that_compute_prompts_alone_keep_no_answers_and_plan_nothing():
    mixed = inputs_of("llama70b-h100-colocated")
    assert mixed.steps_ahead == 1
    assert mixed.entry.late_launches is not None
    split = inputs_of("qwen3-235b-h200-disaggregated")
    assert split.steps_ahead == 0
    assert split.entry.late_launches is None
