"""What one transfer of an operation achieves: measured where the profile says so, else nominal."""

from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile
from simpod.hardware.topology import TransferLaw


def transfer_law(profile: HardwareProfile, operation: str) -> TransferLaw:
    """The profile's law of an operation, or of a plane.

    A plane's name stands for any transfer over it: its latency, and the share of its rate that
    `network_frac` says.
    """
    measured = profile.topology.transfers
    if operation in measured:
        return measured[operation]
    if operation not in profile.planes:
        known = ", ".join([*measured, *profile.planes])
        raise ConfigError(f"hardware {profile.name} has no transfer {operation!r}; it has {known}")
    plane = profile.planes[operation]
    rate = plane.bytes_per_s * profile.calibration.network_frac.get(operation, 1.0)
    return TransferLaw(
        plane=operation,
        intra_node_start_s=plane.intra_node_latency_s,
        inter_node_start_s=plane.inter_node_latency_s,
        intra_node_bytes_per_s=rate,
        inter_node_bytes_per_s=rate,
    )
