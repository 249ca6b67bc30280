"""The router stage of a pool: what is where, and the choice of a rank for each request."""

import numpy as np
from numpy.typing import NDArray

from simpod.cluster import PoolSpec, integer_array, integer_counters
from simpod.engine.clock import Clock
from simpod.engine.sequence import Sequence, SequenceFacade
from simpod.errors import PolicyError
from simpod.policies import Router

Ints = NDArray[np.int64]


class RouterFacade:
    """Read-only view of a pool's targets: `policies.RouterView`; the arrays are live."""

    def __init__(self, pool: "Dispatcher", clock: Clock, rng: np.random.Generator) -> None:
        self._clock = clock
        self.rng = rng
        self.num_targets = pool.num_targets
        self.max_num_seqs = pool.spec.max_num_seqs
        self.kv_capacity_tokens = pool.spec.kv_blocks * pool.spec.block_tokens
        self.waiting_seqs = _live_array(pool.waiting_seqs)
        self.running_seqs = _live_array(pool.running_seqs)
        self.queued_tokens = _live_array(pool.queued_tokens)
        self.kv_tokens = _live_array(pool.kv_tokens)

    @property
    def now_s(self) -> float:
        """The moment of the decision."""
        return self._clock.now


def _live_array(counts: "memoryview[int]") -> Ints:
    """The same memory as a read-only array."""
    view = integer_array(counts)
    view.flags.writeable = False
    return view


class Dispatcher:
    """Counts per target [num_targets] and the policy that chooses among them.

    Ranks keep `waiting_seqs`, `running_seqs` and `queued_tokens` current; `kv_tokens` is what a
    rank reported at its last admission or release, so it may be old, as in a real deployment.
    """

    def __init__(
        self, spec: PoolSpec, clock: Clock, *, name: str, policy: Router, rng: np.random.Generator
    ) -> None:
        self.spec = spec
        self.num_targets = spec.instances * spec.layout.dp
        self.waiting_seqs = integer_counters(self.num_targets)
        self.running_seqs = integer_counters(self.num_targets)
        self.queued_tokens = integer_counters(self.num_targets)
        self.kv_tokens = integer_counters(self.num_targets)
        self._name = name
        self._policy = policy
        self._view = RouterFacade(self, clock, rng)

    def choose(self, seq: Sequence) -> int:
        """Ask the router for a target; PolicyError if it is not one."""
        if self.num_targets == 1:
            return 0
        try:
            target = self._policy(self._view, SequenceFacade(seq))
        except Exception as error:  # the policy's code: whatever it raises, the policy is to blame
            raise PolicyError(self._name, f"raised {error!r} while routing {seq.seq_id}") from error
        if not isinstance(target, int | np.integer) or not 0 <= target < self.num_targets:
            raise PolicyError(
                self._name,
                f"returned target {target!r} for request {seq.seq_id}; "
                f"allowed: 0 to {self.num_targets - 1}",
            )
        return int(target)
