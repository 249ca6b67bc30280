"""`simpod explain RESULT --step N`: one step by part, layer and rank."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from simpod.cli.output import add_rows, plain_table, print_json, show

if TYPE_CHECKING:
    from simpod.run.one_step import OneStep

MOST_RANKS: Final = 8
"""Rows of the table of ranks: the slowest; --json has all."""


def explain_step(
    folder: Path, step: int, pool: str | None, instance: int, *, as_json: bool
) -> None:
    """Print it."""
    from simpod.run import one_step, read_results

    found = one_step.one_step(read_results(folder), step, pool, instance)
    if as_json:
        print_json(one_step.as_json(found))
        return
    total_s = float(found.parts_s.sum())
    show(f"Step {step}, from {found.start_s:.3f} s on: {1e3 * total_s:.2f} ms\n")
    _parts(found, total_s)
    _ranks(found)
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
