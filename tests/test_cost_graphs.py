"""Captured batches: which sizes there are, and what a padded step costs."""

from dataclasses import replace

import numpy as np
import pytest
from cost_examples import (
    GPU_NODES,
    LLAMA_70B,
    SMALL_MOE,
    add_prompts,
    decode_batch,
    ep_layout,
)

from simpod.config import load_experiment, load_hardware
from simpod.cost import Batch, Layout, StepPricer
from simpod.cost.graphs import (
    ANY_BATCH,
    ONE_GRAPH,
    SGLANG_GRAPHS,
    TRTLLM_GRAPHS,
    VLLM_GRAPHS,
)
from simpod.cost.launches import step_kernels, step_pieces
from simpod.cost.pricer import step_pricer
from simpod.cost.semantics import SEMANTICS
from simpod.errors import ConfigError
from simpod.records.columns import STEP_PARTS

ATTENTION, HOST_GAP = STEP_PARTS.index("attention"), STEP_PARTS.index("host_gap")
TP8 = Layout(dies=8, tp=8)


def test_sizes_of_engines():
    assert VLLM_GRAPHS.batches.all[:6].tolist() == [1, 2, 4, 8, 16, 24]
    assert VLLM_GRAPHS.batches.all[-3:].tolist() == [480, 496, 512]
    assert len(VLLM_GRAPHS.batches.all) == 3 + 31 + 17
    assert SGLANG_GRAPHS.batches.all[:7].tolist() == [1, 2, 4, 8, 12, 16, 24]
    assert TRTLLM_GRAPHS.batches.all[-5:].tolist() == [128, 256, 512, 1024, 2048]


@pytest.mark.parametrize("graphs", [VLLM_GRAPHS, SGLANG_GRAPHS, TRTLLM_GRAPHS])
def test_a_batch_runs_as_the_smallest_graph_that_holds_it(graphs):
    assert [graphs.batches.padded[n] for n in (1, 3, 4, 9, 128)] == [
        1,
        4,
        4,
        12 if graphs is SGLANG_GRAPHS else 16,
        128,
    ]
    for tokens in range(1, graphs.batches.most + 1):
        padded = graphs.batches.padded[tokens]
        assert padded >= tokens
        assert graphs.batches.padded[padded] == padded


def test_another_largest_batch_is_captured_too():
    few = VLLM_GRAPHS.up_to(37)
    assert few.batches.all.tolist() == [1, 2, 4, 8, 16, 24, 32, 37]
    assert few.batches.padded[33] == 37
    assert VLLM_GRAPHS.up_to(2048).batches.all[-1] == 2048


def parts(seqs, layout=TP8, model=LLAMA_70B, semantics="vllm-v1"):
    pricer = StepPricer(model, GPU_NODES, layout, semantics)
    return pricer.price(decode_batch(seqs, seqs * 500)).parts()


def test_padded_rows_cost_what_rows_cost_but_for_attention_head_and_sampling():
    """9 sequences run as 16: what is padded costs as 16 of them, attention as of 9."""
    names = ("projections", "ffn", "elementwise", "all_reduce")
    nine, sixteen = parts(9), parts(16)
    plain = replace(SEMANTICS["vllm-v1"], graphs=ANY_BATCH)
    unpadded = parts(9, semantics=plain)
    for name in names:
        index = STEP_PARTS.index(name)
        assert nine[index] == sixteen[index]
        assert unpadded[index] < nine[index]
    for name in ("attention", "head", "sampling"):
        index = STEP_PARTS.index(name)
        assert nine[index] == unpadded[index] < sixteen[index]


def test_ranks_in_lock_step_run_the_graph_of_the_fullest():
    layout = Layout(dies=4, dp=4, ep=4)
    pricer = StepPricer(SMALL_MOE, GPU_NODES, layout, "vllm-v1")

    def priced(*seqs):
        counts = np.array(seqs)
        return pricer.price(Batch.of(counts, 300 * counts))

    uneven, padded = priced(9, 0, 1, 3), priced(9, 9, 9, 9)
    assert uneven.base_s == pytest.approx(padded.base_s, rel=1e-12)
    assert uneven.attention_s < padded.attention_s  # the mean of ranks
    assert priced(16, 0, 0, 0).base_s > uneven.base_s  # more attention in the same graph
    assert uneven.rank_busy_s.argmax() == 0


def test_beyond_the_largest_graph_every_kernel_is_launched():
    semantics = replace(SEMANTICS["vllm-v1"], graphs=VLLM_GRAPHS.up_to(16), eager_launch_s=1e-3)
    pricer = StepPricer(LLAMA_70B, GPU_NODES, TP8, semantics)
    in_graph, beyond = (pricer.price(decode_batch(n, 500 * n)) for n in (16, 17))
    assert beyond.base_s == pytest.approx(pricer._eager_s, rel=1e-12)
    assert beyond.parts()[HOST_GAP] > 0.9 * beyond.base_s
    assert in_graph.base_s < 0.1 * beyond.base_s


def test_a_launch_does_not_grow_with_contexts():
    """What the host takes hides attention's growth: the next step has a price of its own."""
    semantics = replace(SEMANTICS["vllm-v1"], graphs=VLLM_GRAPHS.up_to(16), eager_launch_s=1e-3)
    pricer = StepPricer(LLAMA_70B, GPU_NODES, TP8, semantics)
    batch = decode_batch(17, 500 * 17)
    found = pricer.price(batch)
    later = pricer.price(replace(batch, gained_tokens=8))
    assert later.base_s == found.base_s
    assert found.linear_tokens() == 0


def test_graphs_of_requests_hold_all_of_their_drafts():
    """TensorRT-LLM: 9 requests of 4 tokens run as 16; vLLM: 36 tokens as 40."""
    assert TRTLLM_GRAPHS.padded_tokens(4)[36] == 64
    assert TRTLLM_GRAPHS.padded_tokens(4)[33] == 64  # nine requests, the last not with all
    assert len(TRTLLM_GRAPHS.padded_tokens(4)) == 4 * 2048 + 1
    assert VLLM_GRAPHS.padded_tokens(4)[36] == 40
    assert SGLANG_GRAPHS.padded_tokens(1) == SGLANG_GRAPHS.batches.padded
    drafts = Layout(dies=8, tp=8, mtp_layers=3, mtp_acceptance=0.5)
    fits, beyond = (
        StepPricer(LLAMA_70B, GPU_NODES, drafts, replace(trtllm, graphs=graphs)).price(
            decode_batch(16, 8000)
        )
        for trtllm in [replace(SEMANTICS["trtllm"], eager_launch_s=1e-3)]
        for graphs in (TRTLLM_GRAPHS.up_to(16), TRTLLM_GRAPHS.up_to(15))
    )
    assert fits.base_s < 0.1 * beyond.base_s


def prompt_s(tokens, semantics):
    batch = decode_batch(1, 500)
    batch.prefill_tokens[:] = batch.prefill_context[:] = tokens
    batch.prefill_pairs[:] = tokens * (tokens + 1) / 2
    batch.num_chunks[:] = 1
    return StepPricer(LLAMA_70B, GPU_NODES, TP8, semantics).price(batch).base_s


def test_vllm_runs_short_prompts_in_pieces():
    """Of 80 layers, a launch of each piece and of the two kernels of attention is left."""
    vllm = replace(SEMANTICS["vllm-v1"], eager_launch_s=1e-3)
    assert prompt_s(100, vllm) == pytest.approx(80 * 3 * 1e-3, rel=1e-9)
    assert prompt_s(600, vllm) > 3 * prompt_s(100, vllm)
    wider = replace(vllm, graphs=VLLM_GRAPHS.up_to(1024))
    assert prompt_s(600, wider) == pytest.approx(80 * 3 * 1e-3, rel=1e-9)
    sglang = replace(SEMANTICS["sglang"], eager_launch_s=1e-3)
    assert prompt_s(100, sglang) == prompt_s(50, sglang) > 3 * prompt_s(100, vllm)


def test_pieces_are_captured_where_they_are_asked_for():
    """As TensorRT-LLM's users do: powers of two up to 128 tokens, then every 256."""
    graphs = TRTLLM_GRAPHS.with_pieces(1100)
    assert graphs.prompts.all.tolist() == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1100]
    assert [graphs.prompts.padded[n] for n in (100, 200, 986, 1030)] == [128, 256, 1024, 1100]
    assert graphs.batches.padded == TRTLLM_GRAPHS.batches.padded
    trtllm = replace(SEMANTICS["trtllm"], eager_launch_s=1e-3, graphs=graphs)
    assert prompt_s(985, trtllm) == pytest.approx(80 * 3 * 1e-3, rel=1e-9)
    assert prompt_s(1100, trtllm) > 3 * prompt_s(985, trtllm)  # with a decode: 1,101 tokens
    free = replace(trtllm, eager_launch_s=0.0)
    assert prompt_s(900, free) == pytest.approx(prompt_s(1000, free), rel=0.02)
    assert prompt_s(900, replace(free, graphs=TRTLLM_GRAPHS)) < 0.97 * prompt_s(900, free)


def test_an_experiment_says_how_large_graphs_are():
    few = ["workload.num_requests=5", "engine.max_graph_tokens=64"]
    assert load_experiment("llama70b-h100-colocated", few).semantics.graphs.batches.most == 64
    each = load_experiment("quickstart", few).semantics.graphs
    assert each.batches.all.tolist() == list(range(1, 65))
    assert load_experiment("quickstart", few[:1]).semantics.graphs is ONE_GRAPH
    assert load_experiment("quickstart", few[:1]).semantics.graphs.batches is None
    alone = [few[0], "engine.max_piece_tokens=4096"]
    assert load_experiment("quickstart", alone).semantics.graphs.batches is None
    pieces = [*few, "engine.semantics=trtllm", "engine.max_piece_tokens=4096"]
    graphs = load_experiment("llama70b-h100-colocated", pieces).semantics.graphs
    assert (graphs.batches.most, graphs.prompts.most) == (64, 4096)


@pytest.mark.parametrize("name", ["cloudmatrix-infer-decode", "xdeepserve-disaggregated-768"])
def test_pipelined_decodes_have_no_largest_graph(name):
    with pytest.raises(ConfigError, match="decode steps with micro_batches or expert_dies"):
        load_experiment(name, ["engine.max_graph_tokens=64"])
    plain = ["deployment.decode.micro_batches=1", "engine.max_graph_tokens=64"]
    assert load_experiment("cloudmatrix-infer-decode", plain).semantics.graphs.batches.most == 64


@pytest.mark.parametrize("expert_dies", [0, 8])
def test_micro_batches_with_prompts_run_as_pieces_where_there_are_some(expert_dies):
    layout = ep_layout(8, micro_batches=2, expert_dies=expert_dies)
    slow = replace(SEMANTICS["vllm-v1"], eager_launch_s=1.0)
    pricer = step_pricer(SMALL_MOE, load_hardware("cloudmatrix384"), layout, slow)
    for tokens, launches in ((500, step_pieces(SMALL_MOE)), (600, step_kernels(SMALL_MOE, layout))):
        base_s = pricer.price(add_prompts(decode_batch([0] * 8, 0), tokens)).base_s
        assert 2 * launches <= base_s < 2 * launches + 1e-3


@pytest.mark.parametrize("semantics", ["vllm-v1", "flowserve"])
def test_without_graphs_every_step_is_launched(semantics):
    none = replace(SEMANTICS[semantics], graphs=ANY_BATCH.up_to(0), eager_launch_s=1e-3)
    pricer = StepPricer(LLAMA_70B, GPU_NODES, TP8, none)
    assert pricer.price(decode_batch(1, 500)).base_s == pytest.approx(pricer._eager_s, rel=1e-12)


@pytest.mark.parametrize(("micro_batches", "expert_dies"), [(1, 0), (2, 0), (2, 8)])
def test_on_ascend_prompts_are_launched_kernel_by_kernel(micro_batches, expert_dies):
    """xDeepServe 4.4: decodes are one graph, prompts operator by operator."""
    hardware = load_hardware("cloudmatrix384")
    layout = ep_layout(8, micro_batches=micro_batches, expert_dies=expert_dies)
    slow = replace(SEMANTICS["flowserve"], eager_launch_s=1.0)
    pricer = step_pricer(SMALL_MOE, hardware, layout, slow)
    decodes = decode_batch([40] * 8, 20_000)
    assert pricer.price(decodes).base_s < 1.0
    launches = micro_batches * step_kernels(SMALL_MOE, layout)
    for batch in (decodes.without_decodes(), decodes):
        prices = pricer.price(add_prompts(batch, 500))
        assert launches <= prices.base_s < launches + 1e-3
        assert prices.parts().sum() == pytest.approx(prices.base_s, rel=1e-9)
        assert prices.parts()[HOST_GAP] > 0.9 * launches


def masked(**changes):
    """One graph of 40 requests with a draft each, on eight dies with a rank each; launches beyond
    it take no time.
    """
    layout = ep_layout(8, mtp_layers=1, mtp_acceptance=0.5, max_num_seqs=40, **changes)
    return lambda graphs: step_pricer(
        SMALL_MOE,
        load_hardware("cloudmatrix384"),
        layout,
        replace(SEMANTICS["flowserve"], graphs=graphs, eager_launch_s=0.0),
    )


SENT = [STEP_PARTS.index(name) for name in ("dispatch", "experts", "combine", "head", "attention")]


def test_one_graph_holds_all_that_a_rank_decodes():
    graphs = ONE_GRAPH.of_rank(40)
    assert graphs.padded_tokens(2)[1:4] == [80, 80, 80]
    assert len(graphs.padded_tokens(2)) == 81
    assert ONE_GRAPH.of_rank(0).padded_tokens(2) is None
    assert VLLM_GRAPHS.of_rank(40) is VLLM_GRAPHS
    assert graphs.of_any_size().padded_tokens(2) is None
    assert [graphs.of_sizes((8, 40)).rows(2 * n, 2) for n in (8, 9, 41)] == [16, 80, 82]


def test_masked_dummies_are_neither_sent_nor_given_to_experts():
    """Ranks with 3, 9 and no sequences in a graph of 40: products and passes of 80 tokens."""
    pricer = masked()
    batch = decode_batch([3, 9, 0, 0, 0, 0, 0, 0], 5_000)
    found, plain = (pricer(graphs).price(batch) for graphs in (ONE_GRAPH, ANY_BATCH))
    full = pricer(ONE_GRAPH).price(decode_batch([40] * 8, 20_000))
    for name in ("projections", "elementwise"):
        index = STEP_PARTS.index(name)
        assert found.parts()[index] == full.parts()[index] > plain.parts()[index]
    for index in SENT:
        assert found.parts()[index] == plain.parts()[index] < full.parts()[index]
    assert plain.base_s < found.base_s < full.base_s
    assert found.parts().sum() == pytest.approx(found.base_s, rel=1e-9)


@pytest.mark.parametrize("changes", [{}, {"micro_batches": 2}, {"micro_batches": 3}])
@pytest.mark.parametrize("expert_dies", [0, 8])
def test_a_full_batch_costs_the_same_in_its_graph(changes, expert_dies):
    """And an emptier one more than by itself, the more the larger the graph."""
    pricer = masked(expert_dies=expert_dies, **changes)
    full, few = decode_batch([40] * 8, 20_000), decode_batch([5] * 8, 20_000)
    one, any_size = pricer(ONE_GRAPH), pricer(ANY_BATCH)
    assert one.price(full).base_s == pytest.approx(any_size.price(full).base_s, rel=1e-12)
    graded = pricer(ONE_GRAPH.of_sizes((16, 40)))
    assert (
        any_size.price(few).base_s
        < graded.price(few).base_s
        < one.price(few).base_s
        < one.price(full).base_s
    )
    exact = pricer(ONE_GRAPH.of_sizes((5, 40)))
    assert exact.price(few).base_s == pytest.approx(any_size.price(few).base_s, rel=1e-12)


def test_small_batches_of_micro_batched_pools_have_a_graph_of_their_own():
    """Up to 24 tokens of a rank go as one batch: its graph holds 12 sequences."""
    pricer = masked(micro_batches=2, micro_batch_tokens=24)(ONE_GRAPH)
    few, most, more = (pricer.of(decode_batch([n] * 8, 5_000)) for n in (3, 12, 13))
    assert few is most is not more
    alone = masked()(ONE_GRAPH.of_sizes((12,)))
    batch = decode_batch([3] * 8, 5_000)
    assert pricer.price(batch).base_s == alone.price(batch).base_s


@pytest.mark.parametrize("changes", [{}, {"micro_batches": 2}, {"expert_dies": 8}])
def test_prompts_beside_decodes_leave_the_graph(changes):
    pricer = masked(**changes)
    batch = add_prompts(decode_batch([3] * 8, 5_000), 100)
    found, plain = (pricer(graphs).price(batch) for graphs in (ONE_GRAPH, ANY_BATCH))
    assert found.base_s == plain.base_s
    assert found.parts().tolist() == plain.parts().tolist()


@pytest.mark.parametrize("changes", [{}, {"micro_batches": 2}, {"expert_dies": 8}])
def test_unpadded_ranks_run_what_they_have(changes):
    """60 short sequences on one rank and 4 long ones on the others: none waits for dummies."""
    graphs = replace(ANY_BATCH, masks_dummies=False)
    batch = decode_batch([60] + [4] * 7, [1_000] + [120_000] * 7)
    masked_or_not = (masked(**changes)(each).price(batch) for each in (ANY_BATCH, graphs))
    first, second = masked_or_not
    assert first.base_s == second.base_s
    assert first.parts().tolist() == second.parts().tolist()


@pytest.mark.parametrize("changes", [{"micro_batches": 2}, {"expert_dies": 8}])
def test_micro_batches_with_dummies_that_are_sent_are_not_padded(changes):
    """As with vLLM: of their own sizes."""
    batch = decode_batch([9] * 8, 5_000)
    found, plain = (masked(**changes)(each).price(batch) for each in (VLLM_GRAPHS, ANY_BATCH))
    assert found.base_s == plain.base_s


def test_one_rank_gives_its_dummies_to_no_expert_either():
    layout = Layout(dies=8, tp=8, ep=8, weight_dtype="int8", max_num_seqs=40)
    hardware = load_hardware("cloudmatrix384")
    found, plain = (
        StepPricer(SMALL_MOE, hardware, layout, replace(SEMANTICS["flowserve"], graphs=graphs))
        .price(decode_batch(3, 5_000))
        .parts()
        for graphs in (ONE_GRAPH, ANY_BATCH)
    )
    for name in ("experts", "head", "attention"):
        assert found[STEP_PARTS.index(name)] == plain[STEP_PARTS.index(name)]
    for name in ("projections", "elementwise"):
        assert found[STEP_PARTS.index(name)] > plain[STEP_PARTS.index(name)]


SIZES = "engine.graph_batch_sizes="


def test_an_experiment_says_which_graphs_there_are():
    few = ["workload.num_requests=5"]
    graphs = load_experiment("quickstart", [*few, f"{SIZES}[16, 8]"]).semantics.graphs
    assert graphs.batches.all.tolist() == [8, 16]
    any_size = load_experiment("quickstart", [*few, f"{SIZES}any"]).semantics.graphs
    assert any_size == replace(ANY_BATCH, source=ONE_GRAPH.source)
    unpadded = load_experiment("llama70b-h100-colocated", [*few, f"{SIZES}any"]).semantics.graphs
    assert (unpadded.batches, unpadded.prompts) == (None, VLLM_GRAPHS.prompts)
    vllm = load_experiment("llama70b-h100-colocated", [*few, f"{SIZES}[16, 8]"]).semantics.graphs
    assert [vllm.batches.padded[n] for n in (7, 9)] == [8, 16]


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("quickstart", f"{SIZES}[0]", "too small"),
        ("quickstart", f"{SIZES}[]", "at least one entry"),
        ("quickstart", f"{SIZES}[2000000]", "too large"),
        ("quickstart", f"{SIZES}all", "allowed: any, or a list"),
        ("cloudmatrix-infer-decode", f"{SIZES}[8, 16]", "a last size of at least 48"),
    ],
)
def test_sizes_that_cannot_be(name, change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_experiment(name, [change])


def test_sizes_are_said_once():
    both = [f"{SIZES}[8]", "engine.max_graph_tokens=8"]
    with pytest.raises(ConfigError, match="max_graph_tokens says it"):
        load_experiment("quickstart", both)
    with pytest.raises(ConfigError, match="with vllm-v1 decode steps with micro_batches"):
        load_experiment("cloudmatrix-infer-decode", ["engine.semantics=vllm-v1", f"{SIZES}[48]"])
