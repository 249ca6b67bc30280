"""What hardware is: dies, nodes, planes, and what they achieve of their peaks."""

from simpod.hardware.base import merge_base
from simpod.hardware.spec import Calibration, DieSpec, HardwareProfile, HostSpec, PlaneSpec
from simpod.hardware.topology import TopologySpec, TransferLaw, WiringSpec

__all__ = [
    "Calibration",
    "DieSpec",
    "HardwareProfile",
    "HostSpec",
    "PlaneSpec",
    "TopologySpec",
    "TransferLaw",
    "WiringSpec",
    "merge_base",
]
