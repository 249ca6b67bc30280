"""Reject at arrival what the decode side will have no room for."""

from collections import deque
from dataclasses import dataclass, field
from math import inf

from simpod.policies.roles import AdmissionView, RouteRequest


@dataclass(slots=True)
class EarlyRejection:
    """Refuse at arrival what prefill or decode will be too loaded for, before prefill is wasted.

    Prefill load is the estimated TTFT of the best target / its target (or, without one, / 30 s).
    Decode load is the KV that will be in use on average when this prompt is computed / capacity:
    what is held now, plus prompts under way that are done by then, less what ends by then if every
    request decodes for `decode_s` (with `predict: false`: only what is held now, which oscillates).

    Source: Qin et al., Mooncake (arXiv:2407.00079), section 7: early rejection based on prediction.
    Sees: load of both pools, what it let in, the measured speed of prefill, the TTFT target.
    """

    max_prefill_frac: float = 1.0
    """Load of prefill up to which requests are let in; above 0."""

    max_decode_frac: float = 0.9
    """Load of decode up to which requests are let in; above 0."""

    predict: bool = True
    """Look at the decode load when the prompt will be done, not at the present one."""

    decode_s: float = 20.0
    """Time that a request is assumed to decode; above 0."""

    prompt_tokens_per_s: float = 10_000.0
    """Speed of prefill to assume until one is measured; above 0."""

    _admitted: deque[tuple[float, int]] = field(default_factory=deque, init=False)  # done at, KV

    def __post_init__(self) -> None:
        for name in ("max_prefill_frac", "max_decode_frac", "decode_s", "prompt_tokens_per_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be > 0, got {getattr(self, name)}")

    def __call__(self, view: AdmissionView, request: RouteRequest) -> bool:
        speed = view.entry.prompt_tokens_per_s or self.prompt_tokens_per_s
        ttft_s = float(view.entry.queued_tokens.min() + request.prompt_tokens) / speed
        target_s = 30.0 if view.ttft_target_s == inf else view.ttft_target_s
        if ttft_s > self.max_prefill_frac * target_s:
            return False
        done_s = view.now_s + ttft_s
        capacity = view.decode.num_targets * view.decode.kv_capacity_tokens
        if self._decode_tokens(view, done_s) + request.prompt_tokens > (
            self.max_decode_frac * capacity
        ):
            return False
        self._admitted.append((done_s, request.prompt_tokens))
        return True

    def _decode_tokens(self, view: AdmissionView, at_s: float) -> float:
        """KV in use on the decode side: now, or as predicted for `at_s`."""
        while self._admitted and self._admitted[0][0] + self.decode_s < view.now_s:
            self._admitted.popleft()
        if not self.predict:
            return float(view.decode.kv_tokens.sum())
        return float(sum(kv for done, kv in self._admitted if done <= at_s < done + self.decode_s))
