"""State of the cluster without a clock: KV blocks, prefix caches, what a pool is made of."""

from simpod.cluster.counters import Counters, float_array, integer_array
from simpod.cluster.elastic_placement import ElasticKvRoutes, ElasticPlacement
from simpod.cluster.kv import KvBlocks
from simpod.cluster.placement import (
    KvRoutes,
    Placement,
    num_kv_shards,
    place,
    place_in_order,
)
from simpod.cluster.pool_spec import PoolSpec, Role
from simpod.cluster.prefix import PrefixCache

__all__ = [
    "Counters",
    "ElasticKvRoutes",
    "ElasticPlacement",
    "KvBlocks",
    "KvRoutes",
    "Placement",
    "PoolSpec",
    "PrefixCache",
    "Role",
    "float_array",
    "integer_array",
    "num_kv_shards",
    "place",
    "place_in_order",
]
