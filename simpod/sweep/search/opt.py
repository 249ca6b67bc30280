"""Large spaces with Optuna: TPE for the cheapest deployment, NSGA-II for the Pareto set.

TPE knows the SLO as a constraint (attainment short of what was asked <= 0), not as a penalty in the
objective. Before a deployment is measured at full length it must survive runs of a ninth and a
third of it (successive halving with a factor of 3): one that misses the SLO by far on a short run,
or costs more than the best that serves the load, is not measured longer.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from simpod.config import load_experiment
from simpod.errors import ConfigError
from simpod.sweep.search.choices import Candidate, Space
from simpod.sweep.search.deploy import Choice, Question, Scored

RUNGS: Final = (9, 3)
"""A run's requests are divided by these before it is made whole."""

FEWEST_REQUESTS: Final = 200
"""A rung that would have fewer is left out: its percentiles say nothing."""

MARGIN_FRAC: Final = 0.1
"""A short run that misses the attainment by more ends the deployment."""


@dataclass(slots=True)
class _Study:
    """One search: what was measured, by what was chosen."""

    question: Question
    space: Space
    requests: int
    with_pruning: bool
    full: dict[tuple[str, ...], Scored] = field(default_factory=dict)
    pruned: set[tuple[str, ...]] = field(default_factory=set)
    invalid: set[tuple[str, ...]] = field(default_factory=set)

    def suggest(self, trial: Any) -> dict[str, str]:
        return {
            key: trial.suggest_categorical(key, list(values))
            for key, values in self.space.axes.items()
        }

    def evaluate(self, values: Mapping[str, str]) -> Scored | None:
        """Measure, on short runs first; None if it is no deployment or was given up."""
        name = tuple(values.values())
        if name in self.full:
            return self.full[name]
        if name in self.pruned or name in self.invalid:
            return None
        candidate = self.space.candidate(values)
        if isinstance(candidate, ConfigError):
            self.invalid.add(name)
            return None
        if self.with_pruning and not self._survives(candidate):
            self.pruned.add(name)
            return None
        self.full[name] = self.question.score([candidate])[0]
        return self.full[name]

    def _survives(self, candidate: Candidate) -> bool:
        best = min(
            (each.candidate.num_npus for each in self.full.values() if each.is_within_slo),
            default=float("inf"),
        )
        if candidate.num_npus > best:
            return False
        for divisor in RUNGS:
            if self.requests // divisor < FEWEST_REQUESTS:
                continue
            short = (f"workload.num_requests={self.requests // divisor}",)
            scored = self.question.score([candidate], short)[0]
            if scored.probe.attainment_frac < self.question.attainment_frac - MARGIN_FRAC:
                return False
        return True

    def choice(self, method: str, runs: int, *, with_best: bool) -> Choice:
        ranked = sorted(self.full.values(), key=lambda each: each.rank)
        best = ranked[0] if ranked and ranked[0].is_within_slo and with_best else None
        return Choice(
            best=best,
            measured=tuple(ranked),
            method=method,
            space=len(self.space),
            skipped=len(self.pruned),
            invalid=len(self.invalid),
            runs=runs,
        )


def cheapest(question: Question, space: Space, trials: int) -> Choice:
    """TPE over NPUs with the SLO as a constraint, successive halving on shorter runs."""
    optuna = _optuna()
    study = _study_of(question, space, with_pruning=True)
    sampler = optuna.samplers.TPESampler(seed=question.measure.first_seed)

    def objective(trial: Any) -> float:
        scored = study.evaluate(study.suggest(trial))
        trial.set_constraint("missing_attainment_frac", _missing_frac(scored))
        if scored is None:
            raise optuna.TrialPruned
        return scored.candidate.num_npus

    optuna.create_study(sampler=sampler).optimize(objective, n_trials=trials)
    return study.choice("tpe", question.measure.runs, with_best=True)


def pareto(question: Question, space: Space, trials: int) -> Choice:
    """NSGA-II over throughput per NPU and speed per user."""
    optuna = _optuna()
    study = _study_of(question, space, with_pruning=False)
    sampler = optuna.samplers.NSGAIISampler(
        seed=question.measure.first_seed, population_size=max(4, min(24, trials // 4))
    )

    def objective(trial: Any) -> Sequence[float]:
        scored = study.evaluate(study.suggest(trial))
        if scored is None:
            raise optuna.TrialPruned
        return scored.tokens_per_s_per_npu, scored.tokens_per_s_per_user

    directions = ["maximize", "maximize"]
    optuna.create_study(directions=directions, sampler=sampler).optimize(objective, trials)
    return study.choice("nsga2", question.measure.runs, with_best=False)


def _study_of(question: Question, space: Space, *, with_pruning: bool) -> _Study:
    experiment = load_experiment(space.experiment, space.fixed)
    requests = experiment.document["workload"].get("num_requests")
    return _Study(question, space, int(requests or 0), with_pruning)


def _missing_frac(scored: Scored | None) -> float:
    """How much attainment is missing; at most 0 is within the SLO."""
    if scored is None:
        return 1.0
    missing = scored.attainment_frac - scored.probe.attainment_frac
    return max(missing, 0.01) if scored.probe.is_saturated else missing


def _optuna() -> Any:
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "more combinations than are looked at one by one: run pip install 'simpod[opt]', or"
            " give fewer values, or --exhaustive"
        )
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
