"""Policies that break their contract, one way each."""

from dataclasses import dataclass

from simpod.policies import BatchPlan, BatchView, RouteRequest, RouterView


def over_budget(view: BatchView) -> BatchPlan:
    return BatchPlan(prefill_chunks={s.seq_id: s.uncached_tokens for s in view.prefilling})


def lazy(view: BatchView) -> BatchPlan:
    return BatchPlan()


def raises(view: BatchView) -> BatchPlan:
    raise LookupError("no plan today")


def beyond(view: RouterView, request: RouteRequest) -> int:
    return view.num_targets


def three(view: RouterView, request: RouteRequest, more: int) -> int:
    return 0


@dataclass(frozen=True)
class FirstTarget:
    offset: int = 0

    def __call__(self, view: RouterView, request: RouteRequest) -> int:
        return self.offset % view.num_targets
