"""Impossible deployments fail before the run, with the numbers."""

import pytest

from simpod.config import load_experiment
from simpod.errors import ConfigError

DECODE = "{role: decode, dies: 64, dp: 64, ep: 64, max_num_seqs: 48}"
PREFILL = "{role: prefill, instances: 2, dies: 32, dp: 8, tp: 4, ep: 32}"


def experiment(pools, model="deepseek-r1", hardware="cloudmatrix384", more=""):
    listed = "\n".join(f"  {name}: {pool}" for name, pool in pools.items())
    return f"""\
model: {model}
hardware: {hardware}
workload:
  arrivals: {{process: poisson, rate_per_s: 2}}
  prompt_tokens: {{distribution: constant, value: 500}}
  output_tokens: {{distribution: constant, value: 50}}
  num_requests: 10
deployment:
{listed}
{more}
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(pools, *overrides, **other):
        (tmp_path / "exp.yaml").write_text(experiment(pools, **other))
        return load_experiment("exp.yaml", overrides)

    return load


@pytest.fixture
def problem_of(load):
    def problem(pools, *overrides, **other):
        with pytest.raises(ConfigError) as caught:
            load(pools, *overrides, **other)
        (only,) = caught.value.problems
        return only

    return problem


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("{tp: 4}", (4, 1, 4)),
        ("{dp: 4}", (4, 4, 1)),
        ("{dies: 8, tp: 4}", (8, 2, 4)),
        ("{dies: 8, dp: 8}", (8, 8, 1)),
        ("{dies: 8, dp: 2, tp: 4}", (8, 2, 4)),
        ("{dies: 1}", (1, 1, 1)),
        ("{}", (1, 1, 1)),
    ],
)
def test_dies_dp_and_tp_follow_from_each_other(load, pool, expected):
    got = load({"server": pool}, model="llama-3.1-8b", hardware="h100")
    layout = got.pools[0].layout
    assert (layout.dies, layout.dp, layout.tp) == expected
    in_document = got.document["deployment"]["server"]
    assert (in_document["dies"], in_document["dp"], in_document["tp"]) == expected


DOES_NOT_DIVIDE = [
    (
        "{dies: 8, dp: 2, tp: 2}",
        "dies: dp 2 x tp 2 = 4 does not match dies 8 (got 8); allowed: dies: 4",
    ),
    ("{dies: 8, tp: 3}", "dies: dies 8 is not a multiple of tp 3 (got 8)"),
    ("{dies: 8}", "dies: 8 dies can be split in more than one way (got 8); give dp"),
    (
        "{tp: 3}",
        "tp: tp 3 does not divide the 32 attention heads of llama-3.1-8b (got 3); allowed: 1,",
    ),
    ("{tp: 2, ep: 2}", "ep: llama-3.1-8b is dense, it has no experts (got 2); allowed: 1"),
    ("{tp: 2, mtp: {layers: 1}}", "mtp.layers: llama-3.1-8b has no MTP layers (got 1); allowed: 0"),
    (
        "{max_num_batched_tokens: 100, max_num_seqs: 128}",
        "max_step_tokens: max_step_tokens 100 must be at least max_num_seqs 128",
    ),
    (
        "{max_model_len: 200000}",
        "max_model_len: llama-3.1-8b was made for 131072 tokens (got 200000)",
    ),
    (
        "{kv_blocks: 10, max_model_len: 161}",
        "max_model_len: kv_blocks 10 x block_tokens 16 hold 160",
    ),
    (
        "{kv_blocks: 10000000}",
        "kv_blocks: 10000000 blocks of 16 tokens do not fit: weights 16.06 GB",
    ),
    ("{instances: 5, tp: 2}", "server 5 x 2 = 10 dies, and h100 has 8 (1 nodes x 8)"),
]


@pytest.mark.parametrize(("pool", "expected"), DOES_NOT_DIVIDE)
def test_what_does_not_go_together(problem_of, pool, expected):
    problem = problem_of({"server": pool}, model="llama-3.1-8b", hardware="h100")
    assert problem.startswith("exp.yaml:9:")
    assert f"deployment.server.{expected}" in problem or f"deployment.server: {expected}" in problem


@pytest.mark.parametrize(
    ("pool", "override", "expected"),
    [
        ("{dies: 1}", "tp=3", "tp: dies 1 is not a multiple of tp 3 (got 3)"),
        ("{dies: 4, tp: 2}", "dies=3", "dies: dies 3 is not a multiple of tp 2 (got 3)"),
        ("{dies: 4, dp: 2, tp: 2}", "dp=4", "dp: dp 4 x tp 2 = 8 does not match dies 4 (got 4)"),
        ("{tp: 1}", "max_num_seqs=9000", "max_num_seqs: max_step_tokens 8192 must be at least"),
    ],
)
def test_the_override_is_blamed_where_values_do_not_go_together(
    problem_of, pool, override, expected
):
    change = f"deployment.server.{override}"
    problem = problem_of({"server": pool}, change, model="llama-3.1-8b", hardware="h100")
    assert problem.startswith(f"--set {change}: deployment.server.{expected}")


STAGED = "{dies: 8, dp: 2, tp: 4, attention_parallelism: sp_tp_sp}"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("llama-3.1-8b", "its attention is gqa, without latents to gather"),
        ("deepseek-v2-lite", "its queries have no latent to gather"),
    ],
)
def test_stages_need_latents(problem_of, model, why):
    problem = problem_of({"server": STAGED}, model=model, hardware="h100")
    expected = f'attention_parallelism: sp_tp_sp with {model}: {why} (got "sp_tp_sp")'
    assert problem.startswith("exp.yaml:9:")
    assert f"deployment.server.{expected}; allowed: tensor" in problem


def test_an_unknown_attention_parallelism_is_refused(problem_of):
    problem = problem_of({"server": STAGED.replace("sp_tp_sp", "ring")}, model="deepseek-r1")
    assert 'attention_parallelism: unknown value (got "ring"); allowed: tensor, sp_tp_sp' in problem


def test_micro_batches_need_tokens_that_are_apart(load, problem_of):
    """One rank has all of its tokens on each die, unless it is staged."""
    alone = "{dies: 32, tp: 32, ep: 32, micro_batches: 2}"
    assert "micro_batches: micro-batches hide the exchange" in problem_of({"server": alone})
    staged = alone.replace("ep: 32", "ep: 32, attention_parallelism: sp_tp_sp")
    assert load({"server": staged}).pools[0].layout.is_staged


SPLIT = "{dies: 32, dp: 32, ep: 32, micro_batches: 2, attention_cores: 12}"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (
            ("attention_cores: 12", "attention_cores: 24"),
            "Ascend 910C die has 24 cores, and the stream of experts needs one",
        ),
        (("attention_cores: 12", "attention_cores: 0"), "too small (got 0)"),
        ((", micro_batches: 2", ""), "dies whose cores two streams split have micro_batches"),
        (("ep: 32", "expert_dies: 32"), "dies whose cores two streams split have micro_batches"),
    ],
)
def test_cores_are_split_where_a_die_has_two_streams(load, problem_of, change, wrong):
    assert load({"server": SPLIT}).pools[0].layout.attention_cores == 12
    problem = problem_of({"server": SPLIT.replace(*change)})
    assert f"server.attention_cores: {wrong}" in problem


SHARED = "workload.shared_prefix={num_prefixes: 2, tokens: 4096}"
TRACE = "workload={trace: {path: t.jsonl, format: mooncake}}"


@pytest.mark.parametrize(
    ("pool", "overrides", "expected"),
    [
        ("{block_tokens: 24}", [SHARED], "exp.yaml:9:26: deployment.server.block_tokens: "),
        ("{page_size: 24}", [SHARED], "exp.yaml:9:23: deployment.server.block_tokens: "),
        ("{}", [SHARED, "workload.hash_block_tokens=24"], "--set workload.hash_block_tokens=24: "),
        ("{}", [TRACE, "workload.trace.hash_block_tokens=24"], "--set workload.trace.hash_block"),
        ("{block_tokens: 48}", [TRACE], "exp.yaml:9:26: deployment.server.block_tokens: "),
        (
            "{block_tokens: 24}",
            ["workload.sessions={turns: {distribution: constant, value: 2},"
             " think_s: {distribution: constant, mean_s: 1}}"],
            "exp.yaml:9:26: ",
        ),
    ],
)  # fmt: skip
def test_prefix_blocks_and_kv_blocks_must_fit_each_other(
    problem_of, tmp_path, pool, overrides, expected
):
    (tmp_path / "t.jsonl").write_text("{}")
    one = {"model": "llama-3.1-8b", "hardware": "h100"}
    problem = problem_of({"server": pool}, *overrides, **one)
    assert problem.startswith(expected)
    assert "neither divides the other" in problem
    assert "prefix_caching: false" in problem


@pytest.mark.parametrize(
    ("pool", "overrides"),
    [
        ("{block_tokens: 24}", []),  # no identity
        ("{block_tokens: 24, prefix_caching: false}", [SHARED]),
        ("{block_tokens: 24, role: decode}", [SHARED]),
        ("{block_tokens: 64}", [SHARED]),
        ("{block_tokens: 8}", [SHARED]),
        ("{block_tokens: 16}", [TRACE]),
        ("{block_tokens: 1024}", [TRACE]),
    ],
)
def test_prefix_blocks_that_fit_or_do_not_matter(load, tmp_path, pool, overrides):
    (tmp_path / "t.jsonl").write_text("{}")
    got = load({"server": pool}, *overrides, model="llama-3.1-8b", hardware="h100")
    assert got.pools[0].name == "server"


def test_experts_need_a_divisor(problem_of):
    problem = problem_of({"decode": DECODE.replace("ep: 64", "ep: 48")})
    assert problem.startswith(
        "exp.yaml:9:48: deployment.decode.ep: ep 48 does not divide the 64 dies"
    )


def test_kv_heads_that_neither_divide_nor_repeat(problem_of):
    assert "neither divides" in problem_of(
        {"server": "{tp: 8}"},
        "model.attention.num_kv_heads=16",  # 24 ranks: neither 16 / 24 nor 24 / 16 is whole
        "model.attention.num_heads=48",
        "deployment.server.tp=24",
        model="qwen3-235b-a22b",
        hardware="h200-pod",
    )


def test_a_model_that_does_not_fit_shows_the_sum(problem_of):
    problem = problem_of(
        {"server": "{tp: 1, max_num_batched_tokens: 2048}"}, model="llama-3.1-70b", hardware="h100"
    )
    head = problem.splitlines()[0]
    assert head.startswith(
        "exp.yaml:9:3: deployment.server: does not fit in a die: weights 141.11 GB"
    )
    assert "(bf16) + buffers " in head
    assert "GB, of which memory_frac 0.9 leaves " in head
    parts = [
        float(word)
        for word in head.replace(",", "").split()
        if word.count(".") == 1 and word.replace(".", "").isdigit()
    ]
    weights, buffers, one, total, hbm, frac, usable = parts
    assert weights + buffers + one == pytest.approx(total, abs=0.02)
    assert hbm * frac == pytest.approx(usable, abs=0.02)
    assert total > usable


def test_one_sequence_of_max_model_len_must_fit(problem_of):
    pools = {"server": "{tp: 2, max_model_len: 40000, max_num_batched_tokens: 2048}"}
    assert "KV of one sequence of 40,000 tokens" in problem_of(
        pools, model="llama-3.1-70b", hardware="h100"
    )


def test_max_model_len_is_what_memory_holds_when_that_is_less(load):
    got = load({"server": "{tp: 1, memory_frac: 0.25}"}, model="llama-3.1-8b", hardware="h100")
    pool = got.pools[0]
    assert pool.max_model_len == pool.kv_blocks * pool.block_tokens < 131072
    assert "KV memory of one rank holds" in got.origins["deployment.server.max_model_len"]
    wide = load({"server": "{tp: 2}"}, model="llama-3.1-8b", hardware="h100")
    assert wide.pools[0].max_model_len == 131072
    assert wide.origins["deployment.server.max_model_len"] == (
        "derived: max_position_tokens of llama-3.1-8b"
    )


def test_dies_of_all_pools_share_the_pod(problem_of):
    problem = problem_of({"p": PREFILL.replace("instances: 2", "instances: 23"), "d": DECODE})
    assert "deployment: p 23 x 32 + d 1 x 64 = 800 dies, and cloudmatrix384 has 768" in problem


@pytest.mark.parametrize(
    "pools",
    [
        {"a": "{role: mixed}", "b": "{role: mixed}"},
        {"a": "{role: decode}", "b": "{role: mixed}"},
        {"a": "{role: prefill}", "b": "{role: prefill}"},
        {"a": "{role: prefill}", "b": "{role: decode}", "c": "{role: decode}"},
    ],
)
def test_roles_that_do_not_go_together(problem_of, pools):
    problem = problem_of(pools, model="llama-3.1-8b", hardware="h100")
    assert problem.startswith("exp.yaml:8:1: deployment: pools with the roles ")
    assert "allowed: one mixed pool; one prefill and one decode pool" in problem


def test_prefill_comes_first_and_gets_its_routers(load):
    got = load({"d": DECODE, "p": PREFILL})
    assert [pool.name for pool in got.pools] == ["p", "d"]
    assert got.is_disaggregated
    assert {key: ref.use for key, ref in got.policies.items()} == {
        "prefill_router": "least_tokens",
        "decode_router": "least_kv",
        "batching": "fcfs",
    }
    assert (got.kv_plane, got.first_token_from) == ("scale_up", "decode")
    assert got.origins["kv_transfer.plane"] == "derived: the fastest plane that joins the pools"


def test_one_pool_has_one_router_and_no_transfer(load, problem_of):
    got = load({"decode": DECODE})
    assert (got.kv_plane, got.is_disaggregated) == (None, False)
    assert {key: ref.use for key, ref in got.policies.items()} == {
        "router": "least_requests",
        "batching": "fcfs",
    }
    assert "there is one pool" in problem_of({"decode": DECODE}, "kv_transfer.plane=scale_up")


def test_links(load, problem_of):
    pools = {"p": "{role: prefill, tp: 2}", "d": "{role: decode, tp: 2}"}
    small = {"model": "llama-3.1-8b"}
    assert load(pools, hardware="h100", **small).kv_plane == "scale_up"  # inside one node
    assert load(pools, hardware="h100-pod", **small).kv_plane == "scale_out"
    assert (
        load(pools, "kv_transfer.plane=vpc", hardware="cloudmatrix384", **small).kv_plane == "vpc"
    )
    problem = problem_of(pools, "kv_transfer.plane=scale_up", hardware="h100-pod", **small)
    assert "kv_transfer.plane: no link between p (h100-pod) and d (h100-pod) on scale_up" in problem
    assert "allowed: scale_out" in problem


def test_pools_on_different_hardware(load, problem_of):
    pools = {"p": "{role: prefill, tp: 2, hardware: h100-pod}", "d": "{role: decode, tp: 2}"}
    got = load(pools, model="llama-3.1-8b")
    assert got.kv_plane == "scale_out"  # the scale-up fabrics of two pods are apart
    assert [profile.name for profile in got.hardware.values()] == ["h100-pod", "cloudmatrix384"]
    problem = problem_of(pools, "deployment.p.hardware=h100", "hardware=h200", model="llama-3.1-8b")
    assert "deployment: no link between p (h100) and d (h200): no plane of scope pod" in problem


def test_weights_take_the_type_that_the_die_computes_in(load):
    got = load({"decode": DECODE})
    assert got.pools[0].layout.weight_dtype == "int8"
    assert got.origins["deployment.decode.weight_dtype"] == (
        "derived: published in fp8, Ascend 910C die has int8 but no fp8"
    )
    explicit = load({"decode": DECODE}, "deployment.decode.weight_dtype=fp8")
    assert explicit.pools[0].layout.weight_dtype == "fp8"


def test_two_bad_pools_are_both_told(load):
    with pytest.raises(ConfigError) as caught:
        load({"p": PREFILL.replace("dp: 8", "dp: 9"), "d": DECODE.replace("ep: 64", "ep: 7")})
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "deployment.p.dies",
        "deployment.d.ep",
    ]
