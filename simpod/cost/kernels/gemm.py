"""Seconds of a dense matrix product: tiles, waves and divided k over an extended roofline."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.spec import DieSpec

Floats = NDArray[np.float64]
Seconds = Floats | float

OUTPUT_BYTES: Final = 2.0
"""Of one element of C: bf16 in every library."""
PARTIAL_BYTES: Final = 4.0
"""Of one partial result of a divided k: fp32."""
STORE_FRAC: Final = 1.0 / 3.5
"""Rate at which a tile's results leave a core over the rate at which operands come in: they pass
registers and shared memory; fits of three generations of GPUs gave 3.0 to 3.9."""
MIN_SPLIT_ELEMENTS: Final = 256.0
"""Shortest part of a divided k: a few stages of the pipeline."""
BLOCK_SHAPES: Final = 4096
"""Shapes priced at a time: a dozen tiles each, whose intermediate results stay in the cache."""
TILES: Final = (
    (16, 64), (16, 128), (32, 128), (64, 64), (64, 128), (64, 256),
    (128, 32), (128, 64), (128, 128), (128, 256), (256, 64), (256, 128),
)  # fmt: skip
"""Rows and columns of C that a core computes at a time: what libraries choose from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmFormat:
    """Data types of the operands, scales included."""

    peak: str
    """Matrix units that it runs on; a die without them runs it in bf16."""
    activation_bytes: float
    """Of one element of A."""
    weight_bytes: float
    """Of one element of B."""

    @property
    def quantises(self) -> bool:
        """Activations come in bf16 and are quantised first."""
        return self.activation_bytes < 2.0


_BF16 = GemmFormat(peak="bf16", activation_bytes=2.0, weight_bytes=2.0)
_FP8 = GemmFormat(peak="fp8", activation_bytes=1.0, weight_bytes=1.0)
_FP4 = GemmFormat(peak="fp4", activation_bytes=0.5625, weight_bytes=0.5625)

FORMATS: Final[Mapping[str, GemmFormat]] = {
    "bf16": _BF16,
    "fp8": _FP8,  # a scale a row
    "fp8_static": _FP8,  # a scale a tensor, known before
    "fp8_block": _FP8,  # a scale for 128 x 128 weights
    "int8": GemmFormat(peak="int8", activation_bytes=1.0, weight_bytes=1.0),
    "nvfp4": _FP4,  # a byte for 16 elements
    "w4a8": GemmFormat(peak="int8", activation_bytes=1.0, weight_bytes=0.515625),
    "int8_wo": GemmFormat(peak="bf16", activation_bytes=2.0, weight_bytes=1.0),
    "int4_wo": GemmFormat(
        peak="bf16", activation_bytes=2.0, weight_bytes=0.515625
    ),  # groups of 128
}
"""Formats by name; `_wo`: only weights are quantised."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GemmShape:
    """C[m, n] = A[m, k] B[k, n]; the arrays broadcast."""

    m: Floats
    """Tokens."""
    n: Floats
    """Output features on this die."""
    k: Floats
    """Input features on this die."""
    is_result_kept: bool = False
    """C stays in L2 as far as it fits: the kernel after it reads it there."""


def overlapped_s(first_s: Seconds, second_s: Seconds, exposed_frac: float) -> Floats:
    """Two phases that overlap: longer + exposed_frac * shorter^2 / longer.

    Between the maximum (0) and, at equal lengths, the sum (1); grows with both. Without powers, so
    the same bits alone or in arrays.
    """
    longer: Floats = np.maximum(first_s, second_s)
    shorter: Floats = np.minimum(first_s, second_s)
    return longer + exposed_frac * shorter * (shorter / longer)


def gemm_s(
    die: DieSpec,
    constants: GemmConstants,
    shape: GemmShape,
    dtype: str = "bf16",
    *,
    is_cold: bool = False,
    is_quantised: bool = False,
) -> Floats:
    """Seconds on the die of each product of `shape`, in a format of `FORMATS`.

    seconds = launch + quantise + min over tiles and parts of k of
    overlapped(cores, memory) + split.

    * cores: the time of the fullest core, see `_tiles_s`; a library picks the best tile.
    * memory = (n k weight_bytes + A^2 / (A + resident_frac * l2_bytes) + 2 m n) / (hbm_frac * peak)
      with A = m k activation_bytes: the kernel before has just written A, which is found in L2 as
      far as it fits. Weights come from memory: the tables show no gain of those that fit in L2.
    * a k divided into p parts fills idle cores; split = split_s + p 4 m n / (hbm_frac * peak) adds
      the parts up: fp32, written and read in L2 at about twice the memory's rate.
    * quantise = m (k quantise_bytes_per_element / peak + quantise_s_per_row / num_cores): the pass
      over activations that come in bf16.

    `is_cold`: activations come from memory, too. `is_quantised`: activations come in their format,
    the kernel before has quantised them. Results that are kept are found in L2 in the same way.
    """
    flags = {"is_cold": is_cold, "is_quantised": is_quantised}
    m, n, k = np.broadcast_arrays(shape.m, shape.n, shape.k)
    if m.size <= BLOCK_SHAPES:
        return _block_s(die, constants, shape, FORMATS[dtype], **flags)
    flat = [axis.ravel() for axis in (m, n, k)]
    blocks = []
    for first in range(0, m.size, BLOCK_SHAPES):
        rows, cols, depth = (axis[first : first + BLOCK_SHAPES] for axis in flat)
        block = replace(shape, m=rows, n=cols, k=depth)
        blocks.append(_block_s(die, constants, block, FORMATS[dtype], **flags))
    return np.concatenate(blocks).reshape(m.shape)


def called_s(die_s: Floats, constants: GemmConstants) -> Floats:
    """Seconds of calls outside a graph: the host prepares one while the die works on another."""
    return overlapped_s(die_s, constants.host_s, constants.exposed_frac)


def _block_s(
    die: DieSpec,
    constants: GemmConstants,
    shape: GemmShape,
    form: GemmFormat,
    *,
    is_cold: bool,
    is_quantised: bool,
) -> Floats:
    """What `gemm_s` says, of few shapes."""
    core_s, parts_s = _tiles_s(die, constants, shape, form)
    memory_s = _memory_s(die, constants, shape, form, is_cold=is_cold)
    exposed_frac = constants.exposed_frac
    seconds = overlapped_s(core_s, memory_s, exposed_frac)
    partial_s = shape.m * shape.n * PARTIAL_BYTES / (die.hbm_bytes_per_s * constants.hbm_frac)
    for parts, divided_s in parts_s:
        added_s = overlapped_s(divided_s, memory_s, exposed_frac) + parts * partial_s
        seconds = np.minimum(seconds, added_s.min(axis=0) + constants.split_s)
    seconds = seconds + constants.launch_s
    if not form.quantises or is_quantised:
        return seconds
    element_s = constants.quantise_bytes_per_element / die.hbm_bytes_per_s
    row_s = constants.quantise_s_per_row / die.num_cores
    return seconds + shape.m * (shape.k * element_s + row_s)


def _memory_s(
    die: DieSpec, constants: GemmConstants, shape: GemmShape, form: GemmFormat, *, is_cold: bool
) -> Floats:
    """Time of the memory traffic alone, see `gemm_s`."""
    resident_bytes = constants.resident_frac * die.l2_bytes
    activations = shape.m * shape.k * form.activation_bytes
    results = shape.m * shape.n * OUTPUT_BYTES
    if not is_cold:
        activations = activations * (activations / (activations + resident_bytes))
    if shape.is_result_kept:
        results = results * (results / (results + resident_bytes))
    total: Floats = shape.n * shape.k * form.weight_bytes + activations + results
    return total / (die.hbm_bytes_per_s * constants.hbm_frac)


def _tiles_s(
    die: DieSpec, constants: GemmConstants, shape: GemmShape, form: GemmFormat
) -> tuple[Floats, list[tuple[Floats, Floats]]]:
    """Time of the fullest core: of the best tile with whole k, and (parts, time) of a divided k.

    An element of k costs a tile of r rows and s columns overlapped(2 r s flops, (r activation_bytes
    + s weight_bytes) loads) at a core's rates. With x tiles a core on average, the fullest has
    w = x + wave_frac (ceil(x) - x), at least 1, and takes overlapped(w (k element + store),
    k depth_s_per_element): several tiles at a time, so that latency counts once. k is divided so
    that the parts of all tiles come to one wave, or to two. Arrays of a divided k have the tiles as
    their first axis.
    """
    m, n, k = shape.m, shape.n, shape.k
    axes = max(np.ndim(m), np.ndim(n), np.ndim(k))
    r, s = (size.reshape(-1, *([1] * axes)) for size in np.array(TILES, dtype=np.float64).T)
    bf16 = die.peak_flops_per_s["bf16"]
    flop_s = die.num_cores / (die.peak_flops_per_s.get(form.peak, bf16) * constants.compute_frac)
    byte_s = die.num_cores / (bf16 * constants.load_bytes_per_flop)
    load_s = (r * form.activation_bytes + s * form.weight_bytes) * byte_s
    element_s = overlapped_s(2.0 * r * s * flop_s, load_s, constants.exposed_frac)
    store_s = r * s * OUTPUT_BYTES * byte_s / STORE_FRAC

    def fullest_core_s(tiles: Floats, length: Floats) -> Floats:
        per_core = tiles / die.num_cores
        idle = np.ceil(per_core) - per_core
        waves = np.maximum(per_core + constants.wave_frac * idle, 1.0)
        latency_s = length * constants.depth_s_per_element
        busy_s = waves * (length * element_s + store_s)
        return overlapped_s(busy_s, latency_s, constants.exposed_frac)

    tiles = np.ceil(m / r) * np.ceil(n / s)
    most_parts = np.maximum(np.floor(k / MIN_SPLIT_ELEMENTS), 1.0)
    divided = []
    for waves in (1.0, 2.0):
        fitting = np.maximum(np.floor(waves * die.num_cores / tiles), 1.0)
        parts = np.minimum(fitting, most_parts)
        divided.append((parts, fullest_core_s(tiles * parts, k / parts)))
    return fullest_core_s(tiles, k).min(axis=0), divided
