"""Profiles built on profiles: a pod is a node's profile plus what joins its nodes."""

from collections.abc import Mapping
from typing import Any, Final

BASE: Final = "base"
"""Key of a profile: the profile that it changes."""
KERNELS_OF: Final = "kernels_of"
"""Key of a profile: the profile whose die's kernel constants stand in for its own."""


def merge_base(child: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the document `child` over the document `base`, which is resolved already.

    Mappings are merged key by key, at every depth; any other value of the child replaces that of
    the base. The keys that name other profiles are left out. Neither argument is changed.
    """
    merged = _overlay(base, child)
    for key in (BASE, KERNELS_OF):
        merged.pop(key, None)
    return merged


def _overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: _copy(value) for key, value in under.items()}
    for key, value in over.items():
        below = under.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _overlay(below, value)
        else:
            merged[key] = _copy(value)
    return merged


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return list(value) if isinstance(value, list) else value
