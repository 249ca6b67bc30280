"""A router stage whose instances come and go: the router sees those that serve, and no others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simpod.cluster import PoolSpec, integer_array
from simpod.engine.clock import Clock
from simpod.engine.dispatch import Dispatcher
from simpod.engine.facades import hits_of, reusable_of
from simpod.engine.sequence import Sequence
from simpod.policies import Router, RouteRequest

if TYPE_CHECKING:
    from simpod.engine.rank import Rank

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ElasticFacade:
    """Read-only view of the targets that serve: `policies.RouterView`."""

    _clock: Clock
    _dispatcher: "ElasticDispatcher"
    rng: np.random.Generator

    @property
    def now_s(self) -> float:
        """The moment of the decision."""
        return self._clock.now

    @property
    def num_targets(self) -> int:
        """Ranks of the instances that serve."""
        return len(self._dispatcher.serving)

    @property
    def max_num_seqs(self) -> int:
        """Slots of one target."""
        return self._dispatcher.spec.max_num_seqs

    @property
    def kv_capacity_tokens(self) -> int:
        """KV of one target."""
        return self._dispatcher.spec.kv_blocks * self._dispatcher.spec.block_tokens

    @property
    def waiting_seqs(self) -> Ints:
        """[num_targets] requests without a slot."""
        return self._of_serving(self._dispatcher.waiting_seqs)

    @property
    def running_seqs(self) -> Ints:
        """[num_targets] requests with a slot."""
        return self._of_serving(self._dispatcher.running_seqs)

    @property
    def held_seqs(self) -> Ints:
        """[num_targets] the sum of these two."""
        return self._of_serving(self._dispatcher.held_seqs)

    @property
    def queued_tokens(self) -> Ints:
        """[num_targets] prompt tokens sent there and not computed yet."""
        return self._of_serving(self._dispatcher.queued_tokens)

    @property
    def computing_tokens(self) -> Ints:
        """[num_targets] prompt tokens of the steps under way."""
        return self._dispatcher.computing_tokens()[self._dispatcher.serving]

    @property
    def kv_tokens(self) -> Ints:
        """[num_targets] KV usage as last reported."""
        return self._of_serving(self._dispatcher.kv_tokens)

    @property
    def ranks_per_instance(self) -> int:
        """Targets of one instance."""
        return self._dispatcher.spec.layout.dp

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of one target, measured so far."""
        return self._dispatcher.prompt_tokens_per_s

    def hit_tokens(self, request: RouteRequest, /) -> Ints:
        """[num_targets] leading tokens that are in each target's prefix cache."""
        return hits_of(self._ranks, request)

    def reusable_tokens(self, request: RouteRequest, /) -> Ints:
        """[num_targets] leading tokens that each target has cached or can read."""
        return reusable_of(self._ranks, request)

    @property
    def _ranks(self) -> list["Rank"]:
        ranks = self._dispatcher.ranks
        return [ranks[target] for target in self._dispatcher.serving]

    def _of_serving(self, counts: "memoryview[int]") -> Ints:
        values: Ints = integer_array(counts)[self._dispatcher.serving]
        values.flags.writeable = False
        return values


class ElasticDispatcher(Dispatcher):
    """Counts of all targets that can be, and a router for those that serve.

    A router serves one set of instances: when it changes, a fresh one takes over.
    """

    def __init__(
        self,
        spec: PoolSpec,
        clock: Clock,
        *,
        name: str,
        make_policy: Callable[[], Router],
        rng: np.random.Generator,
    ) -> None:
        super().__init__(spec, clock, name=name, policy=make_policy(), rng=rng)
        self.serving: Ints = np.empty(0, dtype=np.int64)
        self._instances: list[int] = []
        self._make_policy = make_policy
        self.view = ElasticFacade(clock, self, rng)

    def serve(self, instances: Iterable[int]) -> None:
        """From now on these instances get requests."""
        self._instances = list(instances)
        dp = self.spec.layout.dp
        firsts = np.array(self._instances, dtype=np.int64)[:, np.newaxis] * dp
        self.serving = (firsts + np.arange(dp)).ravel()
        self._policy = self._make_policy()

    def choose(self, seq: Sequence) -> int:
        """Ask the router for a target among those that serve."""
        num = len(self.serving)
        return int(self.serving[0 if num == 1 else self._ask(seq, num)])

    @property
    def serving_instances(self) -> Iterable[int]:
        """Instances that get requests."""
        return self._instances
