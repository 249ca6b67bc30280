"""Composition: an experiment in, a result out, and the folder that holds it."""

from simpod.run.results import ResultFiles, check_target, read_results, read_summary, write_results
from simpod.run.simulate import Result, run, run_inputs, summarise

__all__ = [
    "Result",
    "ResultFiles",
    "check_target",
    "read_results",
    "read_summary",
    "run",
    "run_inputs",
    "summarise",
    "write_results",
]
