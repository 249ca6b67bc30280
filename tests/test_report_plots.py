"""Every picture: what it shows, that it can be written, and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from cli_runs import call
from report_cases import apart, curve, together, uneven

from simpod import report
from simpod.errors import ConfigError
from simpod.report.sources import requests_of, result_of, runs_of
from simpod.report.style import PAPER_WIDTH_IN, save


def labels(axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_slo_curves_have_bands_a_target_and_the_knee() -> None:
    axes = report.plot_slo_curves(*curve())
    attainment, goodput = axes
    (label,) = labels(attainment)
    assert label.startswith("together (2 seeds), 90% up to ")
    assert label.endswith("/s")
    assert len(attainment.collections) == 1  # the band
    assert "(%)" in attainment.get_ylabel()
    assert "offered" in labels(goodput)


def test_a_knee_beyond_all_rates_is_told_and_not_drawn() -> None:
    runs = runs_of(curve()).assign(slo_attainment=1.0)
    axes = report.plot_slo_curve(runs)
    assert "up to more than" in labels(axes)[0]
    assert all(line.get_linestyle() != ":" for line in axes.get_lines())


def test_a_table_serves_as_well_as_folders() -> None:
    runs = runs_of(curve()).assign(variant=lambda rows: "seed " + rows["seed"].astype(str))
    axes = report.plot_slo_curve(runs, metric="mean_ttft_ms")
    assert labels(axes) == ["seed 0", "seed 1"]
    assert not axes.collections  # one seed each: no band
    assert axes.figure.get_figwidth() == PAPER_WIDTH_IN


def test_pareto_shades_what_is_feasible() -> None:
    axes = report.plot_pareto(*curve())
    assert [text.get_text() for text in axes.texts] == ["TPOT ≤ 50 ms"]
    assert "per NPU" in axes.get_ylabel()
    assert "per user" in axes.get_xlabel()
    assert "hollow" in labels(axes)[0]


def test_scatter_says_the_attainment_of_the_measured() -> None:
    axes = report.plot_scatter(apart())
    summary = result_of(apart()).summary
    assert axes.get_title(loc="left").startswith(f"{summary['slo_attainment']:.1%}")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("TPOT (ms)", "TTFT (s)")
    assert report.plot_scatter(requests_of(apart())).get_title(loc="left") == ""  # no SLO known


def test_cdf_reaches_one_and_names_the_p99() -> None:
    whole, tail = report.plot_cdfs(apart(), together())
    assert whole.lines[0].get_ydata()[-1] == 1.0
    p99 = requests_of(apart())["ttft_s"].quantile(0.99)
    assert labels(whole)[0] == f"apart: p99 {p99:.3g} s"
    assert tail.get_yscale() == "log"
    with pytest.raises(ConfigError, match="unknown latency"):
        report.plot_cdf(apart(), metric="itl_s")


def test_attribution_bars_add_up_to_the_ttft() -> None:
    axes = report.plot_attribution(apart())
    ends = [bar.get_x() + bar.get_width() for bars in axes.containers for bar in bars]
    slowest = requests_of(apart())["ttft_s"]
    assert max(ends) == pytest.approx(slowest[slowest >= slowest.quantile(0.99)].mean(), rel=2e-3)
    assert "queue" in labels(axes)
    assert "decode" in labels(report.plot_attribution(apart(), together(), total="e2e_s"))


def test_steps_are_shares_of_each_pool() -> None:
    axes = report.plot_steps(apart())
    assert [tick.get_text().split("\n")[0] for tick in axes.get_yticklabels()] == [
        "decode",
        "prefill",
    ]
    ends = [bar.get_x() + bar.get_width() for bars in axes.containers for bar in bars]
    assert max(ends) == pytest.approx(100, abs=0.5)
    assert "ms" in report.plot_steps(apart(), share=False).get_xlabel()


def test_timeline_has_a_panel_for_each_thing() -> None:
    assert len(report.plot_timeline(apart())) == 5
    assert len(report.plot_timeline(together())) == 4  # nothing is transferred


def test_expert_loads_say_how_uneven_they_are(tmp_path) -> None:
    load = np.ones((3, 4))
    load[0, 0] = 5.0  # max / mean: 5 / 2 in this layer, 1 in the others
    np.save(tmp_path / "before.npy", load)
    axes = report.plot_experts(tmp_path / "before.npy", np.ones((3, 4)))
    titles = [each.get_title(loc="left") for each in axes]
    assert titles == ["before: max / mean 1.50", "load 2: max / mean 1.00"]
    for bad, message in ((-load, "counts >= 0"), ([["a"]], "numbers")):
        with pytest.raises(ConfigError, match=message):
            report.plot_experts(bad)


def test_a_result_gives_its_loads_and_links(tmp_path) -> None:
    axes = report.plot_experts(uneven())
    titles = [each.get_title(loc="left") for each in axes]
    assert titles[0].startswith("before balancing: max / mean 2.")
    assert titles[1].startswith("after: max / mean 1.")
    assert axes[0].get_xlabel() == "die"
    (up,) = report.plot_links(apart())
    assert up.get_title(loc="left").startswith("scale_up: fullest link")
    for kind, source, missing in (
        ("experts", apart(), "experts.parquet"),
        ("links", uneven(), "links.parquet"),
    ):
        done = call("plot", kind, source, "-o", tmp_path / "x.png")
        assert done.exit_code == 2
        assert missing in done.output
    done = call("plot", "experts", uneven(), "--by", "rank", "-o", tmp_path / "x.png")
    assert done.exit_code == 2
    assert "die, slot, expert" in done.output


def test_links_by_plane() -> None:
    table = pd.DataFrame(
        {
            "plane": ["up", "up", "up", "vpc"],
            "link": ["up/out/0", "up/out/1", "up/in/0", "vpc/out/0"],
            "used_frac": [0.5, 0.25, 1.0, 0.0],
        }
    )
    axes = report.plot_links(table)
    assert [each.get_title(loc="left") for each in axes] == ["up: fullest link 100 %"]
    assert "nothing carried: vpc" in axes[0].get_xlabel()
    with pytest.raises(ConfigError, match="no link carried"):
        report.plot_links(table.assign(used_frac=0.0))


def validation(tmp_path):
    points = [
        {"id": f"p{i}", "group": f"g{i % 10}", "metric": "m", "measured": m, "simulated": 1.1 * m}
        for i, m in enumerate((1.0, 10.0, 100.0) * 8)
    ]
    path = tmp_path / "validation.json"
    path.write_text(json.dumps({"groups": [], "points": points}))
    return path


def test_parity_names_each_group_with_its_error(tmp_path) -> None:
    axes = report.plot_parity(validation(tmp_path))
    assert axes.get_xlim() == axes.get_ylim()
    assert labels(axes)[0].endswith(" (10%)")
    assert len(labels(axes)) == 8
    assert any(text.startswith("others") for text in labels(axes))
    with pytest.raises(ConfigError, match="validate --json"):
        report.plot_parity({"groups": []})


KINDS = {
    "slo": curve,
    "pareto": curve,
    "scatter": lambda: [apart()],
    "cdf": lambda: [apart(), together()],
    "attribution": lambda: [apart()],
    "steps": lambda: [apart()],
    "timeline": lambda: [apart()],
}
SUFFIXES = ("png", "svg", "pdf")
STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS)))
def test_the_command_writes_each_kind(number: int, kind: str, tmp_path) -> None:
    suffix = SUFFIXES[number % len(SUFFIXES)]
    out = tmp_path / f"picture.{suffix}"
    done = call("plot", kind, *KINDS[kind](), "-o", out)
    assert done.exit_code == 0, done.output
    assert out.read_bytes().startswith(STARTS[suffix])
    assert call("plot", kind, *KINDS[kind](), "-o", out).exit_code == 2  # not replaced unasked


def test_the_command_takes_files_of_loads_links_and_points(tmp_path) -> None:
    np.save(tmp_path / "load.npy", np.ones((2, 4)))
    (tmp_path / "links.csv").write_text("plane,link,used_frac\nup,up/out/0,0.5\n")
    for kind, file in (
        ("experts", tmp_path / "load.npy"),
        ("links", tmp_path / "links.csv"),
        ("parity", validation(tmp_path)),
    ):
        out = tmp_path / f"{kind}.png"
        assert call("plot", kind, file, "-o", out).exit_code == 0
        assert out.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slo", "nowhere", "-o", "x.png"), "there is no such folder"),
        (("cdf", "{apart}", "-o", "x.png", "--metric", "itl"), "allowed: ttft_s, tpot_s, e2e_s"),
        (("scatter", "{apart}", "-o", "x.docx"), "docx"),
        (("links", "nowhere.csv", "-o", "x.png"), "a table file is needed"),
        (("experts", "nowhere.npy", "-o", "x.png"), "there is no such file"),
        (("parity", "nowhere.json", "-o", "x.png"), "cannot be read"),
    ],
)
def test_mistakes(arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("plot", *(a.format(apart=apart()) for a in arguments))
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_the_same_bytes_each_time(tmp_path) -> None:
    for name in ("a.svg", "b.svg"):
        save(report.plot_steps(apart()), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_importing_the_package_of_plots_imports_no_library_of_plots() -> None:
    code = (
        "import sys, simpod.report, simpod.report.html, simpod.report.export,"
        " simpod.report.trace_events; print([n for n in ('matplotlib', 'pandas', 'pyarrow')"
        " if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
