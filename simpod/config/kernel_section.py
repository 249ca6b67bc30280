"""The `kernels:` section of a hardware profile, rewritten in place."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import yaml

from simpod.config import library
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit

KernelSection = Mapping[str, Mapping[str, Fit[Any]]]
"""Operator class -> variant -> fit."""

_HEAD: Final = re.compile(r"^kernels:", re.MULTILINE)


def write_kernel_fits(path: Path, fits: KernelSection) -> None:
    """Put fits into the `kernels:` section of a profile, which stands last.

    Fits of other operators and variants stay, and so does every line above the section. The file
    is replaced in one step; ConfigError if it is no such file, and then nothing is written.
    """
    label = library.label(path)
    text = path.read_text(encoding="utf-8")
    found = _HEAD.search(text)
    head = text[: found.start()] if found else text
    section = _read(text[found.start() :], label) if found else {}
    kernels = section.pop("kernels", None) or {}
    if section:
        raise ConfigError(f"{label}: kernels: must be the last section, after {', '.join(section)}")
    for operator, variants in fits.items():
        kernels.setdefault(operator, {}).update(
            {variant: dict(_plain(fit)) for variant, fit in variants.items()}
        )
    body = yaml.safe_dump({"kernels": kernels}, sort_keys=False, default_flow_style=None, width=100)
    draft = path.with_suffix(".draft")
    draft.write_text(f"{head.rstrip()}\n{body}", encoding="utf-8")
    draft.replace(path)


def _read(text: str, label: str) -> dict[str, Any]:
    try:
        section: dict[str, Any] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{label}: kernels: cannot be read: {error}") from error
    return section


def _plain(fit: Fit[Any]) -> Iterator[tuple[str, Any]]:
    """Six digits: what a fit on noisy rows can tell."""
    whole: Mapping[str, Any] = asdict(fit)
    for name, value in whole.items():
        if name == "constants":
            yield name, {key: float(f"{number:.6g}") for key, number in value.items()}
        elif isinstance(value, float):
            yield name, round(value, 4)
        elif value is not None:
            yield name, value
