"""`simpod explain RESULT --step N`: one step by part, layer and rank."""

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from simpod.cli.output import add_rows, plain_table, print_json, show

if TYPE_CHECKING:
    from simpod.cost.layer_times import LayerTimes
    from simpod.run.one_step import OneStep

MOST_RANKS: Final = 8
"""Rows of the table of ranks: the slowest; --json has all."""
MOST_DIES: Final = 8
"""Rows of the table of dies: those with most work for experts; --json has all."""

NO_LAYERS: Final = (
    "\nSparse layers and dies are not told apart where dies send nothing to each other, gather all"
    " tokens,\nor have prompts alone in micro-batches"
)
"""Without `layer_times`."""


class StepOf(NamedTuple):
    """Where it is."""

    folder: Path
    number: int
    pool: str | None
    instance: int


def explain_step(place: StepOf, *, by_layer: bool, by_die: bool, as_json: bool) -> None:
    """Print it; on request each sparse layer, and dies."""
    from simpod.run import one_step, read_results

    folder, step, pool, instance = place
    found = one_step.one_step(read_results(folder), step, pool, instance)
    if as_json:
        print_json(one_step.as_json(found))
        return
    total_s = float(found.parts_s.sum())
    show(f"Step {step}, from {found.start_s:.3f} s on: {1e3 * total_s:.2f} ms\n")
    _parts(found, total_s)
    _ranks(found)
    _halves(found)
    _operators(found)
    _exchanges(found)
    if (uneven := found.layer_imbalance) is not None:
        worst = int(uneven.argmax())
        show(
            f"\nFullest die over mean: {uneven.mean():.2f}, mean of {len(uneven)} sparse layers;"
            f" {uneven[worst]:.2f} in number {worst + 1}"
        )
    if (expected := found.expected) is not None:
        show(
            f"Of the popularity alone {expected.placed.mean():.2f}; {expected.bound.mean():.2f} or"
            " more wherever copies lie"
        )
    if not (by_layer or by_die):
        return
    if (times := found.layer_times) is None:
        show(NO_LAYERS)
        return
    if by_layer:
        _by_layer(found, times)
    if by_die:
        _by_die(found, times)


def _parts(found: "OneStep", total_s: float) -> None:
    from simpod.records.columns import STEP_PARTS

    kinds = [f"{kind} layer (us), {count} of them" for kind, (count, _) in found.layers_s.items()]
    numbers = ("ms", "share", *kinds)
    table = plain_table("Part", *numbers, right=numbers)
    rows = []
    for place, part in enumerate(STEP_PARTS):
        seconds = float(found.parts_s[place])
        if seconds > 0.0:
            layers = (f"{1e6 * parts_s[place]:z,.1f}" for _, parts_s in found.layers_s.values())
            share = f"{seconds / total_s:.1%}"
            rows.append((part.replace("_", " "), f"{1e3 * seconds:.3f}", share, *layers))
    sums = (f"{1e6 * parts_s.sum():,.1f}" for _, parts_s in found.layers_s.values())
    rows.append(("= step", f"{1e3 * total_s:.3f}", "", *sums))
    show(add_rows(table, rows))


def _ranks(found: "OneStep") -> None:
    if len(found.rank_busy_s) == 1:
        return
    numbers = ("sequences", "context tokens", "prompt tokens", "busy (ms)", "wait (ms)")
    table = plain_table("\nRank", *numbers, right=numbers)
    slowest = (-found.rank_busy_s).argsort(kind="stable")[:MOST_RANKS]
    rows = [
        (
            str(rank),
            f"{found.rank_seqs[rank]:,}",
            f"{found.rank_context_tokens[rank]:,}",
            f"{found.rank_prompt_tokens[rank]:,}",
            f"{1e3 * found.rank_busy_s[rank]:.3f}",
            f"{1e3 * found.rank_wait_s[rank]:.3f}",
        )
        for rank in slowest.tolist()
    ]
    mean_s = float(found.rank_wait_s.mean())
    show(add_rows(table, rows))
    show(
        f"The slowest of {len(found.rank_busy_s)} ranks; they wait {1e3 * mean_s:.3f} ms on average"
    )


def _halves(found: "OneStep") -> None:
    if (halves := found.halves) is None:
        return
    total_s = halves.total_s
    domains = ", ".join(f"{busy_s / total_s:.0%}" for busy_s in halves.attention_busy_s)
    receive, compute, send = (f"{busy_s / total_s:.0%}" for busy_s in halves.kernels_busy_s)
    show(
        f"\nOf {1e3 * total_s:.2f} ms in layers, attention dies are busy {domains} (by domain);\n"
        f"expert dies receive for {receive}, compute for {compute}, send for {send}"
    )


def _operators(found: "OneStep") -> None:
    if found.operators_s is None:
        return
    table = plain_table("\nOperator before dispatch", "us", right=("us",))
    rows = [(name, f"{1e6 * seconds:,.1f}") for name, seconds in found.operators_s.items()]
    show(add_rows(table, rows))
    show("Of one layer, the rank with most tokens; without attention over the cache")


def _exchanges(found: "OneStep") -> None:
    if (seen := found.die_exchanges) is None:
        return
    from simpod.cost.die_waits import Seen

    numbers = ("mean", "least", "most")
    table = plain_table("\nOne die, us, waiting included", *numbers, right=numbers)
    rows = []
    for name, seconds in (("dispatch", seen.dispatch_s), ("combine", seen.combine_s)):
        own = Seen.of(seconds)
        times_s = (own.mean_s, own.least_s, own.most_s)
        rows.append((name, *(f"{1e6 * each_s:,.1f}" for each_s in times_s)))
    show(add_rows(table, rows))
    show(
        f"Over {len(seen.dispatch_s)} sparse layers; means over"
        f" {seen.dispatch_s.shape[1]} dies, one step drawn"
    )


def _by_layer(found: "OneStep", times: "LayerTimes") -> None:
    out, back = ("dispatch", "combine") if found.halves is None else ("a2e", "e2a")
    columns = {
        out: times.dispatch_s,
        "dispatch wait": times.dispatch_wait_s,
        "experts": times.experts_s,
        back: times.combine_s,
        "combine wait": times.combine_wait_s,
        "idle": times.idle_s,
    }
    table = plain_table("\nSparse layer, us", *columns, right=tuple(columns))
    rows = [
        (str(layer + 1), *(f"{1e6 * seconds[layer]:,.1f}" for seconds in columns.values()))
        for layer in range(len(times.idle_s))
    ]
    sums = (f"{1e6 * seconds.sum():,.1f}" for seconds in columns.values())
    show(add_rows(table, [*rows, ("= all", *sums)]))
    show("Means over dies, all micro-batches; idle: what attention does not hide of the rest")


def _by_die(found: "OneStep", times: "LayerTimes") -> None:
    numbers = ("experts (ms)", "combine wait (ms)", "dispatch wait (ms)")
    table = plain_table("\nDie", *numbers, right=numbers)
    most = (-times.die_experts_s).argsort(kind="stable")[:MOST_DIES]
    late_s = times.die_dispatch_wait_s if found.halves is None else None
    rows = [
        (
            str(die),
            f"{1e3 * times.die_experts_s[die]:.3f}",
            f"{1e3 * times.die_combine_wait_s[die]:.3f}",
            "" if late_s is None else f"{1e3 * late_s[die]:.3f}",
        )
        for die in most.tolist()
    ]
    means = (times.die_experts_s, times.die_combine_wait_s, times.die_dispatch_wait_s)
    shown = (f"{1e3 * seconds.mean():.3f}" for seconds in means)
    show(add_rows(table, [*rows, ("mean of all", *shown)]))
    show(f"Of {len(times.die_experts_s)} dies those with most work for experts, all sparse layers")
