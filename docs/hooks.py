"""For the site: takes in pages beside `docs/` that its pages link to; drops links to folders."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
BESIDE = {"../CONTRIBUTING.md": "CONTRIBUTING.md", "../CHANGELOG.md": "CHANGELOG.md"}
BESIDE |= {"../notebooks/README.md": "notebooks.md", "../benchmarks/README.md": "benchmarks.md"}

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages beside `docs/`."""
    for source, name in BESIDE.items():
        text = (ROOT / "docs" / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to pages beside `docs/` become links of the site, other ways out of it plain text."""
    is_beside = page.file.src_uri in BESIDE.values()

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        if "://" in target:
            return match.group(0)
        if is_beside:
            target = target.removeprefix("docs/")
        target = BESIDE.get(target, target)
        is_page = files.get_file_from_path(_resolved(page.file.src_uri, target)) is not None
        return f"[{text}]({target}{anchor})" if is_page else text

    return _LINK.sub(link, markdown)


def _resolved(page: str, target: str) -> str:
    parts = [*page.split("/")[:-1], *target.split("/")]
    found: list[str] = []
    for part in parts:
        if part == "..":
            if not found:
                return ""
            found.pop()
        elif part != ".":
            found.append(part)
    return "/".join(found)
