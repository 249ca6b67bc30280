"""Pools whose steps exchange as much as a case says, for tests of exchanges that meet flows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simpod.cluster import ElasticPlacement, Placement
from simpod.cost import Batch, Pricer, StepPrices, StepTraffic
from simpod.engine import ExchangeSite, PoolInputs
from simpod.records.columns import STEP_PARTS

DISPATCH, COMBINE = (STEP_PARTS.index(name) for name in ("dispatch", "combine"))
SHARES = ((DISPATCH, 0.25), (COMBINE, 0.75))


@dataclass(frozen=True)
class Moving:
    """Every step moves bytes at `bytes_per_s` for a share of its time on idle links."""

    pricer: Pricer
    bytes_per_s: float
    moving_frac: float
    mtp_share: float = 0.0

    def price(self, batch: Batch) -> StepPrices:
        prices = self.pricer.price(batch)
        moving_s = self.moving_frac * prices.base_s
        moved = self.bytes_per_s * moving_s
        prices.traffic = StepTraffic((moved, moved, 0.0, 0.0), moving_s, moving_s, SHARES)
        return prices


def exchanging(
    pool: PoolInputs, placement: Placement, bytes_per_s: float, moving_frac: float
) -> PoolInputs:
    """The same pool, its steps exchanging over scale_up."""
    size = pool.spec.layout.dies
    sites = tuple(
        ExchangeSite(plane="scale_up", dies=_dies_of(pool, placement, n), num_rank_dies=size)
        for n in range(pool.spec.instances)
    )
    moving = Moving(pool.pricer, bytes_per_s, moving_frac, pool.pricer.mtp_share)
    return replace(pool, pricer=moving, exchange_sites=sites)


def _dies_of(pool: PoolInputs, placement: Placement, instance: int) -> Callable[[], Sequence[int]]:
    if isinstance(placement, ElasticPlacement):
        return lambda: placement.dies_of[instance]
    size = pool.spec.layout.dp
    targets = range(instance * size, (instance + 1) * size)
    dies = [die for target in targets for die in placement.dies(target)]
    return lambda: dies
