"""Kernels of a step, and what the host takes to launch those of a step with prompts."""

from simpod.cost import operators as op
from simpod.cost.layer_passes import layer_passes
from simpod.cost.layout import Layout
from simpod.cost.semantics import SEMANTICS, Semantics
from simpod.cost.step_prices import Batch
from simpod.model.spec import ModelSpec

FUSED = SEMANTICS["vllm-v1"]
EXPERT_KERNELS = 7  # sort, permute, quantise, gate and up, activation, down, sum
ATTENTION_KERNELS = 2  # write into the cache, attend
MLA_KERNELS = 8  # split, rotate and join queries and latents; quantise the input of each product


def step_pieces(model: ModelSpec) -> int:
    """What is launched of a step that runs as graphs between attentions: those, and attention."""
    return model.num_layers * (ATTENTION_KERNELS + 1)


def step_kernels(model: ModelSpec, layout: Layout) -> int:
    """Kernels that a step of the main model launches on each die, in a fused implementation: an
    engine's `eager_launch_s` is the time of a step by this count, whatever it launches besides.
    """
    passes = sum(work.kernels for work in layer_passes(model, layout, 1.0, FUSED))
    reduces = 2 if layout.tp > 1 else 0  # staged: a gather and an exchange
    layer = len(op.attention_matrices(model, layout.tp)) + ATTENTION_KERNELS + passes + reduces
    layer += MLA_KERNELS if model.attention.kind == "mla" else 0
    dense = len(op.dense_ffn(model, layout, 1.0))
    shared = len(op.shared_experts(model, layout, 1.0))
    sparse = EXPERT_KERNELS + len(op.router(model, 1.0)) + shared
    exchanges = 2 if layout.has_tokens_apart else 0
    return (
        model.num_layers * layer
        + model.num_dense_layers * dense
        + model.num_moe_layers * (sparse + exchanges)
    )


class PromptLaunches:
    """Of one lock-step group; the fullest rank is waited for."""

    def __init__(self, model: ModelSpec, layout: Layout, semantics: Semantics) -> None:
        self.eager_s = semantics.eager_launch_s * step_kernels(model, layout)
        self.pieces_s = semantics.eager_launch_s * step_pieces(model)
        self._most_tokens = semantics.graphs.prompts.most
        self._tokens_per_decode = layout.tokens_per_decode

    def seconds(self, batch: Batch) -> float:
        """All kernels, or pieces of graphs and attention between them."""
        tokens = batch.decode_seqs * self._tokens_per_decode + batch.prefill_tokens
        return self.pieces_s if tokens.max() <= self._most_tokens else self.eager_s
