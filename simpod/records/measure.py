"""Which part of a run is measured."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Lt

from simpod.fields import STRICT, Positive

Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Statistics leave out the first and last requests, in order of arrival; all are simulated."""

    __pydantic_config__: ClassVar[Any] = STRICT

    warmup_frac: Share = 0.1
    """Share of the requests, first to arrive, that is left out: the system is still filling."""
    drain_frac: Share = 0.1
    """Share of the requests, last to arrive, that is left out: the system is emptying."""
    duration_s: Positive | None = None
    """Stop the simulation at this time, finished or not; null: run until all requests are done."""

    def __post_init__(self) -> None:
        left_out = self.warmup_frac + self.drain_frac
        if left_out >= 1:
            raise ValueError(
                f"warmup_frac {self.warmup_frac:g} + drain_frac {self.drain_frac:g} = {left_out:g}:"
                " must be below 1, or nothing is measured"
            )
