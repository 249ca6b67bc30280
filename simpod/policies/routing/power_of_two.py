"""The better of two."""

from simpod.policies.roles import RouteRequest, RouterView


def power_of_two(view: RouterView, request: RouteRequest) -> int:
    """The less loaded of two targets drawn at random.

    Source: Mitzenmacher, IEEE TPDS 2001.
    Sees: requests at two targets, up to date.
    """
    first, second = view.rng.integers(view.num_targets, size=2)
    held = view.held_seqs
    return int(first if held[first] <= held[second] else second)
