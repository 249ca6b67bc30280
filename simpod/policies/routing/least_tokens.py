"""Join the shortest queue, by tokens."""

from simpod.policies.roles import RouteRequest, RouterView


def least_tokens(view: RouterView, request: RouteRequest) -> int:
    """The target with the fewest prompt tokens to compute, plus one for each running request.

    Join the shortest queue, in tokens: what a step of the target has to work on.

    Source: textbook, with the work of a step as the length of a queue.
    Sees: prompt tokens and requests at every target, up to date.
    """
    return int((view.queued_tokens + view.running_seqs).argmin())
