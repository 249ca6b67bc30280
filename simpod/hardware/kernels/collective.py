"""Constants of collectives: latency a hop and share of the link by protocol of the library."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Le

from simpod.fields import STRICT

LinkShare = Annotated[float, Ge(0.001), Le(1.5)]
"""Of the link's unidirectional bandwidth; above 1 where parts of the traffic don't cross it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveConstants:
    """A library that goes around (ring) or to all peers, with three protocols by message size.

    NCCL: LL, LL128, Simple. HCCL: the same frame, small messages in one shot.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    launch_s: Annotated[float, Ge(1e-7), Le(1e-4)]
    """Start of the kernel and the first hop's fixed part, whatever the number of dies."""
    hop_s: Annotated[float, Ge(1e-8), Le(2e-5)]
    """Latency of each further die, smallest messages (LL: data and flag in one store)."""
    small_frac: LinkShare
    """Share of the link that the smallest messages' protocol sustains."""
    middle_scale: Annotated[float, Ge(1.0), Le(4.0)]
    """Latency of the middle protocol (LL128: flag a 128-byte line) over that of the smallest."""
    middle_frac: LinkShare
    """Share of the link that the middle protocol sustains."""
    switch_bytes: Annotated[float, Ge(1e3), Le(1e9)]
    """Message size at which two dies change over to the protocol of large messages."""
    switch_power: Annotated[float, Ge(0.0), Le(2.0)]
    """How that size grows with the dies: (dies / 2) to this power; 1: a size a die."""
    large_hop_s: Annotated[float, Ge(1e-8), Le(5e-5)]
    """Latency of each further die for large messages (Simple: a full chunk, then a flag)."""
    large_frac: LinkShare
    """Share of the link for the largest messages."""
    own_frac: Annotated[float, Ge(0.0), Le(1.5)]
    """Cost of a die's own part (copied locally), in units of a part that crosses the link."""
    overlap_exponent: Annotated[float, Ge(1.0), Le(4.0)]
    """How latency and bytes overlap: 1 not at all (their sum), 4 nearly fully (their maximum)."""
    nvls_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Share of the link, counting the message once, when the switch itself reduces; 0: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomAllReduceConstants:
    """All-reduce by direct loads from peers (vLLM, SGLang), and NCCL above its buffer's size."""

    __pydantic_config__: ClassVar[Any] = STRICT

    launch_s: Annotated[float, Ge(1e-7), Le(1e-4)]
    """Kernel start and the two flag barriers, whatever the number of dies."""
    one_shot_frac: LinkShare
    """Share of the link when every die loads every other die's whole message."""
    two_shot_s: Annotated[float, Ge(1e-7), Le(1e-4)]
    """Second barrier of the two-shot form, between its two halves, each doubling of the dies."""
    two_shot_frac: LinkShare
    """Share of the link in the two-shot form."""
    ring_hop_s: Annotated[float, Ge(1e-8), Le(5e-5)]
    """Latency of each further die of the ring that takes over for large messages."""
    ring_frac: LinkShare
    """Share of the link in that ring."""
    own_frac: Annotated[float, Ge(0.0), Le(1.5)]
    """Cost of a die's own part of the ring, in units of a part that crosses the link."""
    copy_launch_s: Annotated[float, Ge(0.0), Le(5e-5)]
    """Launch of the copy into the shared buffer; a graph copies nothing."""
    copy_frac: Annotated[float, Ge(0.1), Le(100.0)]
    """Bandwidth of the copy into the shared buffer, over the link's."""
    host_s: Annotated[float, Ge(1e-7), Le(2e-4)]
    """Time between two launches without a graph: the call takes no less."""
    overlap_exponent: Annotated[float, Ge(1.0), Le(4.0)]
    """How barrier and bytes of the two-shot form overlap: 1 their sum, 4 nearly their maximum."""
    nvls_frac: Annotated[float, Ge(0.0), Le(1.0)]
    """Share of the link, counting the message once, when the switch itself reduces; 0: never."""
