"""The `kernels:` section of a profile's file, which stands last and is written by calibration."""

from typing import Any, Final

import yaml

from simpod.errors import ConfigError

SECTION: Final = "kernels:"
WIDTH: Final = 100


def split_kernels(text: str, source: str) -> tuple[str, dict[str, Any]]:
    """What stands before the section, and the section's operators; none if there is no section."""
    head, _, tail = text.partition(f"\n{SECTION}\n")
    section: dict[str, Any] = yaml.safe_load(tail and f"{SECTION}\n{tail}") or {}
    kernels: dict[str, Any] = section.pop("kernels", None) or {}
    if section:
        raise ConfigError(
            f"{source}: kernels: must be the last section, after {', '.join(section)}"
        )
    return head.rstrip("\n") + "\n", kernels


def with_kernels(head: str, kernels: dict[str, Any]) -> str:
    """The file again: `head` and the section."""
    return head + yaml.safe_dump(
        {"kernels": kernels}, sort_keys=False, default_flow_style=None, width=WIDTH
    )
