"""Frozen results of tiny experiments: they prove nothing, but no number moves unseen.

Only `make golden` rewrites them, and prints what moved; the change belongs into CHANGELOG.md under
"Results changed".
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from simpod.config import load_experiment
from simpod.run import run

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.json"))

COUNTS = ("arrived", "finished", "refused", "live", "measured", "preemptions", "num_steps")
FIGURES = (
    "duration",
    "output_throughput",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "p99_itl_ms",
    "mean_e2el_ms",
    "prefix_hit_frac",
    "slo_attainment",
    "simulated_s",
)


def measured(case: dict[str, Any]) -> dict[str, Any]:
    """The frozen keys of a fresh run of the case."""
    summary = run(load_experiment(case["experiment"], case["set"])).summary
    return {key: summary[key] for key in (*COUNTS, *FIGURES)}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_figures_have_not_moved(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    fresh, frozen = measured(case), case["expected"]
    assert {key: fresh[key] for key in COUNTS} == {key: frozen[key] for key in COUNTS}
    for key in FIGURES:
        # 1e-9 and not equal: numpy may add up in another order on another processor
        assert fresh[key] == pytest.approx(frozen[key], rel=1e-9), key


def test_there_are_frozen_results() -> None:
    assert len(FILES) >= 3


def rewrite() -> None:
    """Run every case anew and print each figure that moved."""
    for path in FILES:
        case = json.loads(path.read_text(encoding="utf-8"))
        frozen = case.get("expected", {})
        case["expected"] = measured(case)
        path.write_text(json.dumps(case, indent=2) + "\n", encoding="utf-8")
        for key, value in case["expected"].items():
            if frozen.get(key) != value:
                sys.stdout.write(f"{path.stem}: {key}: {frozen.get(key)} -> {value}\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_golden.py --write")
    rewrite()
