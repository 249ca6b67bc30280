"""Experts of a step under a model of their loads, for every number of tokens."""

import numpy as np

from simpod.cost.expert_imbalance import (
    DieTimes,
    ExpertSite,
    LayerLoads,
    LoadModel,
    SparseTimes,
    die_times,
    hit_tokens_of,
    kept,
    sparse_times,
)
from simpod.cost.gather_exchange import AnyExchange
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.layout import Layout
from simpod.cost.stragglers import VaryingDies
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


def by_kind(rows: Floats, num_layers: int, mtp_layers: int) -> tuple[Floats, Floats]:
    """[..., steps x num_layers]: mean [...] of the model's own layers, and of MTP's, the last ones.

    Without any of these twice the first.
    """
    steps = rows.reshape(*rows.shape[:-1], -1, num_layers)
    own = num_layers - mtp_layers
    first = steps[..., :own].mean(axis=(-2, -1))
    return first, steps[..., own:].mean(axis=(-2, -1)) if mtp_layers else first


class UnevenExperts:
    """Mean over layers of the parts of a sparse layer, of those of MTP apart."""

    def __init__(
        self,
        model: ModelSpec,
        layout: Layout,
        kernels: KernelPricer,
        exchange: AnyExchange | None,
        loads: LoadModel,
    ) -> None:
        self._kernels, self._exchange, self._loads = kernels, exchange, kept(loads)
        self._dies, self._mtp = layout.dies, layout.mtp_layers
        self._moe_tp = layout.moe_tp
        self._site = ExpertSite.of(model, layout)
        self._hit_tokens = hit_tokens_of(kernels, exchange, self._site)

    @property
    def is_drawn(self) -> bool:
        """Each step has loads of its own."""
        return self._loads.is_drawn

    def layer_s(
        self, group_tokens: Floats, varying: VaryingDies | None = None
    ) -> tuple[Floats, Floats]:
        """Dispatch, experts, combine and wait for the slowest die [4, n], for tokens [n]; the same
        of an MTP layer.

        varying: of `sparse_times`.
        """
        points = chosen_points(group_tokens)
        columns = self._priced(points, varying).columns
        of_points = columns.reshape(len(columns), len(points), -1)
        means = by_kind(of_points, self._loads.num_layers, self._mtp)
        own, mtp = (
            np.array([np.interp(group_tokens, points, row) for row in kind]) for kind in means
        )
        return own, mtp

    def rows(self, group_tokens: float) -> SparseTimes:
        """Of each layer and step that the model of loads gives."""
        return self._priced(np.array([group_tokens]), None)

    def _priced(self, group_tokens: Floats, varying: VaryingDies | None) -> SparseTimes:
        """The same for tokens [n], one after the other."""
        tokens = np.maximum(group_tokens, 1.0)
        loads = LayerLoads.joined([self._loads(n, self._hit_tokens) for n in tokens.tolist()])
        own = np.repeat(tokens / self._dies, len(loads.mean) // len(tokens))
        return sparse_times(self._kernels, self._exchange, self._site, loads, own, varying)

    def dies(self, group_tokens: float) -> DieTimes:
        """Of each layer and die in one step; raises InvariantError where dies send nothing."""
        if self._exchange is None:
            raise InvariantError("experts whose dies exchange nothing do not wait in exchanges")
        tokens = max(group_tokens, 1.0)
        drawn = self._loads.slot_tokens(tokens).repeat(self._moe_tp, axis=1)
        return die_times(self._kernels, self._exchange, self._site, drawn, tokens / self._dies)

    def means(self, times: SparseTimes) -> tuple[Floats, Floats]:
        """Dispatch, experts, combine and wait [4] of a layer of the model, and of one of MTP."""
        return by_kind(times.columns, self._loads.num_layers, self._mtp)
