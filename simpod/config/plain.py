"""Experiments and trace settings that are given as plain data instead of a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simpod.config.load import resolve_tree
from simpod.config.nodes import Place, from_plain
from simpod.config.problems import Problems
from simpod.config.resolved import ResolvedExperiment
from simpod.config.validate import validate
from simpod.errors import InvariantError
from simpod.workload.spec import WorkloadSpec


def resolve_document(
    document: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str = "document"
) -> ResolvedExperiment:
    """Resolve an experiment in plain dicts and lists, such as a `ResolvedExperiment.document`.

    source: what messages call it; paths in it are relative to the working directory.
    """
    problems = Problems(from_plain(document, Place(source)))
    return resolve_tree(problems, overrides, Path.cwd(), default_name=source)


def workload_of(settings: Mapping[str, Any], *, source: str) -> WorkloadSpec:
    """Check the keys of a `workload:` section given as plain data."""
    root = from_plain(settings, Place(source))
    problems = Problems(root)
    workload = validate(WorkloadSpec, root, problems)
    problems.stop()
    if workload is None:
        raise InvariantError("a workload is invalid without a problem")
    return workload
