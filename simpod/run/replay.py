"""One step of a run that is over, caught by running it again up to there.

A result says when steps began and ended, not what each rank had in them. The same experiment with
the same seed is the same run, so what the step was priced from is there again: prompts beside
decodes, whoever was preempted before, popularity as it had drifted, tokens as they were drawn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from simpod.cluster.experts.placement import ExpertPlacement
from simpod.config import ResolvedExperiment
from simpod.cost import Batch, Pricer, StepPrices
from simpod.cost.expert_imbalance import LayerLoads, LoadModel
from simpod.cost.work import Floats
from simpod.engine import Simulation
from simpod.engine.group import Group
from simpod.errors import ConfigError
from simpod.run.experts import ExpertTimeline, expert_timelines
from simpod.run.simulate import rare_collections, run_inputs
from simpod.workload import build, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlace:
    """A step, and the run of like steps that it is in."""

    pool: str
    instance: int
    first_step: int
    """Number of the run's first step among all of its group, from 0."""
    offset: int
    """Steps of the run before this one."""
    end_s: float
    """Of the run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaughtStep:
    """What a step was priced from."""

    start_s: float
    batch: Batch
    """At the step itself."""
    prices: StepPrices
    """At the start of its run."""
    pause_s: float
    """By which hosts held it up."""
    loads: LoadModel | None
    """Of its experts; None: all alike."""
    experts: tuple[Floats, ExpertPlacement] | None
    """Popularity [num_layers, num_experts] and placement that they are of."""


class SeenLoads:
    """Drawn loads, as they were seen."""

    is_drawn = False

    def __init__(self, slot_tokens: Floats, num_layers: int) -> None:
        """[draws x num_layers, num_dies, slots of a die]: all that the step drew."""
        self._slot_tokens, self.num_layers = slot_tokens, num_layers

    def __call__(self, group_tokens: float, hit_tokens: float = 0.0) -> LayerLoads:
        """Whatever the tokens: those that the step had."""
        return LayerLoads.of(self._slot_tokens, hit_tokens)

    def slot_tokens(self, group_tokens: float) -> Floats:
        """The same, of all dies."""
        return self._slot_tokens


class _Recorder:
    """A model of loads that notes what it gives."""

    def __init__(self, loads: LoadModel) -> None:
        self._loads = loads
        self.is_drawn, self.num_layers = loads.is_drawn, loads.num_layers
        self._seen: list[Floats] = []

    def __call__(self, group_tokens: float, hit_tokens: float = 0.0) -> LayerLoads:
        return LayerLoads.of(self.slot_tokens(group_tokens), hit_tokens)

    def slot_tokens(self, group_tokens: float) -> Floats:
        self._seen.append(self._loads.slot_tokens(group_tokens))
        return self._seen[-1]

    def seen(self) -> SeenLoads:
        """All that was given."""
        return SeenLoads(np.concatenate(self._seen), self.num_layers)


class _Catcher:
    """Prices the steps of one group, and keeps what one of them was priced from."""

    def __init__(self, group: Group, place: StepPlace, timeline: ExpertTimeline | None) -> None:
        self._group, self._pricer = group, group.pricer
        self._place, self._timeline = place, timeline
        self.mtp_share = self._pricer.mtp_share
        self.caught: CaughtStep | None = None

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._pricer.renew(loads)

    def price(self, batch: Batch) -> StepPrices:
        """The next step."""
        if self._group.ledger.num_steps != self._place.first_step:
            return self._pricer.price(batch)
        loads = self._timeline.loads if self._timeline is not None else None
        with _seen(self._pricer, loads) as recorder:
            prices = self._pricer.price(batch)
        self.caught = CaughtStep(
            start_s=self._group.clock.now,
            batch=self._at_the_step(batch),
            prices=prices,
            pause_s=self._pause_s(),
            loads=loads if recorder is None else recorder.seen(),
            experts=None if self._timeline is None else self._timeline.serving,
        )
        return prices

    def _at_the_step(self, batch: Batch) -> Batch:
        group = self._group
        done, offset = group.ledger.num_decode_steps, self._place.offset
        gained = group.tokens.at(done + offset) - group.tokens.at(done)
        return Batch(
            decode_seqs=batch.decode_seqs.copy(),
            context_tokens=batch.context_tokens.copy(),
            prefill_tokens=batch.prefill_tokens.copy(),
            prefill_pairs=batch.prefill_pairs.copy(),
            prefill_context=batch.prefill_context.copy(),
            num_chunks=batch.num_chunks.copy(),
            gained_tokens=batch.gained_tokens + gained,
        )

    def _pause_s(self) -> float:
        pauses, number = self._group.ledger.pauses, self._place.first_step + self._place.offset
        return 0.0 if pauses is None else pauses.before(number + 1) - pauses.before(number)


@contextmanager
def _seen(pricer: Pricer, loads: LoadModel | None) -> Iterator[_Recorder | None]:
    """Note the loads that are drawn meanwhile; others are the same whenever they are asked for."""
    if loads is None or not loads.is_drawn:
        yield None
        return
    recorder = _Recorder(loads)
    pricer.renew(recorder)
    yield recorder
    pricer.renew(loads)


def replay(experiment: ResolvedExperiment, place: StepPlace) -> CaughtStep:
    """Run an experiment again up to a step.

    Raises ConfigError where the step does not come again: the version of simpod, a trace or a
    policy is not that of the result.
    """
    stream = streams(experiment.seed)
    requests = build(experiment.workload, stream)
    with threadpool_limits(1, user_api="blas"), rare_collections():
        timelines = expert_timelines(experiment, stream)
        inputs = run_inputs(experiment, requests, stream, timelines=timelines)
        sim = Simulation(replace(inputs, duration_s=place.end_s))
        pool = next(pool for pool in sim.pools if pool.spec.name == place.pool)
        group = pool.groups[place.instance]
        catcher = _Catcher(group, place, timelines[place.pool])
        group.pricer = catcher
        sim.run()
    if catcher.caught is None:
        raise ConfigError(
            f"step {place.first_step + place.offset} of {place.pool} {place.instance} does not come"
            " again: simpod, a trace or a policy is not what the result was made with"
        )
    return catcher.caught
