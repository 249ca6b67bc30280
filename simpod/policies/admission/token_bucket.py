"""A rate for each tenant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan

from simpod.policies.roles import AdmissionView, RouteRequest


@dataclass(slots=True)
class TokenBucket:
    """Each tenant has a bucket of tokens that fills at a rate; a request takes its prompt from it.

    With a length predictor, its predicted output as well. What is not in the bucket is refused, so
    over any time T a tenant gets in at most burst_tokens + tokens_per_s x T.

    Source: Turner, IEEE Communications 1986 (leaky bucket); rate limits of public LLM services.
    Sees: tenants, prompt lengths, what the length predictor says.
    """

    tokens_per_s: float = 1000.0
    """Rate of every tenant that `rates` does not name; above 0."""

    burst_tokens: float = 10_000.0
    """What a bucket holds; above 0."""

    rates: Mapping[str, float] = field(default_factory=dict)
    """Tenant's number -> its own rate, tokens per second."""

    _level: dict[int, tuple[float, float]] = field(default_factory=dict, init=False)  # tokens, when

    def __post_init__(self) -> None:
        for name in ("tokens_per_s", "burst_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be > 0, got {getattr(self, name)}")
        for tenant, rate in self.rates.items():
            if not str(tenant).isdecimal() or not isinstance(rate, int | float) or not rate > 0:
                raise ValueError(f"rates: tenant number -> rate > 0, got {tenant!r}: {rate!r}")

    def __call__(self, view: AdmissionView, request: RouteRequest) -> bool:
        tenant = request.tenant
        rate = self.rates.get(str(tenant), self.tokens_per_s)
        tokens, since_s = self._level.get(tenant, (self.burst_tokens, view.now_s))
        tokens = min(self.burst_tokens, tokens + rate * (view.now_s - since_s))
        predicted = request.predicted_tokens
        cost = request.prompt_tokens + (0.0 if isnan(predicted) else predicted)
        is_let_in = cost <= tokens
        self._level[tenant] = (tokens - cost if is_let_in else tokens, view.now_s)
        return is_let_in
