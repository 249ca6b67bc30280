"""The role of an admission controller: which requests are let in."""

from typing import Protocol

from simpod.policies.roles.route import Floats, RouteRequest, RouterView


class AdmissionView(Protocol):
    """The whole deployment at the arrival of a request, before a router sees it."""

    @property
    def now_s(self) -> float:
        """The moment of the decision."""

    @property
    def entry(self) -> RouterView:
        """The pool that gets requests: mixed, prefill, or a decode pool alone."""

    @property
    def decode(self) -> RouterView:
        """The pool that decodes; the same as `entry` where there is one pool."""

    @property
    def ttft_target_s(self) -> float:
        """TTFT that is promised; infinity: none."""

    @property
    def tpot_target_s(self) -> float:
        """Time per output token that is promised; infinity: none."""

    @property
    def decode_step_s(self) -> Floats:
        """[instances that decode] how long the step takes that each is in; 0: it is idle."""


class Admission(Protocol):
    """Lets a request in, or refuses it."""

    def __call__(self, view: AdmissionView, request: RouteRequest, /) -> bool:
        """Return whether the request is let in."""
