"""Whose rules the steps of an experiment follow: semantics by name, and what `engine` changes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from simpod.cluster import PoolSpec
from simpod.config.nodes import Path
from simpod.config.problems import Problems
from simpod.config.schema import Experiment
from simpod.cost.collectives import meets_in_layers
from simpod.cost.semantics import Semantics, semantics_of

_TIMES: Final = ("step_gap_s", "launch_skew_s", "eager_launch_s")
"""Of semantics, that an experiment may replace."""


def resolve_semantics(
    experiment: Experiment, specs: Sequence[PoolSpec], problems: Problems
) -> Semantics:
    """Whose rules a step follows, and the times that `engine` puts in place of theirs."""
    found = _with_graphs(experiment, specs, problems)
    engine = experiment.engine
    if engine.launch_skew_s and not any(
        meets_in_layers(experiment.model, spec.layout) and not spec.layout.expert_dies
        for spec in specs
    ):
        problems.at(
            ("engine", "launch_skew_s"),
            "dies wait for a late launch at the first dispatch, and no pool has one",
            hint="leave it out",
        )
    times = {key: getattr(engine, key) for key in _TIMES}
    told = {key: value for key, value in times.items() if value is not None}
    return replace(found, **told) if told else found


def _with_graphs(
    experiment: Experiment, specs: Sequence[PoolSpec], problems: Problems
) -> Semantics:
    """Named semantics with the graphs asked for."""
    found = semantics_of(experiment.engine.semantics, experiment.hardware.family)
    graphs, engine = found.graphs, experiment.engine
    _check_graphs(experiment, found, specs, problems)
    if engine.graph_batch_sizes == "any":
        graphs = graphs.of_any_size()
    elif engine.graph_batch_sizes is not None:
        graphs = graphs.of_sizes(engine.graph_batch_sizes)
    elif engine.max_graph_tokens is not None:
        graphs = graphs.up_to(engine.max_graph_tokens)
    if engine.max_piece_tokens is not None:
        graphs = graphs.with_pieces(engine.max_piece_tokens)
    return found if graphs is found.graphs else replace(found, graphs=graphs)


def _check_graphs(
    experiment: Experiment, semantics: Semantics, specs: Sequence[PoolSpec], problems: Problems
) -> None:
    """Sizes are said once; pipelined decodes have them on Ascend alone, and one for each batch."""
    engine = experiment.engine
    sizes, largest = engine.graph_batch_sizes, engine.max_graph_tokens
    pipelined = [
        spec
        for spec in specs
        if spec.role != "prefill" and (spec.layout.micro_batches > 1 or spec.layout.expert_dies)
    ]
    path: Path = ("engine", "graph_batch_sizes")
    if sizes is not None and largest is not None:
        problems.at(path, "max_graph_tokens says it, too", hint="the last size is the largest")
    if not pipelined:
        return
    if largest is not None:
        problems.at(
            ("engine", "max_graph_tokens"),
            "decode steps with micro_batches or expert_dies always run as graphs",
            hint="leave it out, or decode in one batch",
        )
    if not isinstance(sizes, tuple):
        return
    if not semantics.graphs.masks_dummies:
        what = (
            f"with {semantics.name} decode steps with micro_batches or expert_dies are not padded"
        )
        problems.at(path, what, hint="leave it out, or decode in one batch")
    pool, most = pipelined[0], pipelined[0].max_num_seqs  # no deployment has a second
    if max(sizes) < most:
        problems.at(
            path,
            f"{max(sizes)} is the largest, and pool {pool.name} decodes {most} at once:"
            " steps with micro_batches or expert_dies always run as graphs",
            allowed=f"a last size of at least {most}",
        )
