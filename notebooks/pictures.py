"""What every notebook does with its picture: show it, and keep it where it is asked for.

`SIMPOD_FAST=1` makes runs short (the tests do), `SIMPOD_PICTURES=FOLDER` keeps each picture as PNG.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simpod.config import load_experiment
from simpod.run import Result, run

FAST = os.environ.get("SIMPOD_FAST") == "1"


def simulate(experiment: str, *changes: str, num_requests: int) -> Result:
    """One run; a sixth of the requests when it has to be fast."""
    count = num_requests // 6 if FAST else num_requests
    return run(load_experiment(experiment, [*changes, f"workload.num_requests={count}"]))


def first(values: Sequence[Any], count: int) -> Sequence[Any]:
    """All of the values, or only the first ones when it has to be fast."""
    return values[:count] if FAST else values


def show(axes: Any, name: str) -> None:
    """In Jupyter below the cell; as FOLDER/name.png if a folder is set."""
    figure = (axes.flat[0] if hasattr(axes, "flat") else axes).figure
    folder = os.environ.get("SIMPOD_PICTURES")
    if folder:
        figure.savefig(Path(folder) / f"{name}.png", dpi=130)
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if get_ipython() is not None:
        from IPython.display import display

        display(figure)
