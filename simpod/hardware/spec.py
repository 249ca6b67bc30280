"""What the hardware is: peaks and capacities as vendors state them; derating is `Calibration`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from annotated_types import Gt, Le

from simpod.fields import STRICT, Count, NonNegative, Positive
from simpod.hardware.kernels.fits import KernelFits
from simpod.hardware.topology import TopologySpec

Share = Annotated[float, Gt(0), Le(1)]
"""An efficiency that something is divided by."""

MATMUL_DTYPES = ("bf16", "fp8", "int8", "fp4")
"""Data types that matrix units may have."""

FLOPS_PER_EXP: Final = 16.0
"""Vector operations in the time of an exponential, where `exp_per_s` of a die is not given."""

EXP_FRAC: Final = 0.8
"""Of the time of a softmax, that of its exponentials where a core does 16 a clock. NVIDIA measured
35 % more throughput of fp8 prompt attention where Blackwell Ultra does 32 ("Making softmax more
efficient with NVIDIA Blackwell Ultra", 2026); with this share and the b200's constants it is 35 %.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DieSpec:
    """One rank's worth of silicon: half an Ascend 910C NPU, or one whole GPU."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    """The vendor's name."""
    peak_flops_per_s: Mapping[str, Positive]
    """Matrix units, dense (without sparsity), by data type; a type that is missing has no units."""
    vector_flops_per_s: Positive
    """Vector units: what norms, rotary embedding and softmax run on."""
    exp_per_s: Positive | None = None
    """Exponentials; none: a 16th of vector_flops_per_s, as where a core does 256 vector operations
    and 16 exponentials a clock."""
    hbm_bytes: Positive
    """Memory capacity."""
    hbm_bytes_per_s: Positive
    """Memory bandwidth."""
    l2_bytes: Positive
    """Last cache before the memory."""
    num_cores: Count
    """Cube cores (AIC) or streaming multiprocessors."""

    @property
    def softmax_flops_per_s(self) -> float:
        """What softmax runs at: the vector units, exponentials as fast as `exp_per_s` says."""
        if self.exp_per_s is None:
            return self.vector_flops_per_s
        others_s = (1.0 - EXP_FRAC) / self.vector_flops_per_s
        return 1.0 / (others_s + EXP_FRAC / (FLOPS_PER_EXP * self.exp_per_s))

    def __post_init__(self) -> None:
        strange = [key for key in self.peak_flops_per_s if key not in MATMUL_DTYPES]
        if strange or "bf16" not in self.peak_flops_per_s:
            raise ValueError(
                f"peak_flops_per_s has {', '.join(self.peak_flops_per_s) or 'nothing'}: allowed are"
                f" {', '.join(MATMUL_DTYPES)}; bf16 is needed, attention runs in it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneSpec:
    """One network plane. Bandwidth is unidirectional and per die."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    """scale_up (UB, NVLink, PCIe), scale_out (RDMA) or vpc."""
    scope: Literal["node", "pod"]
    """node: joins the dies of a node only; pod: joins all dies."""
    bytes_per_s: Positive
    """Unidirectional, of one die, as the vendor states it."""
    intra_node_latency_s: NonNegative
    """Of a small transfer between two dies of a node."""
    inter_node_latency_s: NonNegative
    """Of a small transfer between two nodes; of no meaning in a plane of scope node."""
    is_full_mesh: bool = False
    """Without a switch: each pair of a node's dies has a link of its own, of which bytes_per_s is
    the sum, so that a group has only the links among its members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """The CPU side of one node."""

    __pydantic_config__: ClassVar[Any] = STRICT

    num_cpus: Count
    """Sockets."""
    dram_bytes: Positive
    """Capacity, all sockets together."""
    dram_bytes_per_s: Positive
    """Bandwidth, all sockets together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRates:
    """Element-wise kernels of a die on which they have more than one rate."""

    __pydantic_config__: ClassVar[Any] = STRICT

    fill_bytes: Positive
    """A kernel moves its first bytes at `Calibration.hbm_frac`: as many as fill the buffers of all
    vector cores once, before loads and stores overlap."""
    hbm_frac: Share
    """Of memory bandwidth, for the bytes that follow."""
    rotation_frac: Share
    """Of memory bandwidth, for all bytes of a rotary embedding: short pieces of each row."""
    copy_overhead_s: NonNegative
    """Launch of a kernel that copies, scales or adds; `Calibration.kernel_overhead_s` of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a die achieves of its peaks outside the kernels of `kernels`: passes, links, latencies.

    Every number carries its source in the profile's YAML.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    hbm_frac: Share
    """Of memory bandwidth, in element-wise passes."""
    vector_frac: Share
    """Of the vector peak."""
    kernel_overhead_s: NonNegative
    """Launch or dispatch of one kernel inside a graph."""
    kernel_gap_s: NonNegative = 0.0
    """A die waits so long from the end of one kernel of a graph to the start of the next."""
    passes: PassRates | None = None
    """Of element-wise passes; none: all bytes at hbm_frac, all launches of kernel_overhead_s."""
    network_frac: Mapping[str, Share] = field(default_factory=dict)
    """Plane name -> achieved share of its bandwidth; a plane that is missing achieves all of it."""
    allreduce_latency_s: NonNegative = 0.0
    """Fixed part of one tensor-parallel all-reduce, beside two latencies of its plane."""
    dispatch_latency_s: NonNegative = 0.0
    """Fixed part of one expert dispatch or combine."""
    dispatch_latency_per_rank_s: NonNegative = 0.0
    """Metadata exchange with each peer, of one dispatch or combine."""
    exchange_extra_s: NonNegative = 0.0
    """What one dispatch or combine takes longer among a model's kernels than in a benchmark's loop,
    which the constants of `kernels.exchange` are of."""
    decode_kernel_spread_frac: NonNegative = 0.0
    """Standard deviation over mean, from call to call, of the time that attention over the cache
    takes on one die, and experts; ranks that meet in every layer wait for the slowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile:
    """A pod: dies in NPUs (or GPUs), NPUs in nodes, nodes on planes."""

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    """How experiments and reports call it: the stem of the file's name."""
    source: str
    """Where peaks and capacities come from."""
    family: Literal["ascend", "ampere", "hopper", "blackwell", "ada"]
    """Generation: devices of one family share calibration constants."""
    die: DieSpec
    """One rank."""
    dies_per_npu: Count
    """2 for Ascend 910C, 1 for GPUs."""
    npus_per_node: Count
    """NPUs (or GPUs) of one server."""
    num_nodes: Count
    """Servers of the pod."""
    planes: Mapping[str, PlaneSpec]
    """By name; scale_up is always there."""
    host: HostSpec
    """The CPU side of each node."""
    calibration: Calibration
    """What the die achieves of its peaks."""
    topology: TopologySpec = field(default_factory=TopologySpec)
    """How the planes are wired."""
    kernels: KernelFits = field(default_factory=KernelFits)
    """Constants of its kernels."""

    def __post_init__(self) -> None:
        if "scale_up" not in self.planes:
            raise ValueError(
                f"planes has {', '.join(self.planes) or 'nothing'}: scale_up is needed"
            )
        for key, plane in self.planes.items():
            if key != plane.name:
                raise ValueError(f"plane {key} is called {plane.name}: must be the same")
        strange = sorted(set(self.calibration.network_frac) - set(self.planes))
        if strange:
            raise ValueError(
                f"network_frac names {', '.join(strange)}, which is not among"
                f" the planes {', '.join(self.planes)}"
            )
        self._check_topology()
        if self.num_nodes > 1 and all(plane.scope == "node" for plane in self.planes.values()):
            raise ValueError(f"{self.num_nodes} nodes, but no plane of scope pod joins them")

    def _check_topology(self) -> None:
        used = {*self.topology.planes, *(law.plane for law in self.topology.transfers.values())}
        strange = sorted(used - set(self.planes))
        if strange:
            raise ValueError(
                f"topology names {', '.join(strange)}, which is not among"
                f" the planes {', '.join(self.planes)}"
            )

    @property
    def dies_per_node(self) -> int:
        """Ranks of one server."""
        return self.dies_per_npu * self.npus_per_node

    @property
    def num_dies(self) -> int:
        """Ranks of the whole pod."""
        return self.dies_per_node * self.num_nodes
