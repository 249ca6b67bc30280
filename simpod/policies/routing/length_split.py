"""Short and long prompts apart."""

from dataclasses import dataclass

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(frozen=True, slots=True)
class LengthSplit:
    """Long prompts go to the last targets, short ones to the others; there, to the fewest tokens.

    Short prompts never wait behind long ones. With fewer than two targets there is no split.

    Source: the length-class pools of DynamoLLM (arXiv:2408.00741); size-interval task assignment
    (Harchol-Balter, JACM 2002).
    Sees: prompt lengths, prompt tokens and requests at every target.
    """

    split_tokens: int = 8192
    """Longest prompt that is short; at least 1."""

    long_frac: float = 0.25
    """Share of the targets for long prompts, at least one of them; above 0, below 1."""

    def __post_init__(self) -> None:
        if self.split_tokens < 1:
            raise ValueError(f"split_tokens: must be >= 1, got {self.split_tokens}")
        if not 0 < self.long_frac < 1:
            raise ValueError(f"long_frac: must be above 0 and below 1, got {self.long_frac}")

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        load = view.queued_tokens + view.running_seqs
        if view.num_targets < 2:
            return 0
        num_long = min(view.num_targets - 1, max(1, round(self.long_frac * view.num_targets)))
        first_long = view.num_targets - num_long
        if request.prompt_tokens > self.split_tokens:
            return first_long + int(load[first_long:].argmin())
        return int(load[:first_long].argmin())
