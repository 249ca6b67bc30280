"""The documentation is true: its commands run, its code runs, its tables are those of the code.

Blocks of a page make one story in one folder: `yaml file=NAME` writes a file, `sh` runs `simpod`
commands (`sh fails=2` expects that exit code, `sh no-run` is left alone), `python` is executed.
"""

import ast
import contextlib
import functools
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from simpod.cli.main import app
from simpod.records.columns import (
    STEP_PARTS,
    ExpertRecords,
    LinkRecords,
    PlaneRecords,
    RequestRecords,
    StepRecords,
    TransferRecords,
)

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/tutorial.md",
    "docs/howto.md",
    "docs/fabric.md",
    "docs/shared-memory.md",
    "docs/calibration.md",
    "docs/communication.md",
    "docs/compare.md",
    "docs/sweep.md",
    "docs/search.md",
    "docs/pictures.md",
)
ALL_PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")


@dataclass(frozen=True)
class Block:
    language: str
    options: dict[str, str]
    text: str


def blocks_of(page: str) -> Iterator[Block]:
    for language, options, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        pairs = (option.partition("=") for option in options.split())
        yield Block(language, {key: value for key, _, value in pairs}, text)


def play(block: Block) -> None:
    if "no-run" in block.options:
        return
    if "file" in block.options:
        path = Path(block.options["file"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    elif block.language == "sh":
        for line in block.text.strip().splitlines():
            play_command(line, int(block.options.get("fails", 0)))
    elif block.language == "python":
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block.text, "documentation", "exec"), {})


def play_command(line: str, exit_code: int) -> None:
    program, *arguments = shlex.split(line, comments=True)
    assert program == "simpod", f"can't test {line!r}: mark its block with no-run"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == exit_code, f"{line}\n{done.output}\n{done.exception!r}"


@pytest.mark.parametrize("page", PAGES)
def test_page_runs_as_a_story(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)  # no other processes
    story = list(blocks_of(page))
    assert any(block.language == "sh" and "no-run" not in block.options for block in story)
    for block in story:
        play(block)


def test_a_user_scheduler_takes_few_lines() -> None:
    files = {
        b.options["file"]: b.text for b in blocks_of("docs/tutorial.md") if "file" in b.options
    }
    code = [
        line
        for line in files["my_edf.py"].splitlines()
        if line.strip() and not line.strip().startswith(('"""', "#"))
    ]
    assert len(code) <= 20


@pytest.mark.parametrize("path", ALL_PAGES, ids=[str(p.relative_to(ROOT)) for p in ALL_PAGES])
def test_links_lead_somewhere(path: Path) -> None:
    targets = [t for t in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in t]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@functools.cache
def generator() -> ModuleType:
    spec = util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    stale = [p.name for p, text in generator().pages().items() if p.read_text() != text]
    assert stale == [], "run `make docs`"


def test_schemas_are_fresh() -> None:
    stale = [p.name for p, text in generator().schemas().items() if p.read_text() != text]
    assert stale == [], "run `make docs`"


def test_every_key_of_an_experiment_is_documented() -> None:
    """The generator's list of sections is complete: no part of the schema is left out."""
    from simpod.config.json_schema import experiment_schema

    sections = generator().SECTIONS.values()
    shown = {name for names in sections for name in names} | set(generator().TRACES)
    elsewhere = {"ModelSpec", "AttentionSpec", "MoeSpec", "HardwareProfile", "DieSpec"}
    elsewhere |= {"PlaneSpec", "HostSpec", "Calibration", "PassRates"}  # model and hardware files
    elsewhere |= {"TopologySpec", "WiringSpec", "TransferLaw"}
    for fit, constants in generator().kernel_definitions().values():  # docs/kernels.md
        shown |= {"KernelFits", fit, *constants}
    assert set(experiment_schema()["$defs"]) == shown | elsewhere


def test_every_kernel_constant_is_documented_with_its_bounds() -> None:
    from simpod.config.json_schema import experiment_schema

    text = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    definitions = experiment_schema()["$defs"]
    rows = {line for line in text.splitlines() if line.startswith("| `")}
    for _, kinds in generator().kernel_definitions().values():
        for kind in kinds:
            for name, value in definitions[kind]["properties"].items():
                assert any(row.startswith(f"| `{name}` |") for row in rows), f"{kind}.{name}"
                assert len(value["description"]) > 5, f"{kind}.{name}"
                assert "minimum" in value, f"{kind}.{name} has no lower bound"


def documented_columns(table: str) -> set[str]:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.partition(f"## {table}")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_column_is_documented() -> None:
    from simpod.metrics.attribution import TTFT_PARTS

    requests = {field.name for field in fields(RequestRecords)}
    requests |= {"ttft_s", "tpot_s", "e2e_s"} | {f"{part}_s" for part in TTFT_PARTS}
    steps = {field.name for field in fields(StepRecords)} - {"group", "parts_s"}
    steps |= {"pool", "instance"} | {f"{part}_s" for part in STEP_PARTS}
    assert documented_columns("requests.parquet") == requests
    assert documented_columns("steps.parquet") == steps
    transfers = {f.name for f in fields(TransferRecords)} - {"plane_names"}
    assert documented_columns("transfers.parquet") == transfers
    for table, rows in (
        ("links", LinkRecords),
        ("planes", PlaneRecords),
        ("experts", ExpertRecords),
    ):
        columns = {f.name for f in fields(rows) if not f.name.endswith("_names")}
        assert documented_columns(f"{table}.parquet") == columns


def test_every_view_property_is_documented() -> None:
    from simpod.policies import BatchView, RouteRequest, RouterView, SequenceView

    text = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    views = (BatchView, RouterView, RouteRequest, SequenceView)
    names = {n for view in views for n, v in vars(view).items() if isinstance(v, property)}
    assert len(names) > 20
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_command_is_in_the_readme() -> None:
    from typer.main import get_command

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = getattr(get_command(app), "commands", {})
    assert commands
    assert [name for name in commands if f"`simpod {name}" not in text] == []


def laws() -> list[tuple[str, list[str]]]:
    """Each law's title, and the tests named under it as file::test."""
    text = (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)[1:]
    return [(p.partition("\n")[0], re.findall(r"`(test_\w+\.py::\w+)`", p)) for p in parts]


def defined_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    found = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    assigned = (n for n in ast.walk(tree) if isinstance(n, ast.Assign))
    return found | {t.id for n in assigned for t in n.targets if isinstance(t, ast.Name)}


def test_laws_are_numbered() -> None:
    titles = [title for title, _ in laws()]
    assert [int(title.split(".")[0]) for title in titles] == list(range(1, len(titles) + 1))


@pytest.mark.parametrize(("title", "names"), laws(), ids=[title for title, _ in laws()])
def test_law_names_tests_that_exist(title: str, names: list[str]) -> None:
    assert names, f"no test is named for law {title}"
    missing = [n for n in names if n.partition("::")[2] not in defined_in(n.partition("::")[0])]
    assert missing == []


def test_decisions_are_short_and_numbered() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 20, path.name
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Price")), path.name


def test_changelog_has_this_version_and_what_moved() -> None:
    import simpod

    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{simpod.__version__}]" in text
    assert "### Results changed" in text


def test_python_is_what_the_readme_says() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert sys.version_info >= (3, 11)
