"""How an experiment names a policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """`use:` of an experiment and the parameters beside it."""

    use: str
    params: Mapping[str, Any] = field(default_factory=dict)
