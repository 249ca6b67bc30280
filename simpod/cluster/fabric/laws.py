"""What one transfer of an operation achieves: measured where the profile says so, else nominal."""

from typing import Final

from simpod.errors import ConfigError
from simpod.hardware.kernels.exchange import BulkConstants
from simpod.hardware.spec import HardwareProfile, PlaneSpec
from simpod.hardware.topology import TransferLaw

_PLANES: Final = {"ub": "scale_up", "rdma": "scale_out"}
"""What the last part of the name of a fitted bulk transfer stands for."""


def transfer_law(profile: HardwareProfile, operation: str) -> TransferLaw:
    """The law of an operation, of a bulk transfer (`hixl/p2p_read/ub`), or of a plane.

    A plane's name stands for any transfer over it: its latency, and the share of its rate that
    `network_frac` says.
    """
    laws = {
        **{name: _nominal(profile, plane) for name, plane in profile.planes.items()},
        **_bulk(profile),
        **profile.topology.transfers,
    }
    if operation not in laws:
        raise ConfigError(
            f"hardware {profile.name} has no transfer {operation!r}; it has {', '.join(laws)}"
        )
    return laws[operation]


def _nominal(profile: HardwareProfile, plane: PlaneSpec) -> TransferLaw:
    rate = plane.bytes_per_s * profile.calibration.network_frac.get(plane.name, 1.0)
    return TransferLaw(
        plane=plane.name,
        intra_node_start_s=plane.intra_node_latency_s,
        inter_node_start_s=plane.inter_node_latency_s,
        intra_node_bytes_per_s=rate,
        inter_node_bytes_per_s=rate,
    )


def _bulk(profile: HardwareProfile) -> dict[str, TransferLaw]:
    """Fitted start-ups and rates of a transfer library; the rate is the same between nodes."""
    found = {}
    for name, fit in profile.kernels.exchange.items():
        constants = fit.constants
        plane = profile.planes.get(_PLANES.get(name.rpartition("/")[2], ""))
        if plane is not None and isinstance(constants, BulkConstants):
            found[name] = TransferLaw(
                plane=plane.name,
                intra_node_start_s=constants.start_up_s,
                inter_node_start_s=constants.start_up_s + constants.inter_node_s,
                intra_node_bytes_per_s=constants.link_frac * plane.bytes_per_s,
                inter_node_bytes_per_s=constants.link_frac * plane.bytes_per_s,
            )
    return found
