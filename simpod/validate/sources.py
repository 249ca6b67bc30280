"""Where measured data is: what the user names, and a folder laid out as the project's own."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from simpod.errors import ConfigError
from simpod.hardware.spec import HardwareProfile
from simpod.validate.report import Report

VARIABLE: Final = "SIMPOD_SHARED"
KINDS: Final = ("kernels", "deployments", "requests", "forwards", "collectives", "points")
COLLECTIVES: Final = (
    "measured/collectives.csv",
    "measured/deepep_ll_h100_1to8nodes.csv",
    "measured/deepep_normal_h100_1to8nodes.csv",
    "measured/alltoall_gb200_ep2to64.csv",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Files and folders of measurements, by kind; `points` and `kernels` besides what ships."""

    kernels: tuple[Path, ...] = ()
    deployments: tuple[Path, ...] = ()
    requests: tuple[Path, ...] = ()
    forwards: tuple[Path, ...] = ()
    collectives: tuple[Path, ...] = ()
    points: tuple[Path, ...] = ()
    with_shipped_points: bool = True
    with_shipped_kernels: bool = True

    def __post_init__(self) -> None:
        missing = [
            f"{path}: not found"
            for kind in KINDS
            for path in getattr(self, kind)
            if not path.exists()
        ]
        if missing:
            raise ConfigError(missing)

    def only(self, patterns: Sequence[str]) -> "Sources":
        """Without the kinds of which no group is wanted; all of them without patterns."""

        def is_wanted(kind: str) -> bool:
            return not patterns or any(
                pattern.startswith(kind) or kind.startswith(pattern) for pattern in patterns
            )

        dropped: dict[str, Any] = {kind: () for kind in KINDS if not is_wanted(kind)}
        return replace(
            self,
            **dropped,
            with_shipped_points=self.with_shipped_points and is_wanted("points"),
            with_shipped_kernels=self.with_shipped_kernels and is_wanted("kernels"),
        )

    @property
    def is_bare(self) -> bool:
        """Nothing but what ships."""
        return self.with_shipped_points and not any(getattr(self, kind) for kind in KINDS)


def data_folder(given: Path | None) -> Path | None:
    """The folder named, or in SIMPOD_SHARED, or `../shared`; None if there is none."""
    if given is not None:
        if not given.is_dir():
            raise ConfigError(f"--data {given}: no such folder")
        return given
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else Path("..") / "shared"
    return folder if folder.is_dir() else None


def sources_in(folder: Path | None) -> Sources:
    """Everything that a data folder has where simpod's own lies; the shipped points always."""
    if folder is None:
        return Sources()

    def there(*names: str) -> tuple[Path, ...]:
        return tuple(path for name in names if (path := folder / name).exists())

    return Sources(
        kernels=there("kernels"),
        deployments=there("measured/e2e_gpu.csv"),
        requests=there("measured/requests_vllm"),
        forwards=there("measured/ascend_forward_times.csv"),
        collectives=there(*COLLECTIVES),
    )


Stage = Callable[[str, int], Callable[[], None]]
"""Called with a stage's name and how much it has to do; gives what to call after each."""


def validate_all(
    sources: Sources,
    processes: int | None,
    stage: Stage,
    kernels_of: HardwareProfile | None = None,
) -> Report:
    """Run every kind that `sources` has. kernels_of: see `validate_kernels`."""
    from simpod.validate.collectives import validate_collectives
    from simpod.validate.deployments import read_deployments, validate_deployments
    from simpod.validate.forwards import validate_forwards
    from simpod.validate.kernels import validate_kernels, validate_tables
    from simpod.validate.points import read_points, shipped_points, validate_points
    from simpod.validate.request_logs import validate_requests
    from simpod.validate.samples import shipped_tables

    report = Report()
    for path in sources.kernels:
        report.add(validate_kernels(path, kernels_of))
    if sources.with_shipped_kernels:
        report.add(validate_tables(shipped_tables()))
    for path in sources.collectives:
        report.add(validate_collectives(path))
    for path in sources.forwards:
        report.add(validate_forwards(path))
    for path in sources.requests:
        report.add(validate_requests(path))
    for path in sources.deployments:
        rows = read_deployments(path)
        report.add(validate_deployments(rows, processes, stage(path.name, len(rows))))
    points = shipped_points() if sources.with_shipped_points else []
    points += [point for path in sources.points for point in read_points(path)]
    if points:
        report.add(validate_points(points, processes, stage("points", len(points))))
    return report
