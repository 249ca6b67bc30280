"""The router stage of a pool: what is where, and the choice of a rank for each request."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simpod.cluster import Counters, PoolSpec, integer_array
from simpod.engine.clock import Clock
from simpod.engine.facades import SequenceFacade, hits_of, reusable_of
from simpod.engine.sequence import Sequence
from simpod.errors import PolicyError
from simpod.policies import Router, RouteRequest, RouterView

if TYPE_CHECKING:
    from simpod.engine.rank import Rank

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterFacade:
    """Read-only view of a pool's targets: `policies.RouterView`; the arrays are live."""

    _clock: Clock
    _dispatcher: "Dispatcher"
    rng: np.random.Generator
    num_targets: int
    max_num_seqs: int
    kv_capacity_tokens: int
    waiting_seqs: Ints
    running_seqs: Ints
    held_seqs: Ints
    queued_tokens: Ints
    kv_tokens: Ints

    @property
    def now_s(self) -> float:
        """The moment of the decision."""
        return self._clock.now

    @property
    def ranks_per_instance(self) -> int:
        """Targets of one instance."""
        return self._dispatcher.spec.layout.dp

    @property
    def computing_tokens(self) -> Ints:
        """[num_targets] prompt tokens of the steps under way."""
        return self._dispatcher.computing_tokens()

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of one target, measured so far."""
        return self._dispatcher.prompt_tokens_per_s

    def hit_tokens(self, request: RouteRequest, /) -> Ints:
        """[num_targets] leading tokens that are in each target's prefix cache."""
        return hits_of(self._dispatcher.ranks, request)

    def reusable_tokens(self, request: RouteRequest, /) -> Ints:
        """[num_targets] leading tokens that each target has cached or can read."""
        return reusable_of(self._dispatcher.ranks, request)


def _live_array(counts: "memoryview[int]") -> Ints:
    """The same memory as a read-only array."""
    view = integer_array(counts)
    view.flags.writeable = False
    return view


class Dispatcher:
    """Counts per target [num_targets] and the policy that chooses among them.

    Ranks keep `waiting_seqs`, `running_seqs`, `held_seqs` and `queued_tokens` current; `kv_tokens`
    is what a rank reported at its last admission or release, so it may be old, as in a real
    deployment.
    """

    def __init__(
        self, spec: PoolSpec, clock: Clock, *, name: str, policy: Router, rng: np.random.Generator
    ) -> None:
        self.spec = spec
        self.num_targets = spec.instances * spec.layout.dp
        counters = Counters(5 * self.num_targets)
        self.waiting_seqs = counters.integers(self.num_targets)
        self.running_seqs = counters.integers(self.num_targets)
        self.held_seqs = counters.integers(self.num_targets)  # the sum of these two, read most
        self.queued_tokens = counters.integers(self.num_targets)
        self.kv_tokens = counters.integers(self.num_targets)
        self.ranks: list[Rank] = []  # by target; the groups fill it in
        self.prompt_tokens = 0  # computed so far
        self.prompt_rank_s = 0.0  # time of the steps with prompts x the ranks that had some
        self._name = name
        self._policy = policy
        self.view: RouterView = RouterFacade(
            _clock=clock,
            _dispatcher=self,
            rng=rng,
            num_targets=self.num_targets,
            max_num_seqs=spec.max_num_seqs,
            kv_capacity_tokens=spec.kv_blocks * spec.block_tokens,
            waiting_seqs=_live_array(self.waiting_seqs),
            running_seqs=_live_array(self.running_seqs),
            held_seqs=_live_array(self.held_seqs),
            queued_tokens=_live_array(self.queued_tokens),
            kv_tokens=_live_array(self.kv_tokens),
        )

    def choose(self, seq: Sequence) -> int:
        """Ask the router for a target; PolicyError if it is not one."""
        return 0 if self.num_targets == 1 else self._ask(seq, self.num_targets)

    def _ask(self, seq: Sequence, num_targets: int) -> int:
        try:
            target = self._policy(self.view, SequenceFacade(seq))
        except Exception as error:  # the policy's code: whatever it raises, the policy is to blame
            raise PolicyError(self._name, f"raised {error!r} while routing {seq.seq_id}") from error
        if not isinstance(target, (int, np.integer)) or not 0 <= target < num_targets:
            raise PolicyError(
                self._name,
                f"returned target {target!r} for request {seq.seq_id}; "
                f"allowed: 0 to {num_targets - 1}",
            )
        return int(target)

    def join_queue(self, seq: Sequence, target: int) -> None:
        """A request waits at a rank from now on."""
        self.waiting_seqs[target] += 1
        self.held_seqs[target] += 1
        self.queued_tokens[target] += seq.goal_tokens

    def leave_queue(self, seq: Sequence, target: int) -> None:
        """A request that waited at a rank goes elsewhere."""
        self.waiting_seqs[target] -= 1
        self.held_seqs[target] -= 1
        self.queued_tokens[target] -= seq.goal_tokens

    def computing_tokens(self) -> Ints:
        """[num_targets] prompt tokens of the steps under way."""
        groups = (rank.group for rank in self.ranks[:: self.spec.layout.dp])
        return np.concatenate([group.batch.prefill_tokens for group in groups])

    @property
    def serving_instances(self) -> Iterable[int]:
        """Instances that get requests."""
        return range(self.spec.instances)

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens a second of a rank at work on prompts, over the run so far; 0: none yet."""
        return self.prompt_tokens / self.prompt_rank_s if self.prompt_rank_s else 0.0
