"""Constants of expert-parallel exchange and point-to-point transfer: one class a kernel family."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT, Count

LinkShare = Annotated[float, Ge(0.01), Le(1.0)]
"""Of the link's unidirectional bandwidth."""
Microseconds = Annotated[float, Ge(0.0), Le(1e-4)]
"""Seconds, of things that take up to some tens of microseconds."""
ShareOfMemory = Annotated[float, Ge(0.1), Le(1.0)]
"""Of the memory bandwidth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushConstants:
    """Fused dispatch and combine by remote writes of vector cores (CloudMatrix-Infer 4.2.1)."""

    __pydantic_config__: ClassVar[Any] = STRICT

    num_cores: Count
    """Vector cores that work on one exchange."""
    start_up_s: Microseconds
    """Launch, barrier of the cores and the first write."""
    flag_s: Microseconds
    """One core writes and later polls the flag and count of one expert."""
    message_local_s: Microseconds
    """One core and one message within the NPU: slot, copy, header; fully exposed."""
    message_s: Microseconds
    """The same over the scale-up plane, with the write's completion."""
    message_inter_node_s: Microseconds
    """What a message to another node takes longer."""
    quantise_bytes_per_s: Annotated[float, Ge(1e9), Le(1e13)]
    """Rate of all cores together at which 16-bit activations are quantised to 8 bits."""
    write_frac: LinkShare
    """Share of the scale-up bandwidth that remote writes reach."""
    hbm_frac: ShareOfMemory
    """Share of memory bandwidth when received messages are put in order or summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullConstants:
    """XCCL: metadata to every rank, then each rank pulls what is for it (xDeepServe 3.2, 3.3)."""

    __pydantic_config__: ClassVar[Any] = STRICT

    num_cores: Count
    """Vector cores that work on a dispatch or combine."""
    start_up_s: Microseconds
    """Launch and barrier of the cores."""
    field_s: Microseconds
    """One core writes one 32-byte metadata field into a remote die: latency of a small write."""
    poll_s: Microseconds
    """One core reads one metadata field that has arrived (scalar unit)."""
    message_s: Microseconds
    """One core pulls one message: latency of a small read."""
    quantise_start_s: Microseconds
    """Fixed part of quantising: the pipeline copy, quantise, write fills."""
    quantise_bytes_per_s: Annotated[float, Ge(1e9), Le(1e13)]
    """Rate of all cores together at which 16-bit activations are quantised to 8 bits."""
    read_frac: LinkShare
    """Share of the scale-up bandwidth that remote reads reach."""
    hbm_frac: ShareOfMemory
    """Share of memory bandwidth when messages are copied between application and managed area."""
    dma_start_s: Microseconds
    """Start-up of a hop whose bytes DMA engines move (URMA), completion included."""
    dma_post_s: Microseconds
    """One core posts one descriptor (a read from one source) to a DMA engine."""
    dma_cores: Count
    """Vector cores that post descriptors and metadata when DMA engines move the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointToPointConstants:
    """XCCL send and receive through ring buffers (xDeepServe 3.1)."""

    __pydantic_config__: ClassVar[Any] = STRICT

    start_up_s: Microseconds
    """Both kernels' launch and return to their hosts."""
    field_s: Microseconds
    """A metadata field reaches the other die: tail pointer, or acknowledgement."""
    core_bytes_per_s: Annotated[float, Ge(1e9), Le(1e12)]
    """One vector core from application area to remote managed area, both steps overlapped."""
    slot_bytes: Annotated[float, Ge(1e4), Le(1e8)]
    """Ring buffer of one pair of cores: beyond it the sender waits for acknowledgement."""
    link_frac: LinkShare
    """Share of the scale-up bandwidth, all cores together."""
    check_interval_s: Microseconds
    """Asynchronous mode: how often completion is looked for instead of busy polling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkConstants:
    """Transfer of one block by a DMA engine or network card (HIXL): start-up and a rate."""

    __pydantic_config__: ClassVar[Any] = STRICT

    start_up_s: Microseconds
    """Within a node."""
    inter_node_s: Microseconds
    """What it takes longer between nodes."""
    link_frac: LinkShare
    """Share of the plane's bandwidth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowLatencyConstants:
    """DeepEP low-latency: every token to every one of its experts, written as it is ready."""

    __pydantic_config__: ClassVar[Any] = STRICT

    start_up_s: Microseconds
    """Launch, first write, last poll, within a node."""
    flag_s: Annotated[float, Ge(0.0), Le(1e-6)]
    """Count and flag of one logical expert."""
    network_s: Microseconds
    """Latency that the network adds when all peers are on other nodes."""
    token_s: Microseconds
    """One multiprocessor and one token: cast, look up slots, issue; it serves one at a time."""
    up_frac: LinkShare
    """Share of the scale-up bandwidth."""
    out_frac: LinkShare
    """Share of the network adapter's bandwidth."""
    overlap_exponent: Annotated[float, Ge(1.0), Le(6.0)]
    """How issuing and bytes overlap: 1 their sum, 6 nearly their maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalConstants:
    """DeepEP normal: a token crosses to each rank (or node) once, on a given number of SMs."""

    __pydantic_config__: ClassVar[Any] = STRICT

    start_up_s: Microseconds
    """Launch and barrier within a node."""
    hidden_s: Annotated[float, Ge(0.0), Le(1e-8)]
    """Start-up that grows with the hidden size: a warp's serial pass over one token, an element."""
    network_s: Microseconds
    """Latency that the network adds, each doubling of the nodes."""
    notify_s: Microseconds
    """Layout exchange before the bytes move (notify), between nodes: fixed part."""
    notify_node_s: Microseconds
    """The same, a node."""
    token_s: Microseconds
    """One multiprocessor and one token, whatever its destinations."""
    sm_bytes_per_s: Annotated[float, Ge(1e9), Le(1e12)]
    """Bytes that one multiprocessor moves."""
    network_copy_scale: Annotated[float, Ge(0.0), Le(10.0)]
    """Its work on a copy over the network, in copies within the node: staging, passing on."""
    up_frac: LinkShare
    """Share of the scale-up bandwidth."""
    out_frac: LinkShare
    """Share of the network adapter's bandwidth."""
    wide_frac: Annotated[float, Ge(0.1), Le(1.0)]
    """What is left of that beyond 4 nodes: each channel's window is shared by more peers."""
    overlap_exponent: Annotated[float, Ge(1.0), Le(6.0)]
    """How multiprocessors and links overlap: 1 their sum, 6 nearly their maximum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConstants:
    """All-to-all over one NVLink domain (NVL72): one operation and data type of a kernel."""

    __pydantic_config__: ClassVar[Any] = STRICT

    start_up_s: Microseconds
    """Launch and flags of one peer."""
    round_s: Microseconds
    """Flags of more peers: each doubling of the ranks."""
    token_s: Annotated[float, Ge(1e-11), Le(1e-6)]
    """Local work of one token: indices, padding, reading and writing staging buffers."""
    up_frac: LinkShare
    """Share of the scale-up bandwidth."""
    overlap_exponent: Annotated[float, Ge(1.0), Le(6.0)]
    """How local work and bytes overlap: 1 their sum, 6 nearly their maximum."""
    latency_exponent: Annotated[float, Ge(1.0), Le(6.0)]
    """How start-up and the rest overlap: a small message's bytes hide in it."""
