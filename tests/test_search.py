"""Searches: the bracketing against laws whose answer is known, then against queueing theory."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import call, tiny

from simpod.config import load_experiment
from simpod.errors import ConfigError
from simpod.run.simulate import simulate
from simpod.sweep.jobs import Job, Runner
from simpod.sweep.search import deploy, opt
from simpod.sweep.search.choices import Candidate, in_words, num_npus, space_of
from simpod.sweep.search.curve import curve_rates, round_to
from simpod.sweep.search.deploy import Question, Scored, pareto_set
from simpod.sweep.search.max_rate import MaxRate, RateSearch, RateTarget, along
from simpod.sweep.search.measure import Figures, Measure, Probe, rate_of, require_slo
from simpod.sweep.search.single import SingleSearch

KEY = "workload.arrivals.rate_per_s"


def figures(attainment: float, **changes: Any) -> Figures:
    given: dict[str, Any] = {
        "attainment_frac": min(max(attainment, 0.0), 1.0),
        "is_saturated": False,
        "requests_per_s": 1.0,
        "tokens_per_s_per_npu": 1.0,
        "ttft_p99_ms": 1.0,
        "tpot_p99_ms": 1.0,
        "tpot_median_ms": 10.0,
        "capacity_rate_per_s": None,
        "num_npus": 1,
    }
    return Figures(**(given | changes))


@dataclass
class Law:
    """Stands for `Measure`: figures by a law of the settings and the seed, and a count of runs."""

    law: Callable[[dict[str, str], int], Figures]
    runs: int = 0
    first_seed: int = 0
    asked: list[float] = field(default_factory=list)

    def __call__(self, settings: Sequence[Sequence[str]], seeds: int) -> list[tuple[Figures, ...]]:
        values = [dict(text.split("=", 1) for text in setting) for setting in settings]
        self.asked += [float(each[KEY]) for each in values if KEY in each]
        self.runs += len(settings) * seeds
        return [tuple(self.law(each, seed) for seed in range(seeds)) for each in values]


def knee(at: float, steepness: float = 8.0, noise: float = 0.0) -> Law:
    """Attainment 1 - (rate / at)^steepness / 100: 0.99 exactly at `at`; noise is of the seed."""
    luck = np.random.default_rng(4).standard_normal(64)

    def law(values: dict[str, str], seed: int) -> Figures:
        missing = (float(values[KEY]) / at) ** steepness / 100
        ttft_ms = 10 * float(values[KEY]) / at
        return figures(1 - missing * math.exp(noise * luck[seed]), ttft_p99_ms=ttft_ms)

    return Law(law)


def searched(law: Law, start: float, **target: Any) -> MaxRate:
    given = {"tolerance_frac": 0.01, "seeds": 1, "most_seeds": 1}
    return RateSearch(law, KEY, RateTarget(**(given | target))).run(start)  # type: ignore[arg-type]


# --- highest rate ------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0.01, 1.0, 36.9, 37.0, 38.0, 4000.0])
def test_the_knee_is_found_from_anywhere(start: float) -> None:
    found = searched(knee(37.0), start)
    assert found.status == "found"
    assert found.rate == pytest.approx(37.0, rel=0.002)  # interpolated: better than the bracket
    assert found.low <= 37.0 <= found.high * (1 + 1e-12)
    assert math.log(found.high / found.low) <= 0.01
    assert found.runs <= 26


def test_the_capacity_of_a_run_shortens_the_way() -> None:
    blind, seeing = knee(37.0), knee(37.0)
    law = seeing.law

    def with_capacity(values: dict[str, str], seed: int) -> Figures:
        return figures(law(values, seed).attainment_frac, capacity_rate_per_s=40.0)

    seeing.law = with_capacity
    assert searched(seeing, 0.5).runs < searched(blind, 0.5).runs


def test_a_growing_backlog_is_never_within_the_slo() -> None:
    law = Law(lambda values, _: figures(1.0, is_saturated=float(values[KEY]) > 12.0))
    found = searched(law, 1.0)
    assert found.status == "found"
    assert found.low <= 12.0 <= found.high


def test_rates_out_of_reach() -> None:
    always = searched(Law(lambda *_: figures(1.0)), 1.0)
    assert (always.status, always.high) == ("always", math.inf)
    never = searched(Law(lambda *_: figures(0.5)), 1.0)
    assert (never.status, never.low) == ("never", 0.0)
    assert never.runs <= 3  # half the rate gains nothing: there is nothing to gain
    assert searched(Law(lambda *_: figures(0.0)), 1.0).runs <= 3


def test_a_curve_without_a_highest_rate_is_laid_around_the_capacity() -> None:
    target = RateTarget(tolerance_frac=0.01, seeds=1, most_seeds=1)
    hopeless = Law(lambda *_: figures(0.5, capacity_rate_per_s=10.0))
    rates = curve_rates(hopeless, KEY, target, ((), 4.0), 4)  # type: ignore[arg-type]
    assert rates == [4.0, 7.0, 10.0, 13.0]
    found = curve_rates(knee(10.0), KEY, target, ((), 4.0), 4)  # type: ignore[arg-type]
    assert found == pytest.approx(rates, rel=0.1)
    with pytest.raises(ConfigError, match="--rates"):
        curve_rates(Law(lambda *_: figures(0.5)), KEY, target, ((), 4.0), 4)  # type: ignore[arg-type]


def test_noise_adds_seeds_and_then_stops_the_bisection() -> None:
    """Missing shares differ by e^0.4 between seeds: one seed knows the knee to 0.4 / 8 = 5 %."""
    quiet = searched(knee(20.0, noise=0.01), 15.0, seeds=2, most_seeds=32)
    assert quiet.seeds == 2
    noisy = searched(knee(20.0, noise=0.4), 15.0, seeds=2, most_seeds=32)
    assert noisy.seeds > 4
    assert abs(noisy.rate / 20.0 - 1) < 4 * max(noisy.error_frac, 0.01)
    limited = searched(knee(20.0, noise=0.4), 15.0, seeds=4, most_seeds=4, tolerance_frac=0.001)
    assert limited.error_frac > 0.005
    assert math.log(limited.high / limited.low) > 0.003  # it does not follow the noise
    assert limited.runs < searched(knee(20.0), 15.0, seeds=4, most_seeds=4,
                                   tolerance_frac=0.001).runs  # fmt: skip


def test_a_warm_start_takes_fewer_runs() -> None:
    def law(values: dict[str, str], seed: int) -> Figures:
        at = {"a": 30.0, "b": 32.0, "c": 35.0}[values["x"]]
        return knee(at).law(values, seed)

    settings: list[tuple[str, ...]] = [("x=a",), ("x=b",), ("x=c",)]
    measure, target = Law(law), RateTarget(tolerance_frac=0.02, seeds=1, most_seeds=1)

    def search_at(setting: tuple[str, ...]) -> RateSearch:
        return RateSearch(measure, KEY, target, setting)  # type: ignore[arg-type]

    warm = along(search_at, settings, 0.5)
    assert [each.rate for each in warm] == pytest.approx([30.0, 32.0, 35.0], rel=0.01)
    cold = [search_at(setting).run(0.5) for setting in settings]
    assert sum(each.runs for each in warm[1:]) < 0.7 * sum(each.runs for each in cold[1:])


def test_a_probe_is_the_mean_of_its_seeds() -> None:
    probe = Probe(rate=1.0, by_seed=(figures(0.8), figures(1.0, is_saturated=True)))
    assert probe.attainment_frac == pytest.approx(0.9)
    assert probe.attainment_error_frac == pytest.approx(0.1)  # s = 0.1414, over sqrt(2)
    assert not probe.is_saturated
    assert probe.mean("capacity_rate_per_s") is None
    assert figures(1.0, tpot_median_ms=None).tokens_per_s_per_user == math.inf
    assert figures(1.0, tpot_median_ms=20.0).tokens_per_s_per_user == 50.0


def test_the_key_of_the_load(tmp_path: Path) -> None:
    file = str(tiny(tmp_path))
    assert rate_of(load_experiment(file)) == (KEY, 4.0)
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 60, "output_length": 5}\n')
    workload = f"workload={{trace: {{path: {trace}, format: mooncake, rate_scale: 2.0}}}}"
    assert rate_of(load_experiment(file, [workload])) == ("workload.trace.rate_scale", 2.0)
    closed = ["workload.arrivals={process: closed_loop, concurrency: 3}"]
    with pytest.raises(ConfigError, match="no rate to search"):
        rate_of(load_experiment(file, closed))
    with pytest.raises(ConfigError, match="no target"):
        require_slo(load_experiment(file, ["slo={}"]))


def test_the_same_run_is_made_once(tmp_path: Path) -> None:
    told: list[int] = []
    with Runner(1) as runner:
        measure = Measure(str(tiny(tmp_path)), runner, 3, lambda: told.append(1))
        first = measure([(f"{KEY}=2",), (f"{KEY}=3",), (f"{KEY}=2",)], 2)
        assert (measure.runs, len(told)) == (4, 4)
        assert first[0] == first[2] != first[1]
        assert measure([(f"{KEY}=2",)], 3)[0][:2] == first[0]
        assert measure.runs == 5


# --- queueing theory ---------------------------------------------------------------------------


def m_d_1(folder: Path) -> Path:
    """One slot, prompts of one length, one token out: Poisson arrivals, constant service."""
    return tiny(
        folder,
        ("{distribution: lognormal, mean: 300, cv: 1.0, max: 2000}",
         "{distribution: constant, value: 512}"),
        ("{distribution: uniform, min: 4, max: 40}", "{distribution: constant, value: 1}"),
        ("instances: 2, dies: 1, max_step_tokens: 1024",
         "dies: 1, max_num_seqs: 1, prefix_caching: false"),
    )  # fmt: skip


def service_s(file: Path) -> float:
    """Time of one request that is alone."""
    changes = ["workload.num_requests=1", "measure={warmup_frac: 0, drain_frac: 0}"]
    return float(simulate(load_experiment(str(file), changes))[1]["mean_ttft_ms"]) / 1e3


def waits_at_most(rate_per_s: float, wait_s: float, served_s: float) -> float:
    """P(wait <= t) in M/D/1 (Erlang 1909): (1 - rho) sum_k (-l (t - kD))^k / k! e^(l (t - kD))."""
    times = [rate_per_s * (wait_s - k * served_s) for k in range(int(wait_s / served_s) + 1)]
    terms = ((-x) ** k / math.factorial(k) * math.exp(x) for k, x in enumerate(times))
    return (1 - rate_per_s * served_s) * math.fsum(terms)


def knee_of_m_d_1(attainment: float, ttft_s: float, served_s: float) -> float:
    """The rate at which that share of requests waits no longer than the target leaves."""
    low, high = 1e-3 / served_s, 1 / served_s
    for _ in range(60):
        middle = (low + high) / 2
        within = waits_at_most(middle, ttft_s - served_s, served_s) >= attainment
        low, high = (middle, high) if within else (low, middle)
    return low


def test_the_formula_of_the_wait_by_hand() -> None:
    """P(wait = 0) = 1 - rho; at D: (1 - rho) e^rho."""
    assert waits_at_most(0.6, 0.0, 1.0) == pytest.approx(0.4)
    assert waits_at_most(0.6, 1.0, 1.0) == pytest.approx(0.4 * (math.exp(0.6) - 0.0))


def knee_error_frac(folder: Path, attainment: float, services: float, *options: object) -> float:
    """Answer of the command against theory, relative; the target is some services long."""
    file = m_d_1(folder)
    served_s = service_s(file)
    done = call(
        "search", file, "--max-rate", "--attainment", attainment, "--json", "-j", 1,
        "-s", f"slo={{ttft_s: {services * served_s}}}", *options,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    theory = knee_of_m_d_1(attainment, services * served_s, served_s)
    assert found["low"] * 0.98 <= found["max_rate"] <= found["high"] * 1.02
    error: float = found["max_rate"] / theory - 1
    assert abs(error) < 4 * max(found["error_frac"], 0.005)
    return error


@pytest.mark.slow
def test_the_knee_of_m_d_1_in_short_runs(tmp_path: Path) -> None:
    options = ("-s", "workload.num_requests=3000", "--seeds", 4, "--most-seeds", 4)
    assert abs(knee_error_frac(tmp_path, 0.9, 4.0, *options)) < 0.04


@pytest.mark.slow
@pytest.mark.parametrize(("attainment", "services"), [(0.99, 6.0), (0.9, 4.0), (0.99, 12.0)])
def test_the_knee_of_m_d_1_within_two_per_cent(
    attainment: float, services: float, tmp_path: Path
) -> None:
    options = ("-s", "workload.num_requests=20000", "--tolerance", 0.01)
    assert abs(knee_error_frac(tmp_path, attainment, services, *options)) < 0.02


# --- deployments -------------------------------------------------------------------------------


def by_size(values: dict[str, str], seed: int) -> Figures:
    """Serves with four instances, or with two that take large batches."""
    instances = int(values["deployment.server.instances"])
    slots = int(values.get("deployment.server.max_num_seqs", "8"))
    attained = 1.0 if instances * math.sqrt(slots) >= 11 else 0.5
    return figures(
        attained, tokens_per_s_per_npu=slots / instances, tpot_median_ms=10.0 * slots / instances
    )


CHOICES = [
    ("deployment.server.instances", ("1", "2", "3", "4", "8")),
    ("deployment.server.max_num_seqs", ("8", "32", "64")),
]


def asked(law: Law) -> Question:
    return Question(measure=law, fixed=(), attainment_frac=0.99, seeds=1)  # type: ignore[arg-type]


def test_the_cheapest_is_found_and_dearer_ones_are_not_run(tmp_path: Path) -> None:
    law = Law(by_size)
    choice = deploy.cheapest(asked(law), space_of(str(tiny(tmp_path)), (), CHOICES))
    assert choice.best is not None
    assert choice.best.candidate.values["deployment.server.instances"] == "2"
    assert choice.best.candidate.num_npus == 2
    assert (law.runs, choice.skipped, choice.space) == (6, 9, 15)


def test_nothing_serves(tmp_path: Path) -> None:
    law = Law(lambda *_: figures(0.2))
    choice = deploy.cheapest(asked(law), space_of(str(tiny(tmp_path)), (), CHOICES))
    assert choice.best is None
    assert choice.skipped == 0


def test_what_is_no_deployment_is_counted(tmp_path: Path) -> None:
    axes = [("deployment.server.tp", ("1", "3")), ("deployment.server.instances", ("1",))]
    space = space_of(str(tiny(tmp_path)), (), axes)
    candidates, errors = space.candidates()
    assert [each.values["deployment.server.tp"] for each in candidates] == ["1"]
    assert len(errors) == 1
    with pytest.raises(ConfigError, match="no combination is a deployment"):
        space_of(str(tiny(tmp_path)), (), [("deployment.server.tp", ("3",))]).candidates()
    with pytest.raises(ConfigError, match="a key twice"):
        space_of("x", (), [("a", ("1",)), ("a", ("2",))])


def test_npus_are_chips_not_dies() -> None:
    assert num_npus(load_experiment("quickstart")) == 64  # 2 x 32 + 64 dies, two on an NPU
    assert in_words({"a.tp": "1", "b.tp": "2", "c.n": "3"}) == "a.tp=1, b.tp=2, n=3"


def test_a_pareto_set_by_hand() -> None:
    def scored(per_npu: float, tpot_ms: float, **changes: Any) -> Scored:
        each = figures(1.0, tokens_per_s_per_npu=per_npu, tpot_median_ms=tpot_ms, **changes)
        probe = Probe(rate=math.nan, by_seed=(each,))
        candidate = Candidate(values={"p": str(per_npu)}, num_npus=1)
        return Scored(candidate=candidate, probe=probe, attainment_frac=0.9)

    points = [(5, 10), (9, 20), (8, 25), (12, 40), (5, 12), (12, 50)]
    measured = [scored(*point) for point in points] + [scored(99, 1, is_saturated=True)]
    assert [each.tokens_per_s_per_npu for each in pareto_set(measured)] == [5, 9, 12]


def test_tpe_finds_what_looking_at_all_finds(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs pip install 'simpod[opt]'")
    law = Law(by_size)
    space = space_of(str(tiny(tmp_path)), (), CHOICES)
    choice = opt.cheapest(asked(law), space, 40)
    assert choice.best is not None
    assert choice.best.candidate.num_npus == 2
    assert choice.method == "tpe"
    assert law.runs <= len(space)  # no deployment is measured twice


def test_short_runs_weed_out(tmp_path: Path) -> None:
    """With 3,600 requests the rungs are 400 and 1,200: what misses by far is not run whole."""
    pytest.importorskip("optuna", reason="needs pip install 'simpod[opt]'")
    file = str(tiny(tmp_path, ("num_requests: 40", "num_requests: 3600")))
    lengths: list[str] = []

    def law(values: dict[str, str], seed: int) -> Figures:
        lengths.append(values.get("workload.num_requests", "whole"))
        return by_size(values, seed)

    choice = opt.cheapest(asked(Law(law)), space_of(file, (), CHOICES), 40)
    assert choice.best is not None
    assert choice.best.candidate.num_npus == 2
    assert set(lengths) == {"400", "1200", "whole"}
    assert lengths.count("whole") < lengths.count("400")
    assert choice.skipped > 0


def test_nsga2_finds_the_front(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs pip install 'simpod[opt]'")
    space = space_of(str(tiny(tmp_path)), (), CHOICES)
    every = deploy.pareto(asked(Law(by_size)), space)
    found = opt.pareto(asked(Law(by_size)), space, 120)
    front = {each.tokens_per_s_per_npu for each in pareto_set(found.measured)}
    assert len(front & {each.tokens_per_s_per_npu for each in pareto_set(every.measured)}) >= 4


# --- the command -------------------------------------------------------------------------------

SHORT = ("-s", "workload.num_requests=150", "--seeds", 2, "-j", 1)


def test_a_search_along_a_key(tmp_path: Path) -> None:
    done = call(
        "search", tiny(tmp_path), "--along", "slo.ttft_s=0.1,0.5", "--attainment", 0.9,
        "--tolerance", 0.1, "--most-seeds", 2, "--json", *SHORT,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    tight, loose = found["answers"]
    assert (tight["slo.ttft_s"], tight["status"], loose["status"]) == ("0.1", "found", "found")
    assert tight["max_rate"] < loose["max_rate"]
    assert tight["low"] <= tight["max_rate"] <= tight["high"]


def test_an_slo_curve_falls(tmp_path: Path) -> None:
    file = tiny(tmp_path)
    done = call("search", file, "--curve", 4, "--attainment", 0.9, "--json", *SHORT)
    assert done.exit_code == 0, done.stderr
    points = json.loads(done.stdout)["points"]
    shares = [point["attainment_frac"] for point in points]
    assert len(points) == 4
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.9 > shares[-1]
    table = call("search", file, "--rates", "2,4", "--markdown", *SHORT)
    assert table.stdout.splitlines()[0].startswith("| rate_per_s | attainment_frac |")
    assert call("search", file, "--rates", "2,x", *SHORT).exit_code == 2
    assert round_to(123.456) == 123.0


def test_a_deployment_is_chosen(tmp_path: Path) -> None:
    done = call(
        "search", tiny(tmp_path), "--cheapest", "--rate", 50, "--attainment", 0.9,
        "--choose", "deployment.server.instances=1,2,3,4", "--json", *SHORT,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["best"]["num_npus"] == int(found["best"]["values"]["deployment.server.instances"])
    assert found["best"]["within_slo"]
    cheaper = [each for each in found["measured"] if each["num_npus"] < found["best"]["num_npus"]]
    assert cheaper
    assert not any(each["within_slo"] for each in cheaper)


def test_a_pareto_set_is_listed(tmp_path: Path) -> None:
    done = call(
        "search", tiny(tmp_path), "--pareto", "--choose", "workload.arrivals.rate_per_s=2,8,30",
        *SHORT,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "tokens/s/user" in done.stdout
    assert "3 of 3 combinations measured" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--cheapest",), ("--cheapest", "--pareto", "--choose", "a=1"), ("--curve", 1),
        ("--max-rate", "--cheapest"), ("-s", "slo={}"), ("--along", "x="),
        ("-s", "workload.arrivals={process: burst}"), ("--cheapest", "--choose", "a.b=1"),
    ],
)  # fmt: skip
def test_mistakes_come_before_the_first_run(options: tuple[object, ...], tmp_path: Path) -> None:
    assert call("search", tiny(tmp_path), *options).exit_code == 2


def test_one_search_as_a_job(tmp_path: Path) -> None:
    file = str(tiny(tmp_path))
    job = Job(experiment=file, overrides=("workload.num_requests=150", "seed=1"))
    rate = SingleSearch(job=job, attainment_frac=0.9).rate_per_s()
    assert rate is not None
    assert rate > 4
    hopeless = Job(experiment=file, overrides=("workload.num_requests=50", "slo={ttft_s: 1e-6}"))
    assert SingleSearch(job=hopeless, attainment_frac=0.9).rate_per_s() is None
