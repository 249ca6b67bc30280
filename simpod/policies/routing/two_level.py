"""Two schedulers in a row that do not know each other's business."""

from dataclasses import dataclass, field

from simpod.policies.roles import RouteRequest, RouterView


@dataclass(slots=True)
class TwoLevel:
    """The instance with the fewest requests, then its data-parallel ranks in turn.

    The first level does not see ranks, the second neither lengths nor prefixes: long prompts meet
    on a rank by chance, and all ranks of the instance wait for it.

    Source: the scheduler that xDeepServe (arXiv:2508.02520) replaced because of stragglers; the
    ranks in turn are vLLM's and SGLang's default within an engine.
    Sees: requests at every instance.
    """

    _next: dict[int, int] = field(default_factory=dict, init=False)

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        ranks = view.ranks_per_instance
        instance = int(view.held_seqs.reshape(-1, ranks).sum(axis=1).argmin())
        rank = self._next.get(instance, 0)
        self._next[instance] = (rank + 1) % ranks
        return instance * ranks + rank
