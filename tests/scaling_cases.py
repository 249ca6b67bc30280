"""Scaling by a script or by lot, for the tests of the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from engine_cases import EVERY_STEP_1S, pool_inputs, pool_spec, run_inputs
from engine_random import Experiment, Watched, inputs_of

from simpod.cluster import ElasticPlacement
from simpod.engine import ScalingInputs, Simulation
from simpod.policies import AddInstance, RemoveInstance, SwitchInstance
from simpod.policies.roles import ScaleAction, ScalingView
from simpod.policies.scaling_checks import action_problems
from simpod.records.columns import RunRecords

MOST = 3
"""Instances of a pool in the random cases."""


@dataclass
class Script:
    """Does what is written for a moment."""

    actions: Mapping[float, Sequence[ScaleAction]]
    seen: list[ScalingView] = field(default_factory=list)

    def __call__(self, view: ScalingView) -> Sequence[ScaleAction]:
        self.seen.append(view)
        return list(self.actions.get(view.now_s, ()))


@dataclass
class Lots:
    """Any action that is possible, all the time."""

    rng: np.random.Generator

    def __call__(self, view: ScalingView) -> Sequence[ScaleAction]:
        names = [pool.name for pool in view.pools]
        chosen: list[ScaleAction] = []
        pairs = [SwitchInstance(a, b) for a in names for b in names if a != b]
        every = [*map(AddInstance, names), *map(RemoveInstance, names), *pairs]
        for place in self.rng.permutation(len(every))[:2]:
            if next(action_problems(view, [*chosen, every[place]]), None) is None:
                chosen.append(every[place])
        return chosen


def inputs(
    policy: Any, start: tuple[int, ...], spare: int, *, dies: tuple[int, ...] = (), **changes: Any
) -> ScalingInputs:
    """Decisions and samples every second; weights take 2 s."""
    sizes = dies or (1,) * len(start)
    total = spare + sum(number * size for number, size in zip(start, sizes, strict=True))
    given: dict[str, Any] = {
        "make_policy": lambda: policy,
        "policy_name": "mine",
        "every_s": 1.0,
        "sample_s": 1.0,
        "window_s": 10.0,
        "placements": tuple(
            ElasticPlacement(first_die=0, dp=size, tp=1, num_dies=total) for size in sizes
        ),
        "start_instances": start,
        "dies_per_instance": sizes,
        "spare_dies": spare,
        "load_s": (2.0,) * len(start),
        "start_s": 0.0,
        "keeps_weights": False,
    }
    return ScalingInputs(**(given | changes))


def run_script(
    requests: Any,
    actions: Mapping[float, Sequence[ScaleAction]],
    *,
    start: int = 1,
    spare: int = 1,
    skip: bool = True,
    spec: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[Simulation, RunRecords, Script]:
    """One pool of ranks with steps of 1 s under a script; `spec`, `run` and the rest by name."""
    script = Script(actions)
    given = pool_spec(**({"instances": start + spare, "kv_blocks": 100} | dict(spec or {})))
    scaling = inputs(script, (start,), spare, **changes)
    entry = pool_inputs(given, EVERY_STEP_1S, "round_robin")
    sim = Simulation(run_inputs(requests, entry, skip_ahead=skip, scaling=scaling, **(run or {})))
    return sim, sim.run(), script


def run_by_lot(case: Experiment, *, recomputes: bool, **changes: Any) -> tuple[Watched, RunRecords]:
    """A random case whose instances come and go at random."""
    unit_s = 2.0**-8 if case.real_prices else 1.0
    plain = inputs_of(replace(case, migrates=False), **changes)
    pools = [pool for pool in (plain.entry, plain.decode) if pool is not None]
    sizes = tuple(pool.spec.layout.dies for pool in pools)
    start = tuple(min(2, pool.spec.instances + 1) for pool in pools)
    spare = max(sizes)
    total = spare + sum(number * size for number, size in zip(start, sizes, strict=True))
    most = [(total - (sum(sizes) - size)) // size for size in sizes]
    entry, *rest = (
        replace(pool, spec=replace(pool.spec, instances=number))
        for pool, number in zip(pools, most, strict=True)
    )
    scaling = inputs(
        Lots(np.random.default_rng(case.seed)),
        start,
        spare,
        dies=sizes,
        every_s=3.51 * unit_s,
        sample_s=1.17 * unit_s,
        window_s=11.7 * unit_s,
        load_s=(2.3 * unit_s,) * len(start),
        start_s=0.4 * unit_s,
        recomputes=recomputes,
        keeps_weights=case.seed % 2 == 0,
    )
    scaled = replace(plain, entry=entry, decode=rest[0] if rest else None, scaling=scaling)
    sim = Watched(scaled)
    return sim, sim.run()
