"""The cheapest deployment that serves a rate within the SLO, and Pareto sets.

Cost is the number of NPUs, known before a run. Where the space is small, deployments are measured
from the cheapest on, whole cost classes at a time, until one serves the load: that one is optimal
and dearer ones need no run. Larger spaces go to `opt`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simpod.sweep.search.choices import Candidate, Space
from simpod.sweep.search.measure import Figures, Measure, Overrides, Probe

SMALL_SPACE: Final = 256
"""Combinations up to which all are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A measured deployment."""

    candidate: Candidate
    probe: Probe
    attainment_frac: float  # that was asked for

    @property
    def is_within_slo(self) -> bool:
        """It serves the load: attainment as asked, and no growing backlog."""
        return not self.probe.is_saturated and self.probe.attainment_frac >= self.attainment_frac

    @property
    def tokens_per_s_per_npu(self) -> float:
        """Output tokens per second and NPU."""
        return self.probe.mean("tokens_per_s_per_npu") or 0.0

    @property
    def tokens_per_s_per_user(self) -> float:
        """1 / median TPOT, mean over seeds."""
        return self.probe.mean("tokens_per_s_per_user") or 0.0

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Order of the cheapest: within the SLO, then NPUs, then attainment."""
        return (not self.is_within_slo, self.candidate.num_npus, -self.probe.attainment_frac)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The answer, and all that was measured for it, the best first.

    best: None if nothing serves the load.
    method: exhaustive, tpe or nsga2; skipped: dearer or pruned deployments that were not measured
    at full length; invalid: combinations that are no deployment.
    """

    best: Scored | None
    measured: tuple[Scored, ...]
    method: str
    space: int
    skipped: int
    invalid: int
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a deployment is measured for."""

    measure: Measure
    fixed: Overrides
    attainment_frac: float
    seeds: int

    def score(self, candidates: Sequence[Candidate], extra: Overrides = ()) -> list[Scored]:
        """Measure deployments, all at once."""
        settings = [(*self.fixed, *each.overrides, *extra) for each in candidates]
        found: list[tuple[Figures, ...]] = self.measure(settings, self.seeds)
        return [
            Scored(
                candidate=candidate,
                probe=Probe(rate=math.nan, by_seed=by_seed),
                attainment_frac=self.attainment_frac,
            )
            for candidate, by_seed in zip(candidates, found, strict=True)
        ]


def cheapest(question: Question, space: Space) -> Choice:
    """The fewest NPUs that serve the load; of equals the one with the highest attainment."""
    candidates, errors = space.candidates()
    measured: list[Scored] = []
    for cost in sorted({each.num_npus for each in candidates}):
        measured += question.score([each for each in candidates if each.num_npus == cost])
        if any(each.is_within_slo for each in measured):
            break
    ranked = sorted(measured, key=lambda each: each.rank)
    return Choice(
        best=ranked[0] if ranked[0].is_within_slo else None,
        measured=tuple(ranked),
        method="exhaustive",
        space=len(space),
        skipped=len(candidates) - len(measured),
        invalid=len(errors),
        runs=question.measure.runs,
    )


def pareto(question: Question, space: Space) -> Choice:
    """Every deployment measured; `pareto_set` of it is the answer."""
    candidates, errors = space.candidates()
    measured = question.score(candidates)
    return Choice(
        best=None,
        measured=tuple(sorted(measured, key=lambda each: -each.tokens_per_s_per_user)),
        method="exhaustive",
        space=len(space),
        skipped=0,
        invalid=len(errors),
        runs=question.measure.runs,
    )


def pareto_set(measured: Sequence[Scored]) -> list[Scored]:
    """Those that no other beats in both throughput per NPU and speed per user, the fastest first.

    A deployment with a growing backlog serves nobody at its speed and is left out.
    """
    front: list[Scored] = []
    order = sorted(
        (each for each in measured if not each.probe.is_saturated),
        key=lambda each: (-each.tokens_per_s_per_user, -each.tokens_per_s_per_npu),
    )
    for each in order:
        if not front or each.tokens_per_s_per_npu > front[-1].tokens_per_s_per_npu:
            front.append(each)
    return front
