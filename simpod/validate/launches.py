"""How the engines of measured deployments were launched: what their tables leave out.

Read from InferenceX's scripts, `benchmarks/single_node/MODEL_PRECISION_SYSTEM[_trt].sh` of
github.com/SemiAnalysisAI/InferenceX (its first releases, InferenceMAX, for Llama 70B). Three things
are no flags of a script: the fp8 cache of NVFP4 checkpoints (the checkpoint's own, seen where KV
limits a run), TensorRT-LLM's share of memory, and the accepted length of drafts, which is that of
another DeepSeek. A model without a script is launched as most of its engine's are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a script chooses by."""

    model: str
    """A shipped model's name."""
    version: str
    """Of the engine's image."""
    system: str
    """b200, h200, h100, ..."""
    dtype: str
    """Of the weights."""
    isl: int
    osl: int
    concurrency: int
    tp: int
    dp: int
    ep: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Flags of one engine, in simpod's terms."""

    max_num_seqs: int
    max_step_tokens: int = 8192
    memory_frac: float = 0.9
    kv_dtype: str = "fp8"
    has_expert_parallel: bool = False
    """All dies share the experts, whatever the table says."""
    max_graph_tokens: int | None = None
    """Largest batch that is captured as a graph, mixed ones included; None: the engine's own."""
    mtp: Mapping[str, float] | None = None
    """Draft tokens and the share of them that is kept; None: no drafts."""
    batching: Mapping[str, Any] | None = None
    """Scheduler and its parameters; None: the engine's own."""


MTP_IMAGE: Final = "1.2.0rc6.post3"
"""TensorRT-LLM's image of the single-node runs with drafts, dsr1-*-b200-trt-mtp, and of no other
(InferenceX, perf-changelog.yaml, pull requests 620, 632, 642)."""
DRAFTS: Final = {
    1: {"layers": 1, "acceptance": 0.79},
    3: {"layers": 3, "acceptance": 1.49 / 3},
}
"""By num_nextn_predict_layers, which is 1 with data-parallel attention and else 3: accepted length
1.79 and 2.49 of a DeepSeek that thinks (InferenceX, golden_al_distribution/dsv4_mtp.yaml)."""


def launch_of(backend: str, row: Row) -> Launch:
    """Flags of the script for `row`; backend: vllm, sglang, trtllm."""
    return ENGINES[backend](row)


def _vllm(row: Row) -> Launch:
    is_blackwell = row.system.startswith(("b", "gb"))
    if row.model.startswith("gpt-oss"):
        return Launch(
            max_num_seqs=512 if is_blackwell else row.concurrency,
            kv_dtype="fp8" if is_blackwell else "bf16",
            max_graph_tokens=2048,
        )
    if row.model.startswith("minimax"):
        # kv_cache_dtype is not given: that of the checkpoint, which for ModelOpt's NVFP4 is fp8;
        # the fp8 scripts of H200 and B200 turn expert parallelism on whatever EP_SIZE is
        seqs = {"fp4": row.concurrency, "fp8": 256 if row.system == "h100" else 1024}
        has_all = row.dtype == "fp8" and row.system != "h100"
        return Launch(
            max_num_seqs=seqs.get(row.dtype, 1024),
            memory_frac=0.95 if has_all else 0.9,
            kv_dtype="fp8" if row.dtype == "fp4" else "bf16",
            has_expert_parallel=has_all,
        )
    if row.model.startswith("llama"):
        return Launch(
            max_num_seqs=512 if is_blackwell else row.concurrency,
            kv_dtype="bf16" if row.system == "h100" else "fp8",
        )
    return Launch(max_num_seqs=row.concurrency, kv_dtype="bf16" if row.dtype == "bf16" else "fp8")


def _sglang(row: Row) -> Launch:
    if row.system.startswith("h"):
        seqs = 512 if (row.isl, row.osl) == (1024, 1024) else 256
        return Launch(max_num_seqs=seqs, max_step_tokens=32768, memory_frac=0.82, kv_dtype="bf16")
    interval = 30 if row.concurrency >= 16 else 10
    if row.dtype == "fp4":
        seqs, step_tokens, memory_frac = 256, 16384, 0.85
    elif row.tp >= 8:
        seqs, step_tokens, memory_frac = 128, 32768, 0.82
    else:
        seqs, step_tokens, memory_frac, interval = 32, 8192, 0.95, 10
    return Launch(
        max_num_seqs=seqs,
        max_step_tokens=step_tokens,
        memory_frac=memory_frac,
        kv_dtype="fp8" if row.dtype != "bf16" else "bf16",
        batching={"use": "sglang", "receive_interval": interval},
    )


TRTLLM_MEMORY_FRAC: Final = 0.97
"""free_gpu_memory_fraction, 0.75 to 0.9, is of what weights leave; where they leave little, and KV
is what limits a run, that is about this share of all."""


def _trtllm(row: Row) -> Launch:
    if row.model.startswith("gpt-oss"):
        is_hopper = row.system.startswith("h")
        return Launch(
            max_num_seqs=row.concurrency if is_hopper else 512,
            max_step_tokens=20000,
            memory_frac=TRTLLM_MEMORY_FRAC,
            kv_dtype="bf16" if is_hopper else "fp8",
            batching=_balanced(row, 50) if not is_hopper else None,
        )
    if row.model.startswith("llama"):
        is_short = (row.isl, row.osl) == (1024, 1024) and row.tp < 8
        waits = {"use": "in_flight", "wait_steps": 20, "wait_tokens_frac": 0.9}
        return Launch(
            max_num_seqs=2048,
            max_step_tokens=16384,
            memory_frac=TRTLLM_MEMORY_FRAC,
            batching=waits if is_short else None,
        )
    rounded = (row.concurrency + row.isl + 64 + 63) // 64 * 64
    is_delayed = (row.isl, row.osl) == (1024, 1024) and row.concurrency >= 64
    delayed = {"use": "in_flight", "wait_steps": 40, "wait_tokens_frac": 0.8}
    has_delay = is_delayed and row.dtype == "fp8" and row.system == "b200" and row.dp == 1
    return Launch(
        max_num_seqs=2048,
        max_step_tokens=max(8192, rounded),
        memory_frac=TRTLLM_MEMORY_FRAC,
        kv_dtype="fp8" if row.dtype != "bf16" else "bf16",
        mtp=DRAFTS[1 if row.dp > 1 else 3] if row.version == MTP_IMAGE else None,
        batching=delayed if has_delay else _balanced(row, 60),
    )


def _balanced(row: Row, steps: int) -> dict[str, Any] | None:
    """attention_dp_config: enable_balance, with timeout_iters."""
    return {"use": "in_flight", "balance_steps": steps} if row.dp > 1 else None


ENGINES: Final[Mapping[str, Callable[[Row], Launch]]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "trtllm": _trtllm,
}
