"""Fills the page: style, script and data are written into one file."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

import simpod
from simpod.report.html.many import many_payload
from simpod.report.html.run import run_payload
from simpod.report.sources import SWEEP, is_sweep, read_json, result_of, runs_of

Json = dict[str, Any]

_SCRIPTS: Final = ("charts.js", "page.js")


def write_report(
    sources: Sequence[Path],
    path: Path,
    *,
    experts: Sequence[Path] = (),
    links: Path | None = None,
) -> int:
    """Write the page of one result, or of many (a sweep folder, several results); return its bytes.

    experts: expert loads before and after (see `plot_experts`); links: a table as for `plot_links`.
    """
    if len(sources) == 1 and not is_sweep(sources[0]) and sources[0].is_dir():
        payload = run_payload(result_of(sources[0]), experts=experts, links=links)
    else:
        said = sources[0] / SWEEP
        sweep = read_json(said) if said.is_file() else None
        payload = many_payload(runs_of(sources), name=_name(sources), sweep=sweep)
    text = page(payload)
    path.write_text(text, encoding="utf-8")
    return len(text.encode())


def _name(sources: Sequence[Path]) -> str:
    first, *others = (source.resolve().name for source in sources)
    return f"{first} and {len(others)} more" if others else first


def page(payload: Mapping[str, Any]) -> str:
    """The whole file."""
    folder = files("simpod.report.html")
    read = {name: (folder / name).read_text(encoding="utf-8") for name in (*_SCRIPTS, "page.css")}
    template = Template((folder / "page.html").read_text(encoding="utf-8"))
    data = json.dumps(plain(payload), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return template.substitute(
        title=_escaped(payload["title"]),
        subtitle=_escaped(payload["subtitle"]),
        version=simpod.__version__,
        style=read["page.css"],
        script="\n".join(read[name] for name in _SCRIPTS),
        data=data.replace("<", "\\u003c"),  # nothing in it can end its element
    )


def plain(value: Any) -> Any:
    """Types that JSON has; floats with 5 significant digits, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
