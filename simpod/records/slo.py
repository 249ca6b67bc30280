"""What a request is promised."""

from dataclasses import dataclass
from typing import Any, ClassVar

from simpod.fields import STRICT, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Objectives of one request, each an upper bound (met when equal); None: no promise."""

    __pydantic_config__: ClassVar[Any] = STRICT

    ttft_s: Positive | None = None
    """Time to first token."""
    tpot_s: Positive | None = None
    """Time per output token after the first, mean of one request."""
    e2e_s: Positive | None = None
    """Arrival to last token."""

    @property
    def is_empty(self) -> bool:
        """No promise at all: every finished request is good."""
        return self.ttft_s is None and self.tpot_s is None and self.e2e_s is None
