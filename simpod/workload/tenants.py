"""Who sends a request: tenants and priorities, drawn for a workload that does not name them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from simpod.fields import STRICT, Positive
from simpod.workload.requests import Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSpec:
    """One tenant; the first of the list is tenant 0."""

    __pydantic_config__: ClassVar[Any] = STRICT
    share: Positive = 1.0
    """Its part of the conversations (or single requests), relative to the other tenants'."""
    priority: int = 0
    """Of all its requests; larger is more urgent."""


def with_tenants(
    requests: Requests, tenants: Sequence[TenantSpec], rng: np.random.Generator
) -> Requests:
    """Draw a tenant for every conversation, and for every request outside of one."""
    share = np.array([tenant.share for tenant in tenants])
    drawn = rng.choice(len(tenants), size=len(requests), p=share / share.sum())
    session = requests.session_id
    if (session >= 0).any():
        first = np.unique(session, return_index=True, return_inverse=True)
        drawn = np.where(session >= 0, drawn[first[1]][first[2]], drawn)
    priority = np.array([tenant.priority for tenant in tenants], dtype=np.int64)
    return replace(requests, tenant=drawn.astype(np.int64), priority=priority[drawn])
