"""The page: one file, small, and alive in a browser."""

import contextlib
import functools
import json
import re
from dataclasses import replace
from importlib import util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_runs import call
from report_cases import apart, curve, together, uneven

from simpod.report.html import write_report
from simpod.report.html.many import many_payload
from simpod.report.html.page import page
from simpod.report.html.parts import shortened
from simpod.report.html.run import run_payload
from simpod.report.sources import result_of


def data_of(path):
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def charts_of(data):
    return {chart["id"]: chart for group in data["charts"] for chart in group["charts"]}


def test_a_run_has_figures_with_intervals_and_every_chart(tmp_path) -> None:
    out = tmp_path / "run.html"
    done = call("report", apart(), "-o", out)
    assert done.exit_code == 0, done.output
    data, summary = data_of(out), result_of(apart()).summary
    figures = {figure["name"]: figure for figure in data["figures"]}
    assert figures["Mean TTFT"]["value"] == pytest.approx(summary["mean_ttft_ms"], rel=1e-4)
    assert figures["Mean TTFT"]["low"] < figures["Mean TTFT"]["value"]
    assert figures["Within the SLO"]["value"] == pytest.approx(
        100 * summary["slo_attainment"], rel=1e-4
    )
    wanted = {"ttft-parts", "e2e-parts", "steps", "cdf-ttft", "cdf-tpot", "scatter", "arrivals"}
    wanted |= {"waiting", "running", "kv", "transfers", "traffic", "links-scale_up"}
    assert set(charts_of(data)) == wanted
    assert json.loads(data["experiment"])["name"] == "apart"
    assert ["seed", "0"] in data["provenance"]


def test_the_explorer_has_the_slowest_and_where_their_time_went(tmp_path) -> None:
    explorer = run_payload(result_of(apart()))["explorer"]
    rows = result_of(apart()).requests
    assert explorer["rows"][0][0] == rows.loc[rows["ttft_s"].idxmax(), "request_id"]
    for row, parts in zip(explorer["rows"], explorer["parts"], strict=True):
        assert parts["id"] == row[0]
        assert sum(parts["seconds"]) == pytest.approx(row[-1])


def test_it_is_one_file_that_asks_for_nothing(tmp_path) -> None:
    for name, sources in (("run", [apart()]), ("many", curve())):
        out = tmp_path / f"{name}.html"
        write_report(sources, out)
        text = out.read_text(encoding="utf-8")
        assert not re.search(r'(src|href)="(?!#|data:)', text)
        assert "@import" not in text
        assert "url(http" not in text
        assert "default-src 'none'" in text


def test_many_runs_have_curves_a_pareto_and_a_table(tmp_path) -> None:
    write_report(curve(), tmp_path / "many.html")
    data = data_of(tmp_path / "many.html")
    charts = charts_of(data)
    assert {"rate-slo-attainment", "rate-request-goodput", "pareto-chart"} <= set(charts)
    (series,) = charts["rate-slo-attainment"]["series"]
    assert series["low"][0] <= series["y"][0] <= series["high"][0]
    assert len(data["tables"][0]["rows"]) == 6
    assert data["explorer"] is None


def test_a_sweep_folder_is_many_runs(tmp_path) -> None:
    frame = pd.DataFrame(
        {
            "run_id": ["1", "2", "3"],
            "seed": 0,
            "workload.arrivals.rate_per_s": [1.0, 2.0, 3.0],
            "status": ["ok", "ok", "failed"],
            "error": None,
            "request_rate": [1.0, 2.0, None],
            "slo_attainment": [1.0, 0.4, None],
            "mean_ttft_ms": [10.0, 20.0, None],
        }
    )
    frame.to_parquet(tmp_path / "runs.parquet")
    write_report([tmp_path], tmp_path / "sweep.html")
    data = data_of(tmp_path / "sweep.html")
    assert data["subtitle"].startswith("2 runs")
    assert data["figures"][0]["value"] == pytest.approx(1 + 1 / 6, rel=1e-4)
    frame["slo_attainment"] = [1.0, 0.95, None]
    frame.to_parquet(tmp_path / "runs.parquet")
    write_report([tmp_path], tmp_path / "beyond.html")
    data = data_of(tmp_path / "beyond.html")
    assert data["figures"][0]["name"].endswith("90 % beyond")
    assert charts_of(data)["rate-slo-attainment"]["marks"][0]["label"] == "> 2/s"


def test_a_band_below_zero_stays_on_a_logarithmic_axis() -> None:
    """Two seeds that differ much have an interval that reaches below 0."""
    rows = {"variant": "a", "seed": [0, 1] * 2, "rate_per_s": [1.0, 1.0, 2.0, 2.0]}
    runs = pd.DataFrame({**rows, "mean_ttft_ms": [1.0, 9.0, 2.0, 3.0], "slo_attainment": 0.99})
    charts = charts_of(many_payload(runs, "two"))
    assert charts["rate-mean-ttft-ms"]["series"][0]["low"][0] == 0
    assert max(charts["rate-slo-attainment"]["series"][0]["high"]) <= 1.0


def test_heat_maps_from_files(tmp_path) -> None:
    np.save(tmp_path / "before.npy", np.arange(1, 601, dtype=float).reshape(2, 300))
    (tmp_path / "links.csv").write_text("plane,link,used_frac\nup,up/out/0,0.5\n")
    command = ("--experts", tmp_path / "before.npy", "--links", tmp_path / "links.csv")
    out = tmp_path / "run.html"
    assert call("report", together(), "-o", out, *command).exit_code == 0
    charts = charts_of(data_of(out))
    assert charts["links-up"]["values"] == [[50.0]]
    assert len(charts["experts-0"]["values"][0]) == 256  # cut, its largest values kept
    assert charts["experts-0"]["counts"] == [300, 300]
    assert charts["experts-0"]["max"] == pytest.approx(300 / 150.5, rel=1e-4)
    assert call("report", together(), "-o", out).exit_code == 2


def test_shortening_keeps_the_hottest() -> None:
    values = np.zeros(1000)
    values[777] = 3.0
    assert shortened(values, 10).tolist() == [0, 0, 0, 0, 0, 0, 0, 3, 0, 0]


def of_100_000():
    """A run of 100,000 requests: the same one, repeated."""
    result = result_of(together())
    many = pd.concat([result.requests] * 834, ignore_index=True)
    assert len(many) > 100_000
    return replace(result, requests=many)


def test_the_page_does_not_grow_with_the_requests() -> None:
    assert len(page(run_payload(of_100_000())).encode()) < 1_000_000


def test_loads_and_links_of_a_result_are_on_its_page() -> None:
    charts = charts_of(run_payload(result_of(uneven())))
    before, after = charts["experts-0"], charts["experts-1"]
    assert before["title"] == "Load of dies, before balancing"
    assert before["max"] == after["max"] <= 3.0
    assert max(map(max, after["values"])) < max(map(max, before["values"]))
    assert len(before["rows"]) == 58
    assert before["counts"] == [32] * 58
    links = charts_of(run_payload(result_of(apart())))["links-scale_up"]
    assert max(map(max, links["values"])) == pytest.approx(links["max"])


def test_text_cannot_leave_its_place() -> None:
    payload = run_payload(result_of(together()))
    payload["title"] = "</title><script>alert(1)</script>"
    assert "<script>alert" not in page(payload)


@contextlib.contextmanager
def browser():
    """Headless Chromium, or a skip that says what is missing."""
    path = screenshots().browser_path()
    if path is None:
        pytest.skip("needs a Chromium or Chrome, and playwright: pip install 'simpod[browser]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@functools.cache
def screenshots():
    """docs/screenshots.py, which finds a browser."""
    file = Path(__file__).resolve().parent.parent / "docs" / "screenshots.py"
    spec = util.spec_from_file_location("screenshots", file)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_alive_in_a_browser(tmp_path) -> None:
    pages = {name: tmp_path / f"{name}.html" for name in ("run", "many", "uneven", "big")}
    write_report([apart()], pages["run"])
    write_report(curve(), pages["many"])
    write_report([uneven()], pages["uneven"])
    pages["big"].write_text(page(run_payload(of_100_000())), encoding="utf-8")
    with browser() as chromium:
        tab = chromium.new_page(color_scheme="dark", viewport={"width": 1240, "height": 900})
        said: list[str] = []
        asked: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        open_page(tab, pages["run"])
        check_charts(tab)
        check_zoom_and_hover(tab)
        check_sorting(tab)
        check_explorer(tab)
        check_themes(tab)
        for name in ("many", "uneven"):
            open_page(tab, pages[name])
            charts = tab.query_selector_all(".chart")
            assert all(chart.query_selector(".series") for chart in charts)
        check_heat(tab)
        assert min(open_page(tab, pages["big"]) for _ in range(2)) < 2.0
        assert said == []
        assert set(asked) == {path.as_uri() for path in pages.values()}


def open_page(tab, path) -> float:
    """Seconds until all is drawn, as the page sees it."""
    tab.goto(path.as_uri())
    tab.wait_for_selector("body[data-ready]")
    return tab.evaluate("performance.now()") / 1e3


def check_heat(tab) -> None:
    cell = tab.locator("#experts-0 rect.series").first
    cell.scroll_into_view_if_needed()
    cell.hover()
    assert re.fullmatch(r"layer 0, 0\n[\d.]+ x the layer's mean", tab.inner_text("#experts-0 .tip"))
    cells = tab.eval_on_selector_all("#experts-1 rect.series", "cells => cells.length")
    assert cells == 58 * 32


def check_charts(tab) -> None:
    for chart in tab.query_selector_all(".chart"):
        assert chart.query_selector(".series") is not None, chart.get_attribute("id")
    entry = tab.query_selector("#running .legend button")
    drawn = len(tab.query_selector_all("#running path.series"))
    entry.click()
    assert len(tab.query_selector_all("#running path.series")) == drawn - 1
    assert entry.get_attribute("aria-pressed") == "false"
    tab.focus("#cdf-ttft svg")
    tab.keyboard.press("ArrowRight")
    assert "TTFT (s)" in tab.inner_text("#cdf-ttft .tip")
    before = tab.inner_html("#cdf-ttft svg")
    tab.keyboard.press("+")
    assert tab.inner_html("#cdf-ttft svg") != before
    tab.keyboard.press("0")
    assert tab.inner_html("#cdf-ttft svg") == before


def check_zoom_and_hover(tab) -> None:
    tab.locator("#kv svg").scroll_into_view_if_needed()
    box = tab.locator("#kv svg").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"]
    before = tab.inner_html("#kv svg")
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 0.4 * box["width"], y, steps=3)
    tab.mouse.up()
    assert tab.inner_html("#kv svg") != before
    assert tab.is_visible("#kv .reset")
    tab.click("#kv .reset")
    assert tab.inner_html("#kv svg") == before
    bar = tab.locator("#steps rect.series").first
    bar.scroll_into_view_if_needed()
    bar.hover()
    assert "%" in tab.inner_text("#steps .tip")


def check_sorting(tab) -> None:
    def column() -> list[float]:
        texts = tab.eval_on_selector_all(
            "#slowest tbody tr td:nth-child(3)", "cells => cells.map(cell => cell.textContent)"
        )
        return [float(text.replace(",", "")) for text in texts]

    tab.click("#slowest th:nth-child(3) button")
    assert column() == sorted(column(), reverse=True)
    tab.keyboard.press("Enter")
    assert column() == sorted(column())
    for down in (True, False):
        tab.click("#slowest th:nth-child(3) button")
        assert column() == sorted(column(), reverse=down)


def check_explorer(tab) -> None:
    row = tab.query_selector("#slowest tbody tr:nth-child(5)")
    number = row.query_selector("td").inner_text().replace(",", "")
    row.click()
    assert f"Request {number}:" in tab.inner_text("#detail")
    row.focus()
    tab.keyboard.press("ArrowDown")
    assert f"Request {number}:" not in tab.inner_text("#detail")
    assert len(tab.query_selector_all("tr[aria-selected='true']")) == 1


def check_themes(tab) -> None:
    def background() -> str:
        return tab.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = background()
    tab.click("#theme")
    assert background() == "rgb(255, 255, 255)" != dark
    tab.focus("#theme")
    tab.keyboard.press("Enter")
    assert background() == dark
    tab.emulate_media(media="print")
    assert background() == "rgb(255, 255, 255)"
    assert not tab.is_visible("#theme")
    assert tab.is_visible("#steps rect.series")
    tab.emulate_media(media="screen")
