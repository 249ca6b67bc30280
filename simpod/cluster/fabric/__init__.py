"""The pod's network: a graph from the hardware profile, frozen; transfers that share its links."""

from simpod.cluster.fabric.arrays import LINK_KINDS, Fabric, PlaneArrays, freeze
from simpod.cluster.fabric.fair import first_full_level
from simpod.cluster.fabric.flows import Flow, FlowTable
from simpod.cluster.fabric.graph import PEER, Graph, build_graph, degraded
from simpod.cluster.fabric.laws import transfer_law
from simpod.cluster.fabric.storage import with_ssd
from simpod.cluster.fabric.whole import whole_fabric

__all__ = [
    "LINK_KINDS",
    "PEER",
    "Fabric",
    "Flow",
    "FlowTable",
    "Graph",
    "PlaneArrays",
    "build_graph",
    "degraded",
    "first_full_level",
    "freeze",
    "transfer_law",
    "whole_fabric",
    "with_ssd",
]
