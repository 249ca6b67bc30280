"""Exchanges by name: operations, the kernels that do them, and one exchange in scalars."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from simpod.cost.exchange.price import OUTBOUND

NOMINAL_EXPERTS: Final = 256
"""Of DeepSeek-R1, where none are given; never fewer than one a rank."""
SPLIT_ATTENTION_DIES: Final = 160
"""Attention dies of one domain in the published A2E and E2A (xDeepServe 3.3)."""
NORMAL_SMS: Final = 20
"""Multiprocessors of DeepEP's normal kernels, its default."""

EXCHANGES: Final = ("dispatch", "combine", "prepare", "combine_low_precision")
SPLITS: Final = ("a2e", "e2a")
TRANSFERS: Final = ("p2p_read", "p2p_write", "p2p_send")
COLLECTIVES: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
OPERATIONS: Final = (*EXCHANGES, *SPLITS, *TRANSFERS, *COLLECTIVES)

ASCEND_KERNELS: Final = ("fused_push", "xccl_pull")
DEEPEP_KERNELS: Final = ("deepep_low_latency", "deepep_normal")
DOMAIN_KERNELS: Final = ("NVLinkTwoSided", "NVLinkOneSided")
SPLIT_KERNELS: Final = ("trampoline", "naive")
LIBRARIES: Final = ("nccl", "hccl", "custom_graph", "custom_eager")

KERNELS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("dispatch", "combine"), (*ASCEND_KERNELS, *DOMAIN_KERNELS, *DEEPEP_KERNELS)),
    **dict.fromkeys(("prepare", "combine_low_precision"), DOMAIN_KERNELS),
    **dict.fromkeys(SPLITS, SPLIT_KERNELS),
    **dict.fromkeys(("p2p_read", "p2p_write"), ("hixl",)),
    "p2p_send": ("xccl_point_to_point",),
    **dict.fromkeys(COLLECTIVES, LIBRARIES),
}
"""By operation, what is meant first if none is named."""

DTYPES: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys((*ASCEND_KERNELS, *SPLIT_KERNELS), ("int8", "bf16")),
    **dict.fromkeys((*DEEPEP_KERNELS, "NVLinkTwoSided"), ("fp8", "bf16")),
    "NVLinkOneSided": ("fp4", "bf16"),
}
"""What messages are sent in, out and back, if no type is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One exchange in scalars, as a user or a row of a measured table names it."""

    operation: str
    kernel: str
    num_ranks: int = 0
    """Expert-parallel ranks; expert dies of an A2E; dies of a collective."""
    tokens: int = 0
    """Of one rank (of an attention die), in one exchange."""
    hidden_size: int = 0
    top_k: int = 0
    num_experts: int = 0
    """Logical experts; 0: NOMINAL_EXPERTS, or one a rank."""
    dtype: str = ""
    """Of the messages of this operation; empty: the kernel's own."""
    size_bytes: float = 0.0
    """Of a transfer or of a whole collective's message."""
    num_cores: int = 0
    """Vector cores of a send; multiprocessors of a normal kernel (0: its default)."""
    plane: str = "ub"
    is_inter_node: bool = True
    num_attention_dies: int = SPLIT_ATTENTION_DIES
    num_domains: int = 1
    """Attention domains that use the expert dies in turn."""

    @property
    def sent_as(self) -> str:
        """Data type of the messages; `prepare` moves none."""
        if self.operation == "prepare":
            return "none"
        if self.operation == "combine_low_precision":
            return "fp8"
        out, back = DTYPES.get(self.kernel, ("bf16", "bf16"))
        return self.dtype or (out if self.operation in OUTBOUND else back)

    @property
    def experts(self) -> int:
        """Logical experts."""
        return self.num_experts or max(NOMINAL_EXPERTS, self.num_ranks)
