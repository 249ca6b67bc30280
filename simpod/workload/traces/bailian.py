"""Qwen-Bailian JSONL (github.com/alibaba-edu/qwen-bailian-usagetraces-anon)."""

from typing import Any

from simpod.workload.traces.bad_rows import BadRows
from simpod.workload.traces.jsonl import finish, read_rows
from simpod.workload.traces.recorded import Recorded
from simpod.workload.traces.spec import BailianTrace


def read(spec: BailianTrace) -> Recorded:
    """Read the rows of a file; every row is one chat turn, whose parent is an earlier row or -1."""
    bad = BadRows(spec.path)
    rows = read_rows(spec, bad)
    for line, item in zip(rows.lines, rows.objects, strict=True):
        for key in ("chat_id", "parent_chat_id"):
            if type(item.get(key)) is not int:
                given = repr(item[key])[:40] if key in item else "missing"
                bad.report(line, f"{key} is {given}; allowed: a whole number")
    return finish(spec, rows, bad, _first_chats)


def _first_chats(items: list[dict[str, Any]]) -> list[Any]:
    """Chat that began the conversation of each row; a parent missing from the file is it."""
    first: dict[int, int] = {}
    for item in items:
        chat, parent = item["chat_id"], item["parent_chat_id"]
        first[chat] = chat if parent < 0 else first.setdefault(parent, parent)
    return [first[item["chat_id"]] for item in items]
