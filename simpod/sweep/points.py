"""The points of a sweep: assignments of values to keys, by number, never all in memory."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simpod.sweep.spec import Axis, Sample, SweepSpec

Assignment = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Points:
    """grid x zip x sample; the first key of the grid varies slowest, the sample fastest."""

    axes: tuple[tuple[Assignment, ...], ...]

    def __len__(self) -> int:
        return math.prod(len(axis) for axis in self.axes)

    def __getitem__(self, index: int) -> Assignment:
        if not 0 <= index < len(self):
            raise IndexError(index)
        parts: list[Assignment] = []
        for axis in reversed(self.axes):
            index, position = divmod(index, len(axis))
            parts.append(axis[position])
        return {key: value for part in reversed(parts) for key, value in part.items()}

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that varies, in the order of the file."""
        return tuple(key for axis in self.axes for key in axis[0])


def points_of(spec: SweepSpec) -> Points:
    """The points of a sweep; without grid, zip and sample one, with nothing assigned."""
    axes = [grid_axis(key, values) for key, values in spec.grid.items()]
    if spec.zip:
        columns = [grid_axis(key, values) for key, values in spec.zip.items()]
        rows = zip(*columns, strict=True)
        axes.append(tuple({k: v for part in row for k, v in part.items()} for row in rows))
    if spec.sample is not None:
        axes.append(sampled(spec.sample))
    return Points(tuple(axes))


def grid_axis(key: str, values: Sequence[Any]) -> tuple[Assignment, ...]:
    """One assignment a value."""
    return tuple({key: value} for value in values)


def cross(axes: Mapping[str, Sequence[Any]]) -> list[Assignment]:
    """Every combination, the last key fastest."""
    return [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]


def sampled(sample: Sample) -> tuple[Assignment, ...]:
    """Points of a sample; a key's values do not depend on which other keys there are after it."""
    rng = np.random.default_rng(sample.seed)
    columns = {
        key: _values(axis, unit_sample(sample.method, sample.count, rng))
        for key, axis in sample.keys.items()
    }
    return tuple(
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    )


def unit_sample(method: str, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Numbers of [0, 1), [count]; latin_hypercube: one in each of `count` equal slices.

    Independent permutations of the slices for each key make a Latin hypercube (McKay, Beckman and
    Conover 1979).
    """
    inside = rng.random(count)
    if method == "random":
        return inside
    return np.minimum((rng.permutation(count) + inside) / count, np.nextafter(1.0, 0.0))


def _values(axis: Axis, unit: NDArray[np.float64]) -> list[Any]:
    if axis.choices:
        return [axis.choices[int(u * len(axis.choices))] for u in unit.tolist()]
    low, high = float(axis.min or 0.0), float(axis.max or 0.0)
    if axis.integer:
        low, high = math.ceil(low) - 0.5, math.floor(high) + 0.5
    if axis.scale == "log":
        low = max(low, 1e-300)
        found = low * np.power(high / low, unit)
    else:
        found = low + (high - low) * unit
    if axis.integer:
        return [int(value) for value in np.clip(np.rint(found), low + 0.5, high - 0.5)]
    return [float(value) for value in found]
