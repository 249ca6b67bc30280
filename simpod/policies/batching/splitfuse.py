"""Dynamic SplitFuse: steps of one size."""

from dataclasses import dataclass

from simpod.policies.batching.chunks import check_at_least, fill
from simpod.policies.roles import BatchPlan, BatchView


@dataclass(frozen=True, slots=True)
class SplitFuse:
    """Steps of a constant size: long prompts are split, short ones fused, to fill it exactly.

    The size is where the throughput of a step levels off; a step is never larger, so that its time
    hardly varies. Decodes count in it.

    Source: Holmes et al., DeepSpeed-FastGen (arXiv:2401.08671).
    Sees: order of arrival, prompt lengths, prefix hits.
    """

    forward_tokens: int = 2048
    """Tokens of every step, decodes included, as far as there is work; at least 1."""

    def __post_init__(self) -> None:
        check_at_least("forward_tokens", self.forward_tokens, 1)

    def __call__(self, view: BatchView) -> BatchPlan:
        size = min(self.forward_tokens, view.max_step_tokens)
        return BatchPlan(fill(view, view.prefilling, size - view.num_decoding))
