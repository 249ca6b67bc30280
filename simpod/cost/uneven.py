"""Experts of a step under a model of their loads, for every number of tokens."""

import numpy as np

from simpod.cost import operators as op
from simpod.cost.expert_imbalance import (
    DieTimes,
    ExpertSite,
    LoadModel,
    SparseTimes,
    die_times,
    sparse_times,
)
from simpod.cost.gather_exchange import AnyExchange
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.layout import Layout
from simpod.cost.work import Floats
from simpod.errors import InvariantError
from simpod.model.spec import ModelSpec

MOST_POINTS = 24
"""Token counts of one request that are priced; the others lie between two of them."""


def chosen_points(counts: Floats) -> Floats:
    """[at most MOST_POINTS] of ascending counts [n], both ends included."""
    last = len(counts) - 1
    if last < MOST_POINTS:
        return counts
    if counts[0] < 1.0:  # small counts: closer together, as the time of an exchange has a bend
        return counts.take(np.unique(np.geomspace(1, last + 1, MOST_POINTS).astype(int) - 1))
    return counts.take(np.linspace(0, last, MOST_POINTS).astype(int))


class UnevenExperts:
    """Mean over layers of the parts of a sparse layer."""

    def __init__(
        self,
        model: ModelSpec,
        layout: Layout,
        kernels: KernelPricer,
        exchange: AnyExchange | None,
        loads: LoadModel,
    ) -> None:
        work = op.expert_work(model, layout, np.ones(1))
        self._kernels, self._exchange, self._loads = kernels, exchange, loads
        self._dies = layout.dies
        self._site = ExpertSite(
            hidden_size=work.hidden_size,
            inter_size=work.inter_size,
            top_k=work.top_k,
            dtype=op.part_dtype(model, "experts", layout.weight_dtype),
        )

    @property
    def is_drawn(self) -> bool:
        """Each step has loads of its own."""
        return self._loads.is_drawn

    def layer_s(
        self, group_tokens: Floats, late: Floats | None = None
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Dispatch, experts, combine and wait for the slowest die [n], for tokens [n].

        late [counts]: of `sparse_times`.
        """
        points = chosen_points(group_tokens)
        priced = np.array([self._one(tokens, late) for tokens in points.tolist()])
        dispatch, experts, combine, wait = (
            np.interp(group_tokens, points, column) for column in priced.T
        )
        return dispatch, experts, combine, wait

    def rows(self, group_tokens: float, late: Floats | None = None) -> SparseTimes:
        """Of each layer and step that the model of loads gives."""
        tokens = max(group_tokens, 1.0)
        loads = self._loads(tokens)
        return sparse_times(
            self._kernels, self._exchange, self._site, loads, tokens / self._dies, late
        )

    def dies(self, group_tokens: float) -> DieTimes:
        """Of each layer and die in one step; raises InvariantError where dies send nothing."""
        if self._exchange is None:
            raise InvariantError("experts whose dies exchange nothing do not wait in exchanges")
        tokens = max(group_tokens, 1.0)
        drawn = self._loads.slot_tokens(tokens)
        return die_times(self._kernels, self._exchange, self._site, drawn, tokens / self._dies)

    def _one(self, group_tokens: float, late: Floats | None) -> list[float]:
        times = self.rows(group_tokens, late)
        parts = (times.dispatch_s, times.experts_s, times.combine_s, times.combine_wait_s)
        return [float(part.mean()) for part in parts]
