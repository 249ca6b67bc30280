"""Tables of prices: the values at their points, lines between, the same however they grew."""

import numpy as np
import pytest
from cost_examples import DEEPSEEK_R1, GPU_NODES, LLAMA_70B, NPU_POD, ep_layout
from hypothesis import given, settings
from hypothesis import strategies as st

from simpod.cost import Layout
from simpod.cost.block_table import BlockTable
from simpod.cost.parts import PartCosts
from simpod.cost.semantics import SEMANTICS
from simpod.cost.table import (
    BLOCK_POINTS,
    CONTEXT_KNOTS,
    NODES,
    NUM_PARTS,
    ContextTable,
    PromptTable,
    Table,
    block_after,
)


def costs_of(model, hardware, layout):
    return PartCosts(model, hardware, layout, SEMANTICS["vllm-v1"])


DENSE = costs_of(LLAMA_70B, GPU_NODES, Layout(dies=8, tp=8))
MLA = costs_of(DEEPSEEK_R1, NPU_POD, ep_layout(4))
ATTENTION = {"dense": DENSE, "mla": MLA}


# --- counts ---------------------------------------------------------------------------------------


def curved(counts):
    """Seconds with steps and a bend, in two parts."""
    parts = np.zeros((len(counts), NUM_PARTS))
    parts[:, 0] = np.ceil(counts / 37.0) + counts**1.3
    parts[:, 3] = 5.0 + counts
    return parts


@given(st.lists(st.integers(0, 6_000), min_size=1, max_size=5))
@settings(max_examples=25)
def test_entries_do_not_depend_on_the_order_of_growth(counts):
    straight, winding = Table(curved), Table(curved)
    straight.grow(6_000)
    for count in counts:
        winding.grow(count)
    size = len(winding.total)
    assert size > max(counts)
    assert np.array_equal(winding.parts, straight.parts[:size])
    assert np.array_equal(winding.total, straight.total[:size])


@given(st.lists(st.integers(0, 6_000), min_size=1, max_size=4))
@settings(max_examples=25)
def test_a_table_of_blocks_has_the_same_entries_and_fills_no_other_blocks(counts):
    whole, asked = Table(curved), []
    whole.grow(6_000)
    table = BlockTable(lambda points: asked.append(points) or curved(points))
    assert np.array_equal(table.many(np.array([counts])), whole.parts[[counts]])
    for count in counts:
        total_s, parts_s = table.one(count)
        assert total_s == whole.total[count]
        assert np.array_equal(parts_s, whole.parts[count])
    assert all(any(p[0] <= c < p[-1] for c in counts) for p in asked)
    assert len(asked) == len({(c // BLOCK_POINTS).bit_length() for c in counts})


def test_small_counts_and_points_of_each_block_are_exact():
    table = Table(curved)
    table.grow(16 * BLOCK_POINTS - 1)
    exact = np.arange(BLOCK_POINTS, dtype=np.float64)
    assert table.parts[:BLOCK_POINTS].tolist() == curved(exact).tolist()
    start = BLOCK_POINTS
    while start < 16 * BLOCK_POINTS:
        end, points = block_after(start)
        assert (points[0], points[-1], len(points)) == (start, end, BLOCK_POINTS + 1)
        inside = points[:-1]
        assert table.parts[inside.astype(np.int64)] == pytest.approx(curved(inside), rel=1e-15)
        start = end
    assert start == 16 * BLOCK_POINTS


def test_between_points_a_count_is_priced_by_a_line():
    """Counts 1024 ... 2048 lie on a stride of 4."""
    table = Table(curved)
    table.grow(1500)
    low, high = curved(np.array([1400.0, 1404.0]))
    for offset in range(5):
        line = low + (high - low) * offset / 4
        assert table.parts[1400 + offset] == pytest.approx(line, rel=1e-12)


def test_one_count_and_many_are_the_same_seconds():
    table = Table(curved)
    counts = np.array([3, 700, 5000, 700])
    mean = np.full(4, 0.25)
    total, parts = table.means(counts, mean)
    assert total.tolist() == [table.seconds(count) for count in counts.tolist()]
    assert parts == pytest.approx(table.parts[counts].mean(axis=0), rel=1e-12)
    assert parts.sum() == pytest.approx(total.mean(), rel=1e-12)


@pytest.mark.parametrize("costs", [DENSE, MLA], ids=["dense", "mla"])
def test_a_table_of_real_costs_is_near_them_everywhere(costs):
    """Kernels have steps (tiles, waves), which a line over a stride of 64 counts smooths."""
    table = Table(costs.tokens)
    table.grow(2**15 - 1)
    counts = np.random.default_rng(1).integers(2**14, 2**15, 300)
    exact = costs.tokens(counts.astype(np.float64)).sum(axis=1)
    off = np.abs(table.total[counts] / exact - 1.0)
    assert np.median(off) < 0.01
    assert off.max() < 0.03


# --- attention over the cache ---------------------------------------------------------------------

TABLES = {name: ContextTable(costs.decode_attention_s) for name, costs in ATTENTION.items()}
tables = st.sampled_from(sorted(TABLES))


@given(tables, st.integers(1, 600), st.integers(0, 5 * 10**6))
@settings(deadline=None)  # a table may grow
def test_a_rank_alone_and_among_others_is_priced_alike(name, seqs, context):
    table = TABLES[name]
    alone_s, slope_s, room = table.one(seqs, context)
    many_s, slopes_s, rooms = table.many(np.array([0, seqs, 1]), np.array([0, context, 7]))
    assert many_s[1] == pytest.approx(alone_s, rel=1e-12)
    assert slopes_s[1] == slope_s
    assert int(min(rooms[1], 2.0**62)) == room
    assert (many_s[0], slopes_s[0], rooms[0]) == (0.0, 0.0, np.inf)  # nothing, for ever


@pytest.mark.parametrize("name", sorted(TABLES))
def test_context_table_is_exact_at_its_knots(name):
    table, costs = TABLES[name], ATTENTION[name]
    for seqs in (1, 48, 255):
        for knot in CONTEXT_KNOTS[[0, 1, 5, 21, 35]]:
            if float(knot * seqs).is_integer():
                got = table.one(seqs, int(knot * seqs))[0]
                by_hand = costs.decode_attention_s(np.array([float(seqs)]), np.array([knot]))
                assert got == pytest.approx(by_hand.item(), rel=1e-12)


@given(tables, st.integers(1, 200), st.integers(1, len(CONTEXT_KNOTS) - 2))
@settings(deadline=None)
def test_context_table_is_continuous_at_its_knots(name, seqs, knot):
    table = TABLES[name]
    at = int(np.ceil(CONTEXT_KNOTS[knot] * seqs))
    (before_s, slope_s, _), (after_s, _, _) = (table.one(seqs, c) for c in (at - 1, at))
    step_s = max(abs(slope_s), abs(table.one(seqs, at)[1])) / seqs
    assert abs(after_s - before_s) <= step_s * (1 + 1e-6) + 1e-12


@given(tables, st.integers(1, 300), st.integers(0, 10**6), st.integers(0, 3000))
@settings(deadline=None)
def test_the_line_holds_as_far_as_it_says(name, seqs, mean, gained):
    table = TABLES[name]
    start_s, slope_s, room = table.one(seqs, seqs * mean)
    gained = min(gained, room)
    later_s = table.one(seqs, seqs * (mean + gained))[0]
    assert later_s == pytest.approx(start_s + gained * slope_s, rel=1e-9, abs=1e-15)


def test_context_table_does_not_depend_on_the_order_of_growth():
    grown, straight = (ContextTable(MLA.decode_attention_s) for _ in range(2))
    for seqs in (3, 300, 1000):
        grown.one(seqs, seqs * 100)
    for seqs in (1000, 300, 3):
        assert straight.one(seqs, seqs * 777) == grown.one(seqs, seqs * 777)


# --- attention of prompts -------------------------------------------------------------------------

PROMPTS = {name: PromptTable(costs.prefill_attention_s) for name, costs in ATTENTION.items()}
prompts = st.sampled_from(sorted(PROMPTS))


@given(prompts, st.integers(1, 20_000), st.floats(1.0, 200_000.0))
def test_a_chunk_alone_and_among_others_is_priced_alike(name, queries, keys):
    table = PROMPTS[name]
    alone_s = table.one(queries, keys)
    many_s = table.many(np.array([0.0, queries, 5.0]), np.array([0.0, keys, 3.0]))
    assert many_s[1] == pytest.approx(alone_s, rel=1e-12)
    assert many_s[0] == 0.0


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompt_table_is_exact_at_its_nodes(name):
    """A node is a chunk behind resident tokens, as long as its queries see so many keys."""
    table, costs = PROMPTS[name], ATTENTION[name]
    for queries, keys in ((512.0, 4096.0), (2048.0, 65536.0), (16.0, 1024.0)):
        assert {queries, keys} <= set(NODES)
        resident = keys - (queries + 1.0) / 2.0
        exact = costs.prefill_attention_s(*map(np.atleast_1d, (1.0, queries, resident)))
        assert table.one(queries, keys) == pytest.approx(exact.item(), rel=1e-12)


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompt_table_is_near_the_kernel_between_its_nodes(name):
    """Chunks of 64 to 8,192 tokens behind up to 64 K: steps of tiles and waves are smoothed."""
    table, costs = PROMPTS[name], ATTENTION[name]
    rng = np.random.default_rng(2)
    queries = np.round(2.0 ** rng.uniform(6.0, 13.0, 400))
    resident = np.where(rng.random(400) < 0.3, 0.0, np.round(2.0 ** rng.uniform(4.0, 16.0, 400)))
    exact = costs.prefill_attention_s(np.ones(400), queries, resident)
    off = np.abs(table.many(queries, resident + (queries + 1.0) / 2.0) / exact - 1.0)
    assert np.median(off) < 0.03
    assert np.quantile(off, 0.9) < 0.15
