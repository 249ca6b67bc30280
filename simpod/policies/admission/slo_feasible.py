"""Only requests whose objectives can be met."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import AdmissionView, RouteRequest


@dataclass(frozen=True, slots=True)
class SloFeasible:
    """Let a request in only if some target can meet its TTFT, and decode steps meet its TPOT.

    TTFT is estimated as (prompt tokens queued at the target + its own) / measured speed. Decode
    steps count as they are now, of the fastest instance that has a slot free.

    Source: SLO-aware admission as in SCORPIO (arXiv:2505.23022) and Mooncake.
    Sees: prompt tokens at every target, measured speeds, the SLOs.
    """

    margin_frac: float = 1.0
    """Share of the targets that estimates may reach; above 0."""

    prompt_tokens_per_s: float = 10_000.0
    """Speed to assume until one is measured; above 0."""

    def __post_init__(self) -> None:
        for name in ("margin_frac", "prompt_tokens_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be > 0, got {getattr(self, name)}")

    def __call__(self, view: AdmissionView, request: RouteRequest) -> bool:
        speed = view.entry.prompt_tokens_per_s or self.prompt_tokens_per_s
        work = float(view.entry.queued_tokens.min()) + request.prompt_tokens
        left_s = self.margin_frac * (request.ttft_deadline_s - view.now_s)
        if work / speed > left_s:
            return False
        decode = view.decode
        is_free = decode.held_seqs < decode.max_num_seqs
        has_slot = is_free.reshape(-1, decode.ranks_per_instance).any(axis=1)
        step_s = np.where(has_slot, view.decode_step_s, np.inf)
        return float(step_s.min()) <= self.margin_frac * view.tpot_target_s
