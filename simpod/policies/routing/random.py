"""Any target."""

from simpod.policies.roles import RouteRequest, RouterView


def random(view: RouterView, request: RouteRequest) -> int:
    """Any target, all alike.

    Source: textbook.
    Sees: nothing.
    """
    return int(view.rng.integers(view.num_targets))
