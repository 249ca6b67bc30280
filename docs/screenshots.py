"""Pictures of the HTML report, in light and dark, by a browser of this machine.

`python docs/screenshots.py FOLDER` writes report-light.png and report-dark.png; without a browser
it says so and writes nothing.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from simpod.config import load_experiment
from simpod.report.html import write_report
from simpod.run import run, write_results

BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    *("chrome", "microsoft-edge"),
)
EXPERIMENT = "cloudmatrix384-deepseek-r1-production"
CHANGES = ("workload.num_requests=3000", "expert_routing={kind: correlated, log_scale: 0.64}")
WIDTH, HEIGHT = 1240, 2600


def browser_path() -> str | None:
    """A browser that Playwright can drive; None if there is none, or no Playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is not None:
        return found
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    return str(own) if own.is_file() else None


def write_pictures(page: Path, folder: Path, browser: str) -> None:
    """The upper part of a page as report-light.png and report-dark.png."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            tab = chromium.new_page(
                color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT}
            )
            tab.goto(page.as_uri())
            tab.wait_for_selector("body[data-ready]")
            tab.screenshot(path=folder / f"report-{scheme}.png")
        chromium.close()


def main() -> None:
    """Run, report, take the pictures."""
    browser = browser_path()
    if browser is None:
        sys.stderr.write("no pictures of the report: needs playwright and a Chromium\n")
        return
    result = run(load_experiment(EXPERIMENT, list(CHANGES)))
    with TemporaryDirectory() as draft:
        folder = write_results(
            Path(draft) / "run", result.records, result.summary, result.provenance
        )
        page = Path(draft) / "report.html"
        write_report([folder], page)
        write_pictures(page, Path(sys.argv[1]), browser)


if __name__ == "__main__":
    main()
