"""Variants of an experiment: `--vary` options, crossed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simpod.config.key_names import short_names
from simpod.errors import ConfigError
from simpod.sweep.jobs import Job
from simpod.sweep.points import cross

Variation = tuple[str, tuple[str, ...]]
"""A key, and its values as they were written."""

_PAIRS: Final = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination of values, and how tables call it."""

    label: str
    overrides: tuple[str, ...]


def split_variation(text: str, least: int = 2, option: str = "--vary") -> Variation:
    """`a.b=1,[2, 3],"x,y"` -> key and values; commas in brackets and quotes do not split."""
    key, sign, rest = text.partition("=")
    values = tuple(_split(rest)) if sign else ()
    if not key.strip() or len(values) < least or not all(values):
        number = {1: "at least one value", 2: "two or more values"}[least]
        raise ConfigError(
            f"{option} {text}: needs one key and {number};"
            f" allowed: {option} policies.batching.use=fcfs,shortest_prompt"
        )
    if len(set(values)) < len(values):
        raise ConfigError(f"{option} {text}: the same value twice")
    if key.strip() == "seed":
        raise ConfigError(f"{option} seed: every variant runs with the same seeds; use --seeds N")
    return key.strip(), values


def variants_of(variations: Sequence[Variation]) -> tuple[Variant, ...]:
    """Every combination, the last key fastest; with one key a variant is called by its value."""
    keys = [key for key, _ in variations]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(f"--vary {twice[0]}: given twice; put all values into one --vary")
    short = short_names(keys)
    return tuple(
        Variant(
            label=next(iter(values.values()))
            if len(keys) == 1
            else ", ".join(f"{short[key]}={value}" for key, value in values.items()),
            overrides=tuple(f"{key}={value}" for key, value in values.items()),
        )
        for values in cross(dict(variations))
    )


def plan_jobs(
    experiment: str,
    overrides: Sequence[str],
    variants: Sequence[Variant],
    seeds: Sequence[int],
) -> list[Job]:
    """Jobs, variant by variant, each with the same seeds."""
    return [
        Job(experiment=experiment, overrides=(*overrides, *variant.overrides, f"seed={seed}"))
        for variant in variants
        for seed in seeds
    ]


def _split(text: str) -> list[str]:
    parts, closing, quote = [""], list[str](), ""
    for character in text:
        if character == "," and not closing and not quote:
            parts.append("")
            continue
        parts[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _PAIRS:
            closing.append(_PAIRS[character])
        elif closing and character == closing[-1]:
            closing.pop()
    return [part.strip() for part in parts]
