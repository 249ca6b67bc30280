"""Target utilisation with a stabilisation window."""

from collections import deque
from dataclasses import dataclass, field
from math import ceil, inf

from simpod.policies.roles import AddInstance, PoolLoad, RemoveInstance, ScaleAction, ScalingView

METRICS = ("held_seqs", "waiting_seqs", "running_seqs", "kv_frac")


@dataclass(slots=True)
class KubernetesHpa:
    """As many instances as bring a metric to its target; fewer only after a while of calm.

    desired = ceil(current x metric / target), unless metric / target misses 1 by no more than
    `tolerance_frac`. The metric is its mean over the last `average_s`; sequences count per instance
    that serves or comes. Scaling down takes the largest number that was desired, or there at the
    start, in the last `stabilization_s`. Scaling up is immediate, as far as spare dies reach.
    Every pool is scaled by itself.

    Source: Kubernetes, Horizontal Pod Autoscaling: the algorithm, its tolerance of 0.1 and its
    downscale stabilisation of 300 s; autoscaling/v2.
    Sees: queues, running requests or KV use of every pool, over the last seconds.
    """

    target: float
    """Of the metric; above 0."""

    metric: str = "held_seqs"
    """held_seqs, waiting_seqs or running_seqs per instance, or kv_frac."""

    pool: str = ""
    """The only pool to scale; empty: all."""

    min_instances: int = 1
    """Of a pool."""

    max_instances: int = 2**31
    """Of a pool."""

    tolerance_frac: float = 0.1
    """Share by which the metric may miss the target."""

    stabilization_s: float = 300.0
    """How long a higher number holds."""

    average_s: float = 15.0
    """Over which the metric is averaged; above 0."""

    _wanted: dict[str, deque[tuple[float, int]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.target < inf:
            raise ValueError(f"target: must be > 0 and finite, got {self.target}")
        if self.metric not in METRICS:
            raise ValueError(f"metric: must be one of {', '.join(METRICS)}, got {self.metric}")
        if not 1 <= self.min_instances <= self.max_instances:
            raise ValueError(f"min_instances: must be 1 to max_instances, got {self.min_instances}")
        if not self.average_s > 0:
            raise ValueError(f"average_s: must be > 0, got {self.average_s}")

    def __call__(self, view: ScalingView) -> list[ScaleAction]:
        spare = view.spare_dies
        actions: list[ScaleAction] = []
        for pool in view.pools:
            if self.pool not in ("", pool.name):
                continue
            change = self._desired(view, pool) - pool.serving - pool.coming
            if change < 0:
                fewer = min(-change, pool.serving - 1)
                actions += [RemoveInstance(pool.name)] * fewer
            else:
                more = min(change, spare // pool.dies_per_instance)
                spare -= more * pool.dies_per_instance
                actions += [AddInstance(pool.name)] * more
        return actions

    def _desired(self, view: ScalingView, pool: PoolLoad) -> int:
        """The number for now, stabilised."""
        current = pool.serving + pool.coming
        ratio = self._metric(view, pool) / self.target
        wanted = current if abs(ratio - 1.0) <= self.tolerance_frac else ceil(current * ratio)
        wanted = min(max(wanted, self.min_instances), self.max_instances)
        past = self._wanted.setdefault(pool.name, deque([(view.now_s, current)]))
        while past and past[0][0] < view.now_s - self.stabilization_s:
            past.popleft()
        past.append((view.now_s, wanted))
        return max(wanted, min(current, max(number for _, number in past)))

    def _metric(self, view: ScalingView, pool: PoolLoad) -> float:
        last = max(1, round(self.average_s / view.sample_s))
        if self.metric == "kv_frac":
            return float(pool.kv_frac[-last:].mean())
        waiting, running = pool.waiting_seqs[-last:].mean(), pool.running_seqs[-last:].mean()
        seqs = {"held_seqs": waiting + running, "waiting_seqs": waiting, "running_seqs": running}
        return float(seqs[self.metric]) / (pool.serving + pool.coming)
