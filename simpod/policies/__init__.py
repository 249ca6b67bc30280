"""Decisions: the roles, the built-in policies, and how a name becomes one."""

from simpod.policies.catalogue import BUILT_IN, ROLE_OF_KEY
from simpod.policies.resolve import resolve
from simpod.policies.roles import (
    Admission,
    AdmissionView,
    BatchPlan,
    BatchScheduler,
    BatchView,
    CachePolicy,
    CacheView,
    LengthPredictor,
    Migration,
    MigrationView,
    Move,
    PolicyRef,
    Prediction,
    PredictorView,
    Router,
    RouteRequest,
    RouterView,
    SequenceView,
)

__all__ = [
    "BUILT_IN",
    "ROLE_OF_KEY",
    "Admission",
    "AdmissionView",
    "BatchPlan",
    "BatchScheduler",
    "BatchView",
    "CachePolicy",
    "CacheView",
    "LengthPredictor",
    "Migration",
    "MigrationView",
    "Move",
    "PolicyRef",
    "Prediction",
    "PredictorView",
    "RouteRequest",
    "Router",
    "RouterView",
    "SequenceView",
    "resolve",
]
