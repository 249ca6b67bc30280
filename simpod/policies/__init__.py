"""Decisions: the roles, the built-in policies, and how a name becomes one."""

from simpod.policies.resolve import BUILT_IN, ROLE_OF_KEY, resolve
from simpod.policies.roles import (
    BatchPlan,
    BatchScheduler,
    BatchView,
    ExpertBalancer,
    ExpertSlotsView,
    PolicyRef,
    Router,
    RouteRequest,
    RouterView,
    SequenceView,
)

__all__ = [
    "BUILT_IN",
    "ROLE_OF_KEY",
    "BatchPlan",
    "BatchScheduler",
    "BatchView",
    "ExpertBalancer",
    "ExpertSlotsView",
    "PolicyRef",
    "RouteRequest",
    "Router",
    "RouterView",
    "SequenceView",
    "resolve",
]
