"""Seconds of a dense matrix product: tiles, waves and divided k over an extended roofline."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


def overlapped_s(first_s: Seconds, second_s: Seconds, exposed_frac: float) -> Floats:
    """Two phases that overlap: longer + exposed_frac * shorter^2 / longer.

    Between the maximum (0) and, at equal lengths, the sum (1); grows with both. Without powers, so
    the same bits alone or in arrays.
    """
    longer: Floats = np.maximum(first_s, second_s)
    shorter: Floats = np.minimum(first_s, second_s)
    return longer + exposed_frac * shorter * (shorter / longer)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Core:
    """Rates of one core."""

    num_cores: int
    flop_s: float
    """One operation of the inner loop."""
    load_byte_s: float
    """One byte of an operand."""
    depth_s: float
    """Latency of one element of k."""
    wave_frac: float
    exposed_frac: float


def _core_of(die: DieSpec, constants: GemmConstants, form: GemmFormat) -> _Core:
    """A core of `die`: an equal share of its peaks."""
    bf16 = die.peak_flops_per_s["bf16"]
    peak = die.peak_flops_per_s.get(form.peak, bf16)
    return _Core(
        num_cores=die.num_cores,
        flop_s=die.num_cores / (peak * constants.compute_frac),
        load_byte_s=die.num_cores / (bf16 * constants.load_bytes_per_flop),
        depth_s=constants.depth_s_per_element,
        wave_frac=constants.wave_frac,
        exposed_frac=constants.exposed_frac,
    )


def _fullest_core_s(
    core: _Core, tiles: Floats, element_s: Seconds, store_s: float, k: Floats
) -> Floats:
    """Time of the core with most of `tiles`, each an inner loop over `k` and a store.

    tiles a core = x + wave_frac (ceil(x) - x) with x = tiles / num_cores, at least 1;
    overlapped(tiles a core * (k element_s + store_s), k depth_s): one core works on several tiles
    at a time, so that latency counts once.
    """
    per_core = tiles / core.num_cores
    waves = np.maximum(per_core + core.wave_frac * (np.ceil(per_core) - per_core), 1.0)
    return overlapped_s(waves * (k * element_s + store_s), k * core.depth_s, core.exposed_frac)


def _candidates(
    core: _Core, shape: GemmShape, form: GemmFormat
) -> Iterator[tuple[Floats | None, Floats]]:
    """Parts of k (None: whole) and time of the fullest core, for each tile.

    An element of k costs a tile of r rows and s columns overlapped(2 r s flop_s, (r
    activation_bytes + s weight_bytes) load_byte_s); k is divided so that the parts of all tiles
    come to one wave, or to two.
    """
    most_parts = np.maximum(np.floor(shape.k / MIN_SPLIT_ELEMENTS), 1.0)
    rows = {r: np.ceil(shape.m / r) for r, _ in TILES}
    cols = {s: np.ceil(shape.n / s) for _, s in TILES}
    for r, s in TILES:
        load_s = (r * form.activation_bytes + s * form.weight_bytes) * core.load_byte_s
        element_s = overlapped_s(2.0 * r * s * core.flop_s, load_s, core.exposed_frac)
        store_s = r * s * OUTPUT_BYTES * core.load_byte_s / STORE_FRAC
        tiles = rows[r] * cols[s]
        yield None, _fullest_core_s(core, tiles, element_s, store_s, shape.k)
        for waves in (1.0, 2.0):
            fitting = np.maximum(np.floor(waves * core.num_cores / tiles), 1.0)
            parts = np.minimum(fitting, most_parts)
            yield parts, _fullest_core_s(core, tiles * parts, element_s, store_s, shape.k / parts)


def gemm_s(
    die: DieSpec,
    constants: GemmConstants,
    shape: GemmShape,
    dtype: str = "bf16",
    *,
    is_cold: bool = False,
    is_captured: bool = False,
) -> Floats:
    """Seconds of each product of `shape`, in a format of `FORMATS`.

    seconds = launch + quantise + min over tiles and parts (overlapped(cores, memory) + split),
    at least about host_s.

    * cores: the time of the fullest core, see `_core_s`; a library takes the best of its tiles.
    * memory = (n k weight_bytes + A^2 / (A + resident_frac * l2_bytes) + 2 m n) / (hbm_frac * peak)
      with A = m k activation_bytes: the kernel before has just written A, which is found in L2 as
      far as it fits. Weights always come from memory: benchmarks rotate them, layers do.
    * a k divided into p parts fills idle cores; adding up costs split_s and a write and a read of
      the fp32 partial results, which stay in L2 (twice the memory's rate).
    * quantise = m (k quantise_bytes_per_element / peak + quantise_s_per_row / num_cores): the pass
      over activations that come in bf16.

    `is_cold`: activations come from memory, too. `is_captured`: the call is part of a graph, host
    time is hidden.
    """
    form = FORMATS[dtype]
    c = constants
    m, n, k = shape.m, shape.n, shape.k
    bytes_per_s = die.hbm_bytes_per_s * c.hbm_frac
    activations = m * k * form.activation_bytes
    resident_bytes = 0.0 if is_cold else c.resident_frac * die.l2_bytes
    from_memory = activations * (activations / (activations + resident_bytes))
    memory_bytes = n * k * form.weight_bytes + from_memory + m * n * OUTPUT_BYTES
    memory_s = memory_bytes / bytes_per_s
    partial_s = m * n * (PARTIAL_BYTES / bytes_per_s)
    whole_s = best_s = np.asarray(np.inf)
    for parts, core_s in _candidates(_core_of(die, c, form), shape, form):
        if parts is None:
            whole_s = np.minimum(whole_s, core_s)
            continue
        divided_s = overlapped_s(core_s, memory_s, c.exposed_frac) + parts * partial_s
        best_s = np.minimum(best_s, divided_s)
    whole_s = overlapped_s(whole_s, memory_s, c.exposed_frac)
    seconds = np.minimum(whole_s, best_s + c.split_s) + c.launch_s
    if form.quantises:
        row_s = c.quantise_s_per_row / die.num_cores
        seconds = seconds + m * (k * (c.quantise_bytes_per_element / die.hbm_bytes_per_s) + row_s)
    return seconds if is_captured else overlapped_s(seconds, c.host_s, c.exposed_frac)
