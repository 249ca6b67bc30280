"""The contract of a scaling policy: what the engine insists on, tested on random views."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simpod.errors import blaming
from simpod.policies.roles import (
    AddInstance,
    Floats,
    RemoveInstance,
    ScalingView,
    SwitchInstance,
)

NONE: Floats = np.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakePoolLoad:
    """A `PoolLoad` out of thin air."""

    name: str
    role: str
    waiting_seqs: Floats
    running_seqs: Floats
    kv_frac: Floats
    dies_per_instance: int = 8
    serving: int = 1
    draining: int = 0
    coming: int = 0
    prompt_tokens_per_s: Floats = field(default_factory=lambda: NONE)
    output_tokens_per_s: Floats = field(default_factory=lambda: NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeScalingView:
    """A `ScalingView` out of thin air."""

    now_s: float
    pools: tuple[FakePoolLoad, ...]
    spare_dies: int
    arrivals_per_s: Floats
    arrived_tokens_per_s: Floats
    ttft_s: Floats
    tpot_s: Floats
    finished_prompt_tokens: Floats
    finished_output_tokens: Floats
    every_s: float = 10.0
    sample_s: float = 1.0
    ttft_target_s: float = 2.0
    tpot_target_s: float = 0.05


def scaling_views(rng: np.random.Generator, count: int) -> Iterator[FakeScalingView]:
    """Random deployments in the course of time: one pool or two, idle ones, full ones."""
    names = ("server",) if rng.random() < 0.3 else ("prefill", "decode")
    dies = [int(rng.choice([1, 8, 32])) for _ in names]
    now_s = 0.0
    for _ in range(count):
        now_s += 10.0
        num, finished = int(rng.integers(1, 61)), int(rng.integers(0, 50))
        tpot_s = rng.uniform(0.005, 0.2, finished)
        tpot_s[rng.random(finished) < 0.1] = np.nan
        yield FakeScalingView(
            now_s=now_s,
            pools=tuple(
                _pool(rng, name, size, num) for name, size in zip(names, dies, strict=True)
            ),
            spare_dies=int(rng.integers(0, 5)) * dies[0],
            arrivals_per_s=rng.uniform(0.0, 20.0, num),
            arrived_tokens_per_s=rng.uniform(0.0, 1e5, num),
            ttft_s=rng.uniform(0.01, 20.0, finished),
            tpot_s=tpot_s,
            finished_prompt_tokens=rng.integers(1, 20_000, finished).astype(float),
            finished_output_tokens=rng.integers(1, 2_000, finished).astype(float),
        )


def _pool(rng: np.random.Generator, name: str, dies: int, num: int) -> FakePoolLoad:
    most = float(rng.choice([0.0, 3.0, 300.0]))
    return FakePoolLoad(
        name=name,
        role="mixed" if name == "server" else name,
        dies_per_instance=dies,
        serving=int(rng.integers(1, 6)),
        draining=int(rng.random() < 0.2),
        coming=int(rng.random() < 0.2),
        waiting_seqs=np.floor(rng.uniform(0.0, most, num)),
        running_seqs=np.floor(rng.uniform(0.0, most, num)),
        kv_frac=rng.uniform(0.0, 1.0, num),
        prompt_tokens_per_s=rng.uniform(0.0, 1e5, num),
        output_tokens_per_s=rng.uniform(0.0, 1e4, num),
    )


def action_problems(view: ScalingView, actions: Any) -> Iterator[str]:
    """What is wrong with a decision; nothing if the contract holds."""
    pools = {pool.name: pool for pool in view.pools}
    serving = {name: pool.serving for name, pool in pools.items()}
    spare = view.spare_dies
    if not isinstance(actions, list | tuple):
        yield f"returned {actions!r}, not a list of actions"
        return
    for action in actions:
        giver: str | None = None
        taker: str | None = None
        if isinstance(action, SwitchInstance):
            giver, taker = action.source, action.destination
        elif isinstance(action, RemoveInstance):
            giver = action.pool
        elif isinstance(action, AddInstance):
            taker = action.pool
        else:
            yield f"returned {action!r}, not an action"
            return
        unknown = [name for name in (giver, taker) if name is not None and name not in pools]
        if unknown or giver == taker:
            yield f"{action}: allowed: {', '.join(pools)}, two different ones in a switch"
            return
        if giver is not None:
            if serving[giver] < 2:
                yield f"{action}: {giver} has {serving[giver]} serving instance, which stays"
                return
            serving[giver] -= 1
        if taker is not None:  # what a giver frees beyond that is there when it has drained
            freed = pools[giver].dies_per_instance if giver is not None else 0
            spare -= max(0, pools[taker].dies_per_instance - freed)
            if spare < 0:
                yield f"{action}: needs {-spare} more dies than are spare"
                return


def check_scaling(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views, none if the contract holds.

    Actions name pools that are there, leave each a serving instance, find their dies, and are the
    same for the same history. A policy serves one deployment all its life.
    """
    problems: list[str] = []
    for seed in range(5):
        rng = np.random.default_rng([7, seed])
        first, second = make(), make()
        for index, view in enumerate(scaling_views(rng, max(1, views // 5))):
            with blaming(name, " on a random view"):
                actions, again = first(view), second(view)
            where = f"deployment {seed}, view {index}"
            problems += [f"{where}: {problem}" for problem in action_problems(view, actions)]
            if actions != again:
                problems.append(f"{where}: two fresh policies, same views, other actions")
    return problems
