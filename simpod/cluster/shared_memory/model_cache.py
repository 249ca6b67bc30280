"""Model weights kept in the pool: what it takes to start an instance, and to switch its model.

Weights come from an object store whose bandwidth all share, into DRAM, and from there into the
NPUs. Three ways (CloudMatrix-Infer table 2, which it calls illustrative): no cache; each instance
with a cache in its own hosts' DRAM; one pool.

    cold start of n instances: copies x bytes / store rate, copies = n without a pool, 1 with it
    warm start: bytes / load rate, where the weights are in DRAM
    switch: hit share x warm + (1 - hit share) x load of one copy from the store
"""

from dataclasses import dataclass
from typing import Literal

from simpod.errors import ConfigError

CacheKind = Literal["none", "local", "pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCacheFigures:
    """What one way of keeping models gives; no warm start without a cache."""

    cold_start_s: float
    warm_start_s: float | None
    dram_bytes: float
    switch_hit_frac: float
    mean_switch_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCache:
    """Instances that serve models of one size, each model as likely as any other.

    store_frac: what a load achieves of the store's bandwidth. 0.84: 671 GB at 2.5 GB/s take
    268 s and CloudMatrix-Infer says about 320. load_bytes_per_s: one stream out of DRAM; a die
    reads a CPU's memory at 147 GB/s between nodes (its table 1): 4.6 s for 671 GB, it says
    about 5.
    """

    weight_bytes: float
    num_instances: int
    num_models: int
    store_bytes_per_s: float = 2.5e9
    store_frac: float = 0.84
    load_bytes_per_s: float = 147.0e9

    def __post_init__(self) -> None:
        bad = [
            name
            for name in (
                "weight_bytes",
                "num_instances",
                "num_models",
                "store_bytes_per_s",
                "load_bytes_per_s",
            )
            if not getattr(self, name) > 0
        ]
        if bad or not 0 < self.store_frac <= 1:
            raise ConfigError(
                f"model cache: {', '.join([*bad, 'store_frac'][:1])} must be positive"
                " (store_frac at most 1)"
            )

    @property
    def _store_s(self) -> float:
        """One copy out of the object store, nobody else loading."""
        return self.weight_bytes / (self.store_bytes_per_s * self.store_frac)

    def figures(self, kind: CacheKind) -> ModelCacheFigures:
        """Start and switch times.

        A local cache keeps one model in each instance's hosts, so that a switch to any of the
        models hits with 1 / num_models; the pool keeps each model once.
        """
        warm_s = self.weight_bytes / self.load_bytes_per_s
        copies = 1 if kind == "pool" else self.num_instances
        hit_frac = {"none": 0.0, "local": 1.0 / self.num_models, "pool": 1.0}[kind]
        dram_copies = {"none": 0, "local": self.num_instances, "pool": 1}[kind]
        return ModelCacheFigures(
            cold_start_s=copies * self._store_s,
            warm_start_s=None if kind == "none" else warm_s,
            dram_bytes=dram_copies * self.weight_bytes,
            switch_hit_frac=hit_frac,
            mean_switch_s=hit_frac * warm_s + (1.0 - hit_frac) * self._store_s,
        )
