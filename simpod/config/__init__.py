"""Experiments, models and profiles from YAML: strict, all mistakes at once, all explained."""

from simpod.config.explain import (
    Explained,
    explain,
    explain_hardware,
    explain_model,
    kind_of,
    memory_of,
)
from simpod.config.json_schema import SCHEMAS, schema_text
from simpod.config.kernel_section import write_kernel_fits
from simpod.config.library import KINDS, names
from simpod.config.load import load_experiment, resolve_tree
from simpod.config.notes import notes_of
from simpod.config.plain import resolve_document, workload_of
from simpod.config.presets import SLO_PRESETS
from simpod.config.references import load_hardware, load_model
from simpod.config.resolved import ResolvedExperiment

__all__ = [
    "KINDS",
    "SCHEMAS",
    "SLO_PRESETS",
    "Explained",
    "ResolvedExperiment",
    "explain",
    "explain_hardware",
    "explain_model",
    "kind_of",
    "load_experiment",
    "load_hardware",
    "load_model",
    "memory_of",
    "names",
    "notes_of",
    "resolve_document",
    "resolve_tree",
    "schema_text",
    "workload_of",
    "write_kernel_fits",
]
