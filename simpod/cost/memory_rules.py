"""What an engine sets aside of a die's memory before it gives the rest to the KV cache."""

from dataclasses import dataclass, field

GIB = float(1 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRules:
    """One engine; the defaults set aside what the model itself must have."""

    source: str = "activations at the widest point of a layer, and fp32 logits"
    visible_frac: float = 1.0
    """Of a die's memory, what the driver leaves to programs."""
    is_frac_of_free: bool = False
    """`memory_frac` is of what weights and buffers leave, not of all."""
    has_activations: bool = True
    """Activations are within the share that `memory_frac` gives, not beside it."""
    bytes_per_logit: float = 4.0
    """While rows are sampled."""
    has_expert_buffers: bool = False
    """Outputs of all chosen experts of a step's tokens, before they are summed, in bf16."""
    context_bytes: float = 0.0
    """Of the die's driver context and libraries."""
    link_bytes: float = 0.0
    """Of communicators, where dies work together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """What a scheduler's configuration says of a rank, and its engine of a die."""

    memory_frac: float
    max_step_tokens: int
    max_num_seqs: int
    staging_slots: int = 0  # experts' weights on their way into slots, of one layer each
    rules: MemoryRules = field(default_factory=MemoryRules)


VLLM_MEMORY = MemoryRules(
    source="vLLM v1 profile run: the share is of 79.2 of 80 GiB; sampling with top-p holds logits,"
    " sorted logits (fp32), their indices (int64), probabilities and their sums (fp32); fused_moe"
    " keeps [tokens, top_k, hidden]. Context and communicators fitted on three published logs"
    " (vllm issues 12569, 21348) and one deployment; see docs/accuracy.md",
    visible_frac=0.99,
    bytes_per_logit=24.0,
    has_expert_buffers=True,
    context_bytes=0.6 * GIB,
    link_bytes=1.4 * GIB,
)
SGLANG_MEMORY = MemoryRules(
    source="SGLang: mem_fraction_static is of what is free before weights are loaded, and holds"
    " weights and KV alone; vllm issue 21348 has a log",
    visible_frac=0.99,
    has_activations=False,
    context_bytes=0.6 * GIB,
    link_bytes=1.4 * GIB,
)
TRTLLM_MEMORY = MemoryRules(
    source="TensorRT-LLM: as vLLM, with sampling in place; free_gpu_memory_fraction is of what is"
    " free at the peak of a profile run (pyexecutor/_util.py, KvCacheCreator)",
    visible_frac=0.99,
    is_frac_of_free=True,
    has_expert_buffers=True,
    context_bytes=0.6 * GIB,
    link_bytes=1.4 * GIB,
)
