"""The roles that a policy can play: view in, decision out.

A policy is a function, or a dataclass with `__call__` when it has parameters or memory. It gets a
read-only view that holds only what a real scheduler could know (never the true output length) and
returns a decision, which the engine checks and applies.
"""

from simpod.policies.roles.admit import Admission, AdmissionView
from simpod.policies.roles.balance import ExpertBalancer, ExpertSlotsView
from simpod.policies.roles.batch import (
    BatchPlan,
    BatchScheduler,
    BatchView,
    Pause,
    Reserving,
    SequenceView,
)
from simpod.policies.roles.cache import CachePolicy, CacheView
from simpod.policies.roles.lead import LeaderView, PrefillLeader
from simpod.policies.roles.migrate import Migration, MigrationView, Move
from simpod.policies.roles.predict import LengthPredictor, Prediction, PredictorView
from simpod.policies.roles.reference import PolicyRef
from simpod.policies.roles.route import Floats, Ints, Router, RouteRequest, RouterView
from simpod.policies.roles.scale import (
    AddInstance,
    PoolLoad,
    RemoveInstance,
    ScaleAction,
    Scaling,
    ScalingView,
    SwitchInstance,
)

__all__ = [
    "AddInstance",
    "Admission",
    "AdmissionView",
    "BatchPlan",
    "BatchScheduler",
    "BatchView",
    "CachePolicy",
    "CacheView",
    "ExpertBalancer",
    "ExpertSlotsView",
    "Floats",
    "Ints",
    "LeaderView",
    "LengthPredictor",
    "Migration",
    "MigrationView",
    "Move",
    "Pause",
    "PolicyRef",
    "PoolLoad",
    "Prediction",
    "PredictorView",
    "PrefillLeader",
    "RemoveInstance",
    "Reserving",
    "RouteRequest",
    "Router",
    "RouterView",
    "ScaleAction",
    "Scaling",
    "ScalingView",
    "SequenceView",
    "SwitchInstance",
]
