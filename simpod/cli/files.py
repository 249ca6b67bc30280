"""One file that a command writes: whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simpod.errors import ConfigError


@contextmanager
def new_file(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Where to write a file that appears as `out` when the block ends well; else nothing is left.

    Its folder is made. A symbolic link stays, what it points to is written. Refused (`ConfigError`)
    are a file that exists, unless `overwrite`, a folder, and what cannot be written.
    """
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: give the name of a file")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists: choose another name or add --overwrite")
    draft = target = _target(out)
    if not target.exists() or target.is_file():  # else a device or a pipe, such as /dev/stdout
        draft = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            if draft != target:
                draft.replace(target)
        finally:
            if draft != target:
                draft.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(out, error.strerror or error) from error
    except ConfigError as error:
        raise ConfigError([each.replace(str(draft), str(out)) for each in error.problems]) from None


def _target(out: Path) -> Path:
    """What a symbolic link points to; a device or a pipe has no other name that can be opened."""
    try:
        return out if out.exists() and not out.is_file() else out.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, until Python 3.12
        raise _unwritable(out, getattr(error, "strerror", None) or error) from error


def _unwritable(out: Path, reason: object) -> ConfigError:
    return ConfigError(f"{out}: cannot be written: {reason}")
