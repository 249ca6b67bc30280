"""Mistakes in an experiment: each with its place, its value and what is allowed, all at once."""

import pytest

from simpod.config import load_experiment, load_model
from simpod.config.nodes import Place
from simpod.config.problems import Problem
from simpod.errors import ConfigError

GOOD = """\
name: tiny
model: llama-3.1-8b
hardware: h100
workload:
  arrivals: {process: poisson, rate_per_s: 2}
  prompt_tokens: {distribution: constant, value: 500}
  output_tokens: {distribution: constant, value: 50}
  num_requests: 10
deployment:
  server: {tp: 2, max_num_seqs: 64}
policies: {batching: fcfs}
slo: {ttft_s: 1.0}
"""


@pytest.fixture
def problems_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, *overrides):
        (tmp_path / "exp.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_experiment("exp.yaml", overrides)
        assert caught.value.exit_code == 2
        return caught.value.problems

    return load


def replaced(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_good_one_is_good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp.yaml").write_text(GOOD)
    assert load_experiment("exp.yaml").name == "tiny"


ONE_MISTAKE = {
    "misspelt key": (
        ("rate_per_s: 2", "rate_per_sec: 2"),
        "exp.yaml:5:32: workload.arrivals.rate_per_sec: unknown key (got 2); allowed: process,"
        ' rate_per_s; did you mean "rate_per_s"?\n'
        "      arrivals: {process: poisson, rate_per_sec: 2}\n"
        "                                   ^",
    ),
    "wrong type": (
        ("num_requests: 10", 'num_requests: "10"'),
        'exp.yaml:8:17: workload.num_requests: wrong type (got "10"); allowed: an integer\n'
        '      num_requests: "10"\n'
        "                    ^",
    ),
    "a fraction of a request": (
        ("num_requests: 10", "num_requests: 10.5"),
        "exp.yaml:8:17: workload.num_requests: wrong type (got 10.5); allowed: an integer\n"
        "      num_requests: 10.5\n"
        "                    ^",
    ),
    "NaN": (
        ("rate_per_s: 2", "rate_per_s: .nan"),
        "exp.yaml:5:44: workload.arrivals.rate_per_s: not a finite number (got NaN);"
        " allowed: a finite number\n"
        "      arrivals: {process: poisson, rate_per_s: .nan}\n"
        "                                               ^",
    ),
    "infinite": (
        ("ttft_s: 1.0", "ttft_s: .inf"),
        "exp.yaml:12:15: slo.ttft_s: not a finite number (got Infinity); allowed: a finite number\n"
        "    slo: {ttft_s: .inf}\n"
        "                  ^",
    ),
    "negative": (
        ("value: 50}", "value: -50}"),
        "exp.yaml:7:50: workload.output_tokens.value: too small (got -50); allowed: a number >= 1\n"
        "      output_tokens: {distribution: constant, value: -50}\n"
        "                                                     ^",
    ),
    "unknown choice": (
        ("process: poisson", "process: poison"),
        'exp.yaml:5:23: workload.arrivals.process: unknown value (got "poison"); allowed: constant,'
        ' poisson, gamma, weibull, mmpp, diurnal, closed_loop, burst; did you mean "poisson"?\n'
        "      arrivals: {process: poison, rate_per_s: 2}\n"
        "                          ^",
    ),
    "no choice": (
        ("process: poisson, ", ""),
        'exp.yaml:5:3: workload.arrivals.process: missing key "process"; allowed: constant,'
        " poisson, gamma, weibull, mmpp, diurnal, closed_loop, burst\n"
        "      arrivals: {rate_per_s: 2}\n"
        "      ^",
    ),
    "yes is a word": (
        ("max_num_seqs: 64", "prefix_caching: yes"),
        'exp.yaml:10:35: deployment.server.prefix_caching: wrong type (got "yes"); allowed: true or'
        " false\n"
        "      server: {tp: 2, prefix_caching: yes}\n"
        "                                      ^",
    ),
    "missing key": (
        ("hardware: h100\n", ""),
        'exp.yaml:1:1: hardware: missing key "hardware"\n    name: tiny\n    ^',
    ),
    "value for a section": (
        ("  server: {tp: 2, max_num_seqs: 64}", "  server: 3"),
        "exp.yaml:10:11: deployment.server: wrong type (got 3); allowed: a mapping (key: value)\n"
        "      server: 3\n"
        "              ^",
    ),
    "pool name": (
        ("  server: {", "  my.server: {"),
        "exp.yaml:10:3: deployment.my.server: not a name; allowed: names of letters, digits",
    ),
    "unknown model": (
        ("llama-3.1-8b", "lama-3.1-8b"),
        'exp.yaml:2:8: model: unknown model "lama-3.1-8b"; did you mean "llama-3.1-8b"?; allowed: ',
    ),
    "unknown hardware": (
        ("hardware: h100", "hardware: h1000"),
        'exp.yaml:3:11: hardware: unknown hardware profile "h1000"; did you mean "h100"?; allowed',
    ),
    "unknown policy": (
        ("batching: fcfs", "batching: fcsf"),
        'exp.yaml:11:22: policies.batching.use: unknown batching policy "fcsf"; did you mean',
    ),
    "unknown policy parameter": (
        ("batching: fcfs", "batching: {use: prefill_first, chunk: 3}"),
        'exp.yaml:11:43: policies.batching.chunk: prefill_first has no parameter "chunk"',
    ),
    "misspelt policy key": (
        ("batching: fcfs", "bathcing: fcfs"),
        'exp.yaml:11:12: policies.bathcing: unknown key (got "fcfs"); allowed: router,'
        " prefill_router, prefill_leader, decode_router, batching, admission, length_predictor,"
        " prefix_eviction, migration, experts, scaling;"
        ' did you mean "batching"?',
    ),
    "policy that nobody asks": (
        ("batching: fcfs", "decode_router: least_kv"),
        "exp.yaml:11:12: policies.decode_router: is not used with one pool; allowed: router, batch",
    ),
    "unknown preset": (
        ("{ttft_s: 1.0}", "mlperf/deepseek-r1"),
        'exp.yaml:12:6: slo: unknown preset (got "mlperf/deepseek-r1"); allowed: ttft_s,',
    ),
    "two fields that do not go together": (
        ("slo: {", "measure: {warmup_frac: 0.5, drain_frac: 0.5}\nslo: {"),
        "exp.yaml:12:1: measure: warmup_frac 0.5 + drain_frac 0.5 = 1: must be below 1",
    ),
    "a key of vLLM that is not modelled": (
        ("max_num_seqs: 64", "pipeline_parallel_size: 2"),
        "pipeline parallelism is not modelled",
    ),
    "an alias, misspelt": (
        ("max_num_seqs: 64", "max_num_batched_token: 64"),
        'did you mean "max_num_batched_tokens"?',
    ),
    "an alias, wrong": (
        ("max_num_seqs: 64", "gpu_memory_utilization: 1.5"),
        "exp.yaml:10:43: deployment.server.gpu_memory_utilization: too large (got 1.5); allowed: a"
        " number <= 1",
    ),
    "an alias and its name": (
        ("tp: 2", "tp: 2, tensor_parallel_size: 2"),
        'exp.yaml:10:19: deployment.server.tensor_parallel_size: "tensor_parallel_size" and "tp"'
        " (line 10) are the same setting; keep one",
    ),
    "no pool": (
        ("  server: {tp: 2, max_num_seqs: 64}", "  {}"),
        "exp.yaml:9:1: deployment: empty; allowed: at least one entry",
    ),
    "no name": (("name: tiny", 'name: ""'), 'exp.yaml:1:7: name: empty (got ""); allowed: text'),
    "duplicate key": (
        ("hardware: h100", "hardware: h100\nmodel: qwen3-32b"),
        'exp.yaml:4:1: duplicate key "model"; it stands at line 2, column 1 already',
    ),
}


@pytest.mark.parametrize("case", ONE_MISTAKE)
def test_one_mistake_one_message(problems_of, case):
    change, expected = ONE_MISTAKE[case]
    problems = problems_of(replaced(*change))
    assert len(problems) == 1, problems
    assert expected in problems[0]
    if expected.endswith("^"):
        assert problems[0] == expected


def keys_of(problems):
    return [problem.split(": ")[1] for problem in problems]


@pytest.mark.parametrize(
    ("arrivals", "keys"),
    [
        ("{process: poison, rate_per_s: -1}", ["process", "rate_per_s"]),
        ("{process: poison, rate_per_sec: 1}", ["process", "rate_per_sec"]),
        ("{process: gama, rate_per_s: 1}", ["cv", "process"]),  # cv is missing: told at the section
        ("{process: x, rate_per_s: -1, cv: 5}", ["process", "rate_per_s"]),
        ("{process: x, rate: 1}", ["process"]),  # nobody knows what is meant
        ("{rate_per_s: .nan}", ["process", "rate_per_s"]),
        ("{process: 7, states: [{rate_per_s: -1}]}", ["process", "states", "states.0.rate_per_s"]),
    ],
)
def test_an_unknown_tag_hides_no_mistake_beside_it(problems_of, arrivals, keys):
    text = replaced("{process: poisson, rate_per_s: 2}", arrivals)
    problems = problems_of(text.replace("max_num_seqs: 64", "max_num_seqs: 0"))
    found = [key.removeprefix("workload.arrivals.") for key in keys_of(problems)]
    assert found == [*keys, "deployment.server.max_num_seqs"]


def test_two_unknown_tags(problems_of):
    text = replaced("process: poisson, rate_per_s: 2", "process: poison, rate_per_s: 0")
    text = text.replace("constant, value: 500}", "constnt, value: 0}")
    assert keys_of(problems_of(text)) == [
        "workload.arrivals.process",
        "workload.arrivals.rate_per_s",
        "workload.prompt_tokens.distribution",
        "workload.prompt_tokens.value",
    ]


def test_duplicate_keys_hide_no_other_mistake(problems_of):
    text = replaced("hardware: h100", "hardware: h100\nhardware: h1000").replace("fcfs", "fcsf")
    problems = problems_of(text.replace("value: 500}", "value: 5, value: -5}"), "seed=-1")
    assert [problem.splitlines()[0].split("; ")[0] for problem in problems] == [
        'exp.yaml:4:1: duplicate key "hardware"',
        'exp.yaml:7:53: duplicate key "value"',
        'exp.yaml:12:22: policies.batching.use: unknown batching policy "fcsf"',
        "--set seed=-1: seed: too small (got -1)",
    ]


def test_what_cannot_be_read_is_told_once_and_beside_the_rest(problems_of):
    text = replaced("num_requests: 10", "num_requests: !!int ten").replace("tp: 2", "2: tp")
    problems = problems_of(text.replace("rate_per_s: 2", "rate_per_s: -2"))
    assert [problem.splitlines()[0].split(": ", 1)[1][:24] for problem in problems] == [
        "workload.arrivals.rate_per_s"[:24],
        "'ten' is not of type int",
        "a key must be text: writ",
    ]


def test_duplicate_keys_in_a_model_file_hide_nothing(problems_of, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: a\nname: b\nhidden_size: 0\n")
    heads = [
        p.splitlines()[0] for p in problems_of(replaced("llama-3.1-8b", "./mine.yaml"), "seed=x")
    ]
    assert 'mine.yaml:2:1: duplicate key "name"; it stands at line 1, column 1 already' in heads
    assert any("model.hidden_size: too small" in head for head in heads)
    assert any("seed: wrong type" in head for head in heads)
    with pytest.raises(ConfigError) as caught:
        load_model(str(tmp_path / "mine.yaml"))
    assert any("duplicate key" in problem for problem in caught.value.problems)
    assert any("hidden_size: too small" in problem for problem in caught.value.problems)


def test_all_mistakes_at_once_in_order_of_lines(problems_of):
    text = (
        replaced("llama-3.1-8b", "llama").replace("tp: 2", "tp: 0, dq: 1").replace("fcfs", "lifo")
    )
    problems = problems_of(text.replace("rate_per_s: 2", "rate_per_s: -2"))
    assert [problem.split(": ")[1] for problem in problems] == [
        "model",
        "workload.arrivals.rate_per_s",
        "deployment.server.tp",
        "deployment.server.dq",
        "policies.batching.use",
    ]


@pytest.mark.parametrize("text", ["", "- 1\n", "word\n", "# only a comment\n"])
def test_not_an_experiment(problems_of, text):
    (problem,) = problems_of(text)
    assert "an experiment is a mapping of keys" in problem


def test_missing_experiment_file_and_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r'experiment file "none\.yaml" not found'):
        load_experiment("none.yaml")
    with pytest.raises(
        ConfigError, match='unknown experiment "quickstrt"; did you mean "quickstart"'
    ):
        load_experiment("quickstrt")


def test_missing_trace_says_how_to_give_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_experiment("mooncake-conversation")
    (problem,) = caught.value.problems
    assert 'workload.trace.path: file "conversation_trace.jsonl" not found (looked at ' in problem
    assert str(tmp_path / "conversation_trace.jsonl") in problem
    assert "give it with --set workload.trace.path=FILE" in problem


def test_mistake_in_a_model_file_is_told_at_its_own_line(problems_of, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nhidden_size: 0\n")
    problems = problems_of(replaced("llama-3.1-8b", "./mine.yaml"))
    assert "mine.yaml:2:14: model.hidden_size: too small (got 0); allowed: a number >= 1" in (
        problem.splitlines()[0] for problem in problems
    )
    assert any('model.attention: missing key "attention"' in problem for problem in problems)


def test_syntax_error_in_a_profile(problems_of, tmp_path):
    (tmp_path / "mine.yaml").write_text("die: [\n")
    (problem,) = problems_of(replaced("hardware: h100", "hardware: mine.yaml"))
    assert problem.startswith("exp.yaml:3:11: hardware: mine.yaml:2:1: not YAML")


def test_refused_model_config_says_where_it_is_named(problems_of, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama",')
    (problem,) = problems_of(replaced("llama-3.1-8b", "./config.json"))
    assert problem.startswith("exp.yaml:2:8: model: ")
    assert "config.json:1:" in problem


def test_tabs_in_the_line_do_not_move_the_caret():
    problem = Problem(place=Place("x.yaml", 1, 3, "\t\tkey"), key="key", what="wrong")
    _, line, caret = str(problem).splitlines()
    assert line[caret.index("^")] == "k"
    assert "\t" not in line


def test_long_values_are_cut():
    (head,) = str(Problem(place=Place("x"), key="k", what="w", got="v" * 500)).splitlines()
    assert len(head) < 110
    assert head.endswith("...)")
