"""Everybody is let in."""

from simpod.policies.roles import AdmissionView, RouteRequest


def always(view: AdmissionView, request: RouteRequest) -> bool:
    """Every request is let in.

    Source: vLLM, SGLang: the queue is unbounded.
    Sees: nothing.
    """
    return True
