"""How the planes of a pod are wired: switches, ports, sub-planes; and what one transfer achieves.

Rates are unidirectional. A plane is a Clos network of one or two levels: dies (and CPUs) join leaf
switches, leaves join spines. `simpod.cluster.fabric` builds the graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from simpod.fields import STRICT, Count, Index, NonNegative, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class WiringSpec:
    """One plane as a Clos network; without spines its leaves stand alone."""

    __pydantic_config__: ClassVar[Any] = STRICT

    style: Literal["striped", "rail"] = "striped"
    """striped: a die has a port in every sub-plane; rail: in one of them, and spines join them."""
    sub_planes: Count = 1
    """Parallel leaf switches of a domain: sub-planes, NVSwitch chips, rails."""
    link_bytes_per_s: Positive | None = None
    """Die to leaf, unidirectional; none: the plane's rate over the ports of a die."""
    leaf_nodes: Count | None = None
    """Nodes that share a leaf; none: one in a plane of scope node, all in one of scope pod."""
    leaf_ports: Count | None = None
    """Ports of a leaf switch, for dies, CPUs and spines; none: as many as it takes."""
    spines: Index = 0
    """Second-level switches: of each sub-plane (striped), or of the plane (rail)."""
    uplinks_per_spine: Count = 1
    """Links from a leaf to each of its spines."""
    uplink_bytes_per_s: Positive | None = None
    """Of one such link, unidirectional; none: as die to leaf."""
    spine_ports: Count | None = None
    """Ports of a spine switch; none: as many as it takes."""
    cpu_bytes_per_s: NonNegative = 0.0
    """One CPU socket's rate into the plane, unidirectional; 0: CPUs are not on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLaw:
    """One transfer alone takes start_s + bytes / bytes_per_s; both differ between nodes."""

    __pydantic_config__: ClassVar[Any] = STRICT

    plane: str
    """The plane that it goes over."""
    intra_node_start_s: NonNegative
    """Start-up inside a node."""
    inter_node_start_s: NonNegative
    """Start-up between nodes."""
    intra_node_bytes_per_s: Positive
    """Achieved inside a node, unidirectional."""
    inter_node_bytes_per_s: Positive
    """Achieved between nodes, unidirectional."""

    def start_s(self, *, same_node: bool) -> float:
        """Time before the first byte."""
        return self.intra_node_start_s if same_node else self.inter_node_start_s

    def bytes_per_s(self, *, same_node: bool) -> float:
        """The most that one transfer takes of the links on its way."""
        return self.intra_node_bytes_per_s if same_node else self.inter_node_bytes_per_s

    def alone_s(self, size_bytes: float, *, same_node: bool) -> float:
        """Time of one transfer on idle links."""
        rate = self.bytes_per_s(same_node=same_node)
        return self.start_s(same_node=same_node) + size_bytes / rate


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologySpec:
    """How the planes are wired; a plane that is missing has one ideal switch in its scope."""

    __pydantic_config__: ClassVar[Any] = STRICT

    peer_bytes_per_s: NonNegative = 0.0
    """Between two dies of one NPU, unidirectional; 0: there is no such link."""
    planes: Mapping[str, WiringSpec] = field(default_factory=dict)
    """By plane."""
    transfers: Mapping[str, TransferLaw] = field(default_factory=dict)
    """What one transfer achieves, by operation (read_die, write_cpu, ...)."""
