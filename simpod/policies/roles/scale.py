"""The role of a scaling policy: how many instances each pool has, and who plays which role."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from simpod.policies.roles.route import Floats


class PoolLoad(Protocol):
    """One pool as a controller sees it; arrays are samples of the window, the oldest first."""

    @property
    def name(self) -> str:
        """As in the experiment."""

    @property
    def role(self) -> str:
        """mixed, prefill or decode."""

    @property
    def dies_per_instance(self) -> int:
        """What one more instance takes."""

    @property
    def serving(self) -> int:
        """Instances that get requests."""

    @property
    def draining(self) -> int:
        """Instances that get no more requests and finish those they have."""

    @property
    def coming(self) -> int:
        """Instances that load weights, or wait for the dies of one that drains elsewhere."""

    @property
    def waiting_seqs(self) -> Floats:
        """Requests without a slot."""

    @property
    def running_seqs(self) -> Floats:
        """Requests with a slot."""

    @property
    def kv_frac(self) -> Floats:
        """KV in use, share of the instances that have dies."""

    @property
    def prompt_tokens_per_s(self) -> Floats:
        """Prompt tokens computed."""

    @property
    def output_tokens_per_s(self) -> Floats:
        """Output tokens of running decodes; 0 in a prefill pool."""


class ScalingView(Protocol):
    """The whole deployment at a regular moment, and a window of the past."""

    @property
    def now_s(self) -> float:
        """The moment of the decision."""

    @property
    def every_s(self) -> float:
        """Time between two decisions."""

    @property
    def sample_s(self) -> float:
        """Time between two samples; the last one is of now."""

    @property
    def pools(self) -> Sequence[PoolLoad]:
        """The pool that gets requests, and the one that decodes if that is another."""

    @property
    def spare_dies(self) -> int:
        """Dies that nobody has, and that nobody waits for."""

    @property
    def arrivals_per_s(self) -> Floats:
        """Requests that came, by sample."""

    @property
    def arrived_tokens_per_s(self) -> Floats:
        """Their prompt tokens, by sample."""

    @property
    def ttft_s(self) -> Floats:
        """[finished in the window] time to first token, in the order of the finishes."""

    @property
    def tpot_s(self) -> Floats:
        """[finished in the window] time per output token; NaN of outputs of one token."""

    @property
    def finished_prompt_tokens(self) -> Floats:
        """[finished in the window] length of the prompt."""

    @property
    def finished_output_tokens(self) -> Floats:
        """[finished in the window] length of the output."""

    @property
    def ttft_target_s(self) -> float:
        """TTFT that is promised; infinity: none."""

    @property
    def tpot_target_s(self) -> float:
        """Time per output token that is promised; infinity: none."""


@dataclass(frozen=True, slots=True)
class AddInstance:
    """A pool gets one more instance, on spare dies, once the weights are there."""

    pool: str


@dataclass(frozen=True, slots=True)
class RemoveInstance:
    """The emptiest instance of a pool drains, then its dies are spare."""

    pool: str


@dataclass(frozen=True, slots=True)
class SwitchInstance:
    """The emptiest instance of a pool drains, then its dies are an instance of another pool."""

    source: str
    destination: str


ScaleAction = AddInstance | RemoveInstance | SwitchInstance


class Scaling(Protocol):
    """Adds, removes and switches instances, every so often."""

    def __call__(self, view: ScalingView, /) -> Sequence[ScaleAction]:
        """Name the actions to begin now, in order; each finds what those before it have left.

        A pool keeps one serving instance, and what is added or switched finds its dies.
        """
