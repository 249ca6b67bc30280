"""Join the shortest queue."""

from simpod.policies.roles import RouteRequest, RouterView


def least_requests(view: RouterView, request: RouteRequest) -> int:
    """The target with the fewest requests, waiting or running (join the shortest queue).

    Source: Winston, J. Appl. Prob. 1977; the default of vLLM's data-parallel coordinator.
    Sees: requests at every target, up to date.
    """
    return int(view.held_seqs.argmin())
