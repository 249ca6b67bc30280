"""What the exchanges of one step put on the links of their dies."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class StepTraffic:
    """Exchanges of one step over one plane."""

    die_bytes: tuple[float, float, float, float]
    """Of a die of a rank, out and in; of a die that only has experts, out and in."""
    moving_s: float
    """Time in which they move on idle links, hidden behind other work or not."""
    exposed_s: float
    """What of it the step's time holds: it gets longer as this does."""
    shares: tuple[tuple[int, float], ...]
    """Of the exposed time, by the part of the step that it is in: place in STEP_PARTS, share."""
