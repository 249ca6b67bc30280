"""Role switching by queue lengths."""

from dataclasses import dataclass

from simpod.policies.roles import ScaleAction, ScalingView, SwitchInstance


@dataclass(frozen=True, slots=True)
class EpdRoleSwitch:
    """An instance goes from a pool with a short queue to the one with the longest.

    Nothing is done while every queue has at least `balance_frac` of the longest one. The giver is,
    of the pools with a shorter queue and more than one instance, the one with most of them. One
    switch at a time: none while another one is under way.

    Source: Singh et al., EPD (arXiv:2501.05460v4), role switching, as in its repository's
    `decide_migration`: a decision every 5 s, half of the longest queue.
    Sees: the queue lengths of all pools, their instances.
    """

    balance_frac: float = 0.5
    """Share of the longest queue that is as good as equal; 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.balance_frac <= 1:
            raise ValueError(f"balance_frac: must be 0 to 1, got {self.balance_frac}")

    def __call__(self, view: ScalingView) -> list[ScaleAction]:
        queues = {pool.name: float(pool.waiting_seqs[-1]) for pool in view.pools}
        longest = max(queues.values())
        is_balanced = all(queue >= longest * self.balance_frac for queue in queues.values())
        if is_balanced or any(pool.coming or pool.draining for pool in view.pools):
            return []
        to = next(pool for pool in view.pools if queues[pool.name] == longest)
        givers = [
            pool
            for pool in view.pools
            if queues[pool.name] < longest
            and pool.serving > 1
            and view.spare_dies + pool.dies_per_instance >= to.dies_per_instance
        ]
        if not givers:
            return []
        giver = max(givers, key=lambda pool: pool.serving)
        return [SwitchInstance(giver.name, to.name)]
