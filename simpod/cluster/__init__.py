"""State of the cluster without a clock: KV blocks, prefix caches, what a pool is made of."""

from simpod.cluster.kv import KvBlocks
from simpod.cluster.pool_spec import PoolSpec, Role
from simpod.cluster.prefix import PrefixCache

__all__ = ["KvBlocks", "PoolSpec", "PrefixCache", "Role"]
