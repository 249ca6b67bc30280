"""What scripts read of a validation, its sources, and the page that it writes."""

from pathlib import Path

import pytest

from simpod.errors import ConfigError
from simpod.validate.page import write_page
from simpod.validate.report import GroupErrors, Point, Refusal, Report, errors_of
from simpod.validate.sources import Sources, data_folder, sources_in

GROUP_KEYS = {
    "group",
    "rows",
    "median_abs_error_frac",
    "p90_abs_error_frac",
    "worst_abs_error_frac",
    "median_signed_error_frac",
    "refused",
}
POINT_KEYS = {"id", "group", "metric", "measured", "simulated", "error_frac", "source"}


def point(name: str, measured: float, simulated: float, group: str = "g") -> Point:
    return Point(
        id=name,
        group=group,
        metric="mean_ttft_ms",
        measured=measured,
        simulated=simulated,
        source="made up",
    )


def report() -> Report:
    return Report(
        points=[point("a", 10.0, 11.0), point("b", 10.0, 7.0), point("c", 1.0, 1.0, "h")],
        tables=[GroupErrors(group="kernels/x", errors=errors_of([point("", 1.0, 2.0)]), refused=0)],
        refusals=[
            Refusal(group="g", reason="too odd"),
            Refusal(group="g", reason="too odd", rows=2),
            Refusal(group="nothing", reason="no model"),
        ],
    )


def test_json_has_the_documented_keys_and_no_others() -> None:
    found = report().as_json()
    assert set(found) == {"groups", "points", "refused"}
    assert all(set(group) == GROUP_KEYS for group in found["groups"])
    assert all(set(each) == POINT_KEYS for each in found["points"])
    assert all(set(each) == {"group", "reason", "rows"} for each in found["refused"])


def test_groups_come_once_with_their_errors_and_refusals() -> None:
    groups = {group["group"]: group for group in report().as_json()["groups"]}
    assert list(groups) == ["kernels/x", "g", "h", "nothing"]
    assert (groups["g"]["rows"], groups["g"]["refused"]) == (2, 3)
    assert groups["g"]["median_abs_error_frac"] == pytest.approx(0.2)
    assert groups["g"]["worst_abs_error_frac"] == pytest.approx(0.3)
    assert groups["g"]["median_signed_error_frac"] == pytest.approx(-0.1)
    assert (groups["nothing"]["rows"], groups["nothing"]["refused"]) == (0, 1)
    assert groups["nothing"]["median_abs_error_frac"] is None
    assert groups["kernels/x"]["worst_abs_error_frac"] == pytest.approx(1.0)


def test_error_is_signed() -> None:
    assert [p.error_frac for p in report().points] == pytest.approx([0.1, -0.3, 0.0])


def test_reasons_are_counted() -> None:
    assert report().reasons() == {("g", "too odd"): 3, ("nothing", "no model"): 1}


def test_chosen_groups_are_those_with_a_prefix() -> None:
    assert report().chosen(()).as_json() == report().as_json()
    chosen = report().chosen(["h", "kernels/"])
    assert [group.group for group in chosen.groups()] == ["kernels/x", "h"]


def test_page_shows_every_group_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.md"
    write_page(path, report())
    text = path.read_text()
    assert "| g | 2 | 20.0% |" in text
    assert "| g | 3 | too odd |" in text
    assert "| nothing | 0 |" in text
    assert "| a | `mean_ttft_ms` | 10 | 11 | +10.0% | made up |" in text
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page(tmp_path / "no" / "page.md", report())


def test_sources_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Sources(kernels=(tmp_path / "k",), points=(tmp_path / "p",))
    assert len(caught.value.problems) == 2


def test_sources_of_a_data_folder_are_those_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").mkdir()
    found = sources_in(data_folder(tmp_path))
    assert (found.kernels, found.deployments) == ((tmp_path / "kernels",), ())
    assert found.with_shipped_points
    assert not found.is_bare
    monkeypatch.setenv("SIMPOD_SHARED", str(tmp_path))
    assert data_folder(None) == tmp_path
    monkeypatch.setenv("SIMPOD_SHARED", str(tmp_path / "none"))
    assert data_folder(None) is None
    assert sources_in(None).is_bare
    with pytest.raises(ConfigError, match="no such folder"):
        data_folder(tmp_path / "none")


def test_only_wanted_sources_are_run(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    found = sources_in(tmp_path)
    assert found.only(()) == found
    kernels = found.only(["kernels/h100"])
    assert kernels.kernels
    assert not kernels.with_shipped_points
    points = found.only(["points"])
    assert (points.kernels, points.with_shipped_points) == ((), True)
