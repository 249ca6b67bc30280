"""Typed access to the fields of a HuggingFace configuration; mistakes are collected, not raised."""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

_TEXT_KEYS = ("text_config", "llm_config", "language_config")
_INHERITED = ("tie_word_embeddings", "quantization_config", "torch_dtype", "dtype")


def text_part(config: Config) -> tuple[Config, str]:
    """The language model of a multimodal configuration and a note on what was left out.

    Fields that such files keep outside (data type, quantisation, tied embeddings) are taken along.
    """
    for key in _TEXT_KEYS:
        inner = config.get(key)
        if isinstance(inner, Mapping):
            outer = {name: config[name] for name in _INHERITED if name in config}
            return {**outer, **inner}, f" ({key}; the vision or audio encoder is not counted)"
    return config, ""


class Fields:
    """A configuration and the problems found so far in what was asked of it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.problems: list[str] = []

    @property
    def model_type(self) -> str:
        """HuggingFace's name of the architecture, or an empty string."""
        return str(self.config.get("model_type", ""))

    def get(self, key: str) -> Any:
        """The value as it stands, or None."""
        return self.config.get(key)

    def has(self, key: str) -> bool:
        """Is there, and not null."""
        return self.config.get(key) is not None

    def first(self, *keys: str) -> str | None:
        """The first of `keys` that is there with something other than null, 0 or false."""
        return next((key for key in keys if self.config.get(key)), None)

    def flag(self, key: str) -> bool:
        """True or false; false when it is missing."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            self.wrong(key, "true or false")
        return value is True

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of at least `least`; on a mistake 1, and the problem is noted."""
        value = self.config.get(key)
        if value is None and default is not None:
            return default
        if value is None:
            self._note(f"{key} is missing")
            return 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.wrong(key, f"a whole number of at least {least}")
            return max(least, 1)
        return value

    def wrong(self, key: str, allowed: str) -> None:
        """Note that the value of `key` is not what is allowed."""
        self._note(f"{key}: must be {allowed}; got {self.config.get(key)!r}")

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
