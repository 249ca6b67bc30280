"""`simpod plot topology`: a picture of any profile, or a reason why not."""

import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simpod.cli.files import new_file
from simpod.cli.main import app


def plot(*arguments: str | Path):
    return CliRunner().invoke(app, ["plot", "topology", *map(str, arguments)])


@pytest.mark.parametrize("name", ["h100", "h100-pod", "gb200", "rtx-4090-pod"])
def test_a_profile_can_be_drawn(name: str, tmp_path: Path) -> None:
    out = tmp_path / "pod.png"
    done = plot(name, "-o", out)
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(b"\x89PNG")


def text_of(path: Path) -> str:
    """What a picture says: an SVG has its words in comments, beside their shapes."""
    return path.read_text(encoding="utf-8")


def test_the_picture_says_what_the_graph_holds(tmp_path: Path) -> None:
    out = tmp_path / "rack.svg"
    assert plot("gb200-nvl72", "-o", out).exit_code == 0
    words = text_of(out)
    for said in ("18 first-level switches", "72 ports in use each", "bisection 32.4 TB/s"):
        assert said in words
    assert "18 x 50 GB/s = 900 GB/s" in words
    for said in ("1 second-level switch ", "36 ports in use each", "900 GB/s up from each"):
        assert said in words
    assert "stroke-dasharray" not in words


def test_losses_are_seen(tmp_path: Path) -> None:
    """Two of the 36 dies of a half at half their rate: 34 x 900 + 2 x 450 GB/s."""
    out = tmp_path / "rack.svg"
    losses = ("die/5--scale_up/*=0.5", "die/6--scale_up/*=0.5")
    done = plot("gb200-nvl72", "-o", out, "--degrade", losses[0], "--degrade", losses[1])
    assert done.exit_code == 0
    assert "bisection 31.5 TB/s" in text_of(out)
    assert "stroke-dasharray" in text_of(out)


def test_a_picture_is_not_replaced_unasked(tmp_path: Path) -> None:
    out = tmp_path / "node.png"
    out.write_text("mine")
    done = plot("h100", "-o", out)
    assert done.exit_code == 2
    assert "--overwrite" in done.output
    assert out.read_text() == "mine"
    assert plot("h100", "-o", out, "--overwrite").exit_code == 0


def test_the_folder_of_a_picture_is_made_and_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    out = tmp_path / "pictures" / "node.png"
    assert plot("h100", "-o", out).exit_code == 0
    assert [each.name for each in out.parent.iterdir()] == ["node.png"]
    for wrong, message in ((out / "node.png", "cannot be written"), (tmp_path, "is a folder")):
        done = plot("h100", "-o", wrong)
        assert done.exit_code == 2
        assert message in done.output


def test_a_bug_while_a_file_is_made_is_no_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), new_file(tmp_path / "x", overwrite=False):
        raise RuntimeError("a bug")
    assert not list(tmp_path.iterdir())


def test_a_pipe_can_be_written_to() -> None:
    """What `--out /dev/stdout --overwrite | less` does."""
    reading, writing = os.pipe()
    with new_file(Path(f"/dev/fd/{writing}"), overwrite=True) as draft:
        draft.write_text("page")
    assert os.read(reading, 10) == b"page"
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h1000", "-o", "x.png"), 'did you mean "h100"'),
        (("h100", "-o", "x.docx"), "docx"),
        (("h100", "-o", "x.png", "--degrade", "die/0"), "NAME=SHARE is needed"),
        (("h100", "-o", "x.png", "--degrade", "die/99=0"), "no link or switch is called"),
        (("h100", "-o", "x.png", "--degrade", "die/0=2"), "must be 0 to 1"),
    ],
)
def test_mistakes(arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = plot(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_how_to_get_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = plot("h100", "-o", tmp_path / "x.png")
    assert done.exit_code == 2
    assert "pip install 'simpod[plot]'" in done.output
