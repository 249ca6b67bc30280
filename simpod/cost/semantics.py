"""Named semantics: how an engine runs a step, where engines differ.

What a scheduler decides is a policy; what a kernel takes is in the hardware profile. What is left
is said here, once for each engine, with its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from simpod.cost.graphs import (
    ANY_BATCH,
    ONE_GRAPH,
    SGLANG_GRAPHS,
    TRTLLM_GRAPHS,
    VLLM_GRAPHS,
    Graphs,
)
from simpod.cost.memory_rules import SGLANG_MEMORY, TRTLLM_MEMORY, VLLM_MEMORY, MemoryRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """One engine."""

    name: str
    source: str
    batching: str
    """Policy of `policies.batching` unless an experiment names one."""
    launch_frac: float
    """Of a kernel's stand-alone launch, what is left in a replayed graph with dependent launch."""
    graphs: Graphs
    """Batches that are captured as graphs."""
    memory: MemoryRules
    """What is set aside before the KV cache."""
    steps_ahead: int
    """Steps that are planned when a prompt arrives: it joins the step after them."""
    steps_ahead_apart: int
    """The same in pools that compute prompts alone."""
    gathers_few: bool
    """Where dies are no more than a token's experts, all get all tokens, and sums come back."""
    answers_late: bool
    """Tokens of a step leave when the one after it has been launched."""
    step_gap_s: float
    """The die waits so long for the host between two steps."""
    eager_launch_s: float
    """Host time of one kernel that no graph covers: a step takes at least this for each such."""
    frontend_s: float
    """From the client to the scheduler, and from the sampled token back: HTTP, detokenisation. In a
    client's TTFT, not in the engine's."""
    frontend_s_per_token: float
    """The same for each token of the prompt: reading and tokenising it."""
    launch_skew_s: float = 0.0
    """Hosts of a group launch its dies' steps so much apart: a usual die waits so long for the last
    one at the first dispatch."""
    arranges_rows: bool = False
    """Dispatch leaves rows in the order of experts and combine sums them: the experts' kernels
    neither permute nor sum."""
    fuses_prolog: bool = False
    """mla: products, norms and rotation before attention are one kernel with the write into the
    cache."""
    norms_apart: bool = False
    """Norms between projections and attention (mla: of the queries' latent, then quantised; gqa: of
    queries and keys) are kernels that read and write what they norm, not part of others."""
    quantises_twice: bool = False
    """The hidden state is quantised for each of mla's two down-projections."""
    copies_heads: bool = False
    """Queries, keys and values are cut apart by copies, and so are attention's results and those of
    routed and shared experts joined."""
    exchange: str = "xccl_pull"
    """Kernel of dispatch and combine, where a profile has several of one kind."""
    absorbs_prefill: bool = False
    """mla: prompts attend to latents, as decoding does, instead of to keys and values of their own
    heads."""


FLOWSERVE: Final = Semantics(
    name="flowserve",
    source="xDeepServe 7.1 and figure 20: 2 ms between iterations; the longest dispatch of a step,"
    " 1,231 us, where the others take 217 on average: taken to be the first, where 4.4 has launches"
    " of unlike dies show; 4.4: prompts operator by operator. A launch: 468 of Qwen3-8B on one die"
    " in 25.85 ms (vLLM Ascend's benchmark page)",
    batching="fcfs",
    launch_frac=1.0,
    graphs=ONE_GRAPH,
    memory=MemoryRules(),
    steps_ahead=0,
    steps_ahead_apart=0,
    gathers_few=False,
    answers_late=False,
    step_gap_s=2e-3,
    eager_launch_s=55e-6,
    frontend_s=0.0,
    frontend_s_per_token=0.0,
    launch_skew_s=1.0e-3,
    arranges_rows=True,
    fuses_prolog=True,
    norms_apart=True,
)

CLOUDMATRIX_INFER: Final = replace(
    FLOWSERVE,
    name="cloudmatrix-infer",
    source="CloudMatrix-Infer 4.2: fused dispatch and combine by remote writes, 0.6 to"
    " 0.8 ms for a graph; absorbed prefill: inferred, see docs/experts.md",
    graphs=ANY_BATCH,
    step_gap_s=0.7e-3,
    launch_skew_s=0.0,
    exchange="fused_push",
    absorbs_prefill=True,
)

SEMANTICS: Final[Mapping[str, Semantics]] = {
    each.name: each
    for each in (
        Semantics(
            name="vllm-v1",
            source="vLLM v1: chunked prefill beside decodes, asynchronous scheduling",
            batching="fcfs",
            launch_frac=1.0,
            graphs=VLLM_GRAPHS,
            memory=VLLM_MEMORY,
            steps_ahead=1,
            steps_ahead_apart=1,
            gathers_few=False,
            answers_late=False,  # another process launches (v1/executor/multiproc_executor.py)
            step_gap_s=0.35e-3,
            eager_launch_s=60e-6,
            frontend_s=20e-3,
            frontend_s_per_token=5e-6,
        ),
        Semantics(
            name="trtllm",
            source="TensorRT-LLM, PyTorch backend: in-flight batching without eviction, overlap"
            " scheduler but on context servers (disable_overlap_scheduler; pull request 16583)",
            batching="in_flight",
            launch_frac=0.8,
            graphs=TRTLLM_GRAPHS,
            memory=TRTLLM_MEMORY,
            steps_ahead=1,
            steps_ahead_apart=0,
            gathers_few=True,
            answers_late=True,
            step_gap_s=0.1e-3,
            eager_launch_s=60e-6,
            frontend_s=20e-3,
            frontend_s_per_token=5e-6,
        ),
        Semantics(
            name="sglang",
            source="SGLang: prefill first, admission by new_token_ratio, overlap scheduler",
            batching="sglang",
            launch_frac=1.0,
            graphs=SGLANG_GRAPHS,
            memory=SGLANG_MEMORY,
            steps_ahead=1,
            steps_ahead_apart=1,
            gathers_few=False,
            answers_late=True,
            step_gap_s=0.9e-3,
            eager_launch_s=75e-6,
            frontend_s=20e-3,
            frontend_s_per_token=5e-6,
        ),
        FLOWSERVE,
        CLOUDMATRIX_INFER,
        replace(
            CLOUDMATRIX_INFER,
            name="cann-recipes",
            source="CANN's recipes (cann-recipes-infer): the same operators, those of a decode step"
            " in one SuperKernel, which leaves 43 % of the launches: of 9.4 ms a step 4.8 to 6 go;"
            " of prompts, q_a_proj and kv_a_proj quantise for themselves",
            launch_frac=0.43,
            quantises_twice=True,
        ),
        replace(
            FLOWSERVE,
            name="vllm-ascend",
            source="vLLM on Ascend: tokens are permuted and summed by kernels of their own"
            " (npu_moe_init_routing, npu_moe_finalize_routing); gap as FlowServe's; copies: profile"
            " of DeepSeek-V3 and Qwen3-32B on A3 dies (vLLM Ascend 0.15, Horacehxw/msModeling)",
            launch_skew_s=0.0,
            graphs=ANY_BATCH,
            arranges_rows=False,
            fuses_prolog=False,
            copies_heads=True,
        ),
    )
}
"""By name, as `engine.semantics` of an experiment takes it."""


def semantics_of(chosen: Semantics | str | None, family: str) -> Semantics:
    """Semantics themselves, those of a name, or the usual ones of a device's family."""
    if isinstance(chosen, Semantics):
        return chosen
    return SEMANTICS[chosen or default_semantics(family)]


OF_FAMILY: Final[Mapping[str, str]] = {"ascend": "flowserve"}


def default_semantics(family: str) -> str:
    """FlowServe on Ascend, vLLM elsewhere."""
    return OF_FAMILY.get(family, "vllm-v1")
