"""A search as one job: the highest rate of one variant under one seed."""

from dataclasses import dataclass

from simpod.config import load_experiment
from simpod.sweep.jobs import Job, Runner
from simpod.sweep.search.max_rate import RateSearch, RateTarget
from simpod.sweep.search.measure import Measure, rate_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleSearch:
    """What crosses a process border; one seed, so that variants can be paired seed by seed."""

    job: Job
    attainment_frac: float

    def rate_per_s(self) -> float | None:
        """Requests per second (of a trace: its scale); None if the SLO is out of reach."""
        experiment = load_experiment(self.job.experiment, self.job.overrides)
        key, start = rate_of(experiment)
        target = RateTarget(attainment_frac=self.attainment_frac, seeds=1, most_seeds=1)
        with Runner(1) as runner:
            measure = Measure(self.job.experiment, runner, experiment.seed)
            found = RateSearch(measure, key, target, self.job.overrides).run(start)
        return found.rate if found.status == "found" else None
