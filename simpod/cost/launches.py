"""What the host takes to launch a step with prompts."""

from simpod.cost import operators as op
from simpod.cost.layout import Layout
from simpod.cost.semantics import Semantics
from simpod.cost.step_prices import Batch
from simpod.model.spec import ModelSpec


class PromptLaunches:
    """Of one lock-step group; the fullest rank is waited for."""

    def __init__(self, model: ModelSpec, layout: Layout, semantics: Semantics) -> None:
        self.eager_s = semantics.eager_launch_s * op.step_kernels(model, layout)
        self.pieces_s = semantics.eager_launch_s * op.step_pieces(model)
        self._most_tokens = semantics.graphs.prompts.most
        self._tokens_per_decode = layout.tokens_per_decode

    def seconds(self, batch: Batch) -> float:
        """All kernels, or pieces of graphs and attention between them."""
        tokens = batch.decode_seqs * self._tokens_per_decode + batch.prefill_tokens
        return self.pieces_s if tokens.max() <= self._most_tokens else self.eager_s
