"""How the workers of disaggregated deployments were launched: what their tables leave out.

Read from the recipes of github.com/ishandhanani/srt-slurm (`recipes/trtllm`, `recipes/b200-fp8`),
by which InferenceX runs Dynamo (perf-changelog.yaml, pull requests 510, 570, 582, 588, 616). They
differ from row to row in batch sizes that no table gives; here nothing but budgets and memory
limits a worker. Whether drafts were on is not said either: they are taken to be off.
"""

from dataclasses import dataclass
from typing import Final

from simpod.validate.launch import Launch

PREFILL_TOKENS: Final = 8192
"""max_num_tokens of TensorRT-LLM's prefill workers, or one prompt and 128 tokens."""
SGLANG_TOKENS: Final = 32768
"""chunked_prefill_size, of which data-parallel ranks have equal parts (server_args.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a recipe chooses by."""

    backend: str
    """vllm, sglang, trtllm."""
    role: str
    """prefill or decode."""
    is_gpt_oss: bool
    is_bf16: bool
    is_hopper: bool
    isl: int
    concurrency: int
    dp: int


def split_launch(worker: Worker) -> Launch:
    """Flags of a worker of a prefill or of a decode pool."""
    has_wide_cache = worker.is_bf16 or (worker.is_hopper and worker.backend != "trtllm")
    kv_dtype = "bf16" if has_wide_cache else "fp8"
    is_prefill = worker.role == "prefill"
    if worker.backend == "trtllm":
        tokens = 20000 if worker.is_gpt_oss else max(PREFILL_TOKENS, worker.isl + 128)
        return Launch(
            max_num_seqs=worker.concurrency,
            max_step_tokens=tokens,
            memory_frac=0.6 if is_prefill else 0.85,
            kv_dtype=kv_dtype,
        )
    if worker.backend == "sglang":
        return Launch(
            max_num_seqs=max(1, (512 if worker.dp == 1 else 1024) // worker.dp),
            max_step_tokens=SGLANG_TOKENS // worker.dp,
            memory_frac=0.85,
            kv_dtype=kv_dtype,
        )
    return Launch(max_num_seqs=worker.concurrency, kv_dtype=kv_dtype)
