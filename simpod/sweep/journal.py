"""`runs.jsonl`: one line a finished run, written by the driver alone, read back after any death.

A line is written with one call, so that of a killed driver at most the last line is torn; it is cut
off at the next start. A run that has two lines counts by its last.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from simpod.errors import ConfigError

JOURNAL: Final = "runs.jsonl"
LOCK: Final = ".lock"
OK, FAILED = "ok", "failed"

Record = dict[str, Any]


@dataclass(slots=True)
class Journal:
    """Where the line of each run is: some 150 bytes of memory a run, whatever a line holds."""

    path: Path
    ok: dict[int, int] = field(default_factory=dict)  # identity as a number -> byte offset
    failed: dict[int, int] = field(default_factory=dict)
    end: int = 0  # bytes of whole lines

    def offset(self, run_id: str) -> int | None:
        """Where the last line of a run starts; None if there is none."""
        number = int(run_id, 16)
        return self.ok.get(number, self.failed.get(number))

    def note(self, run_id: str, status: str, offset: int) -> None:
        """Take the line at `offset` for the run's last."""
        number = int(run_id, 16)
        self.ok.pop(number, None)
        self.failed.pop(number, None)
        (self.ok if status == OK else self.failed)[number] = offset

    def is_done(self, run_id: str, *, retry_failed: bool = False) -> bool:
        """It is there, and not to be made again."""
        number = int(run_id, 16)
        return number in self.ok or (not retry_failed and number in self.failed)


class JournalWriter:
    """Appends; made by `open_journal`."""

    def __init__(self, file: BinaryIO, journal: Journal) -> None:
        self._file = file
        self.journal = journal

    def write(self, record: Mapping[str, Any]) -> int:
        """Append a line with `run_id` and `status`; return its offset."""
        text = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        line = text.encode() + b"\n"
        offset = self.journal.end
        written = self._file.write(line)  # unbuffered: one write
        if written != len(line):  # the disk is full: no torn line may stay before the next one
            os.ftruncate(self._file.fileno(), offset)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.journal.path)
        self.journal.end += len(line)
        self.journal.note(record["run_id"], record["status"], offset)
        return offset


@contextmanager
def open_journal(folder: Path) -> Iterator[JournalWriter]:
    """Lock the folder, cut a torn last line off, and append from there.

    The lock is the operating system's: it goes with the process, also with a killed one.
    """
    with (folder / LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: another sweep is writing there") from None
        journal = read_journal(folder)
        with (folder / JOURNAL).open("ab", buffering=0) as file:
            os.ftruncate(file.fileno(), journal.end)
            yield JournalWriter(file, journal)
            os.fsync(file.fileno())


def read_journal(folder: Path) -> Journal:
    """Find the last whole line of every run; nothing of a line but its head is kept."""
    journal = Journal(folder / JOURNAL)
    for offset, record in lines_of(journal.path):
        journal.note(record["run_id"], record["status"], offset)
    journal.end = _whole_bytes(journal.path)
    return journal


def lines_of(path: Path) -> Iterator[tuple[int, Record]]:
    """Offset and content of every whole line."""
    if not path.is_file():
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield offset, _parse(line, path, number)
            offset += len(line)


def record_at(file: BinaryIO, offset: int) -> Record:
    """The line that starts at an offset."""
    file.seek(offset)
    record: Record = json.loads(file.readline())
    return record


def _parse(line: bytes, path: Path, number: int) -> Record:
    try:
        record: Record = json.loads(line)
        int(record["run_id"], 16)
        if record["status"] in {OK, FAILED}:
            return record
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"{path}:{number}: no line of a sweep; remove it, its run is made again")


def _whole_bytes(path: Path) -> int:
    if not path.is_file():
        return 0
    size = path.stat().st_size
    with path.open("rb") as file:
        back, tail = 0, b""
        while back < size and b"\n" not in tail:
            back = min(size, back + 65_536)
            file.seek(size - back)
            tail = file.read(back)
    return size - back + tail.rfind(b"\n") + 1 if b"\n" in tail else 0
