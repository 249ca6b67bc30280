"""Flags of one server, in simpod's terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simpod.validate.trtllm_launches import Parallelism


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Of one engine."""

    max_num_seqs: int
    max_step_tokens: int = 8192
    memory_frac: float = 0.9
    kv_dtype: str = "fp8"
    has_expert_parallel: bool = False
    """All dies share the experts, whatever the table says."""
    max_graph_tokens: int | None = None
    """Largest batch that is captured as a graph; None: the engine's own."""
    max_piece_tokens: int | None = None
    """Largest step with prompts that runs as pieces of graphs; None: the engine's own."""
    experts_library: str | None = None
    """Whose kernels run the experts; None: the usual."""
    mtp: Mapping[str, Any] | None = None
    """Draft tokens and the shares of them that are kept; None: no drafts."""
    batching: Mapping[str, Any] | None = None
    """Scheduler and its parameters; None: the engine's own."""
    parallelism: Parallelism | None = None
    """What the script chose; None: as the table says."""
