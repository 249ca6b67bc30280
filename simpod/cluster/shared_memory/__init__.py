"""Memory of many hosts as one pool (EMS): placement, tiers, what is kept; and models kept in it."""

from simpod.cluster.shared_memory.local import LocalMemory
from simpod.cluster.shared_memory.model_cache import ModelCache, ModelCacheFigures
from simpod.cluster.shared_memory.pool import (
    DRAM,
    LOCAL,
    SSD,
    TIERS,
    Demotion,
    Found,
    SharedMemory,
    SharedMemorySpec,
)
from simpod.cluster.shared_memory.ring import HashRing
from simpod.cluster.shared_memory.tier import Evict, Tier

__all__ = [
    "DRAM",
    "LOCAL",
    "SSD",
    "TIERS",
    "Demotion",
    "Evict",
    "Found",
    "HashRing",
    "LocalMemory",
    "ModelCache",
    "ModelCacheFigures",
    "SharedMemory",
    "SharedMemorySpec",
    "Tier",
]
