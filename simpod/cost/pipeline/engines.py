"""Micro-batches on engines of one die that work side by side: cubes, vectors, copies."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTimes:
    """Seconds of one micro-batch on each engine: in a layer, or in all of them."""

    core_s: float
    """Matrix products and attention."""
    vector_s: float
    """Norms and other passes; messages prepared and collected."""
    link_s: float
    """Bytes over links."""

    @property
    def through_s(self) -> float:
        """One micro-batch, one engine after the other."""
        return self.core_s + self.vector_s + self.link_s

    @property
    def busiest_s(self) -> float:
        """Of the engine that has most to do."""
        return max(self.core_s, self.vector_s, self.link_s)


def alike_layers_s(layer: EngineTimes, *, micro_batches: int, layers: int) -> float:
    """`layers` layers alike, each engine taking the micro-batches in turn.

    A layer lasts as long as the busiest engine has to do or as one micro-batch's way through all,
    p = max(m busiest, through); the last one ends m - 1 stages of the busiest engine after the
    first micro-batch: (L - 1) p + through + (m - 1) busiest. Visits of one engine that a layer
    makes more than once are taken together: a bound that holds if they fit into one another.
    """
    period_s = max(micro_batches * layer.busiest_s, layer.through_s)
    return (layers - 1) * period_s + layer.through_s + (micro_batches - 1) * layer.busiest_s
