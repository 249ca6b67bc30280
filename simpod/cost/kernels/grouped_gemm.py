"""Seconds of the routed experts of one layer on one die."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from simpod.cost.kernels.expert_load import ExpertLoads
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.spec import DieSpec

Floats = NDArray[np.float64]
Amount = float | Floats

TilePolicy = Literal["tuned", "warp_group", "mean", "fixed"]
"""How a library chooses the tokens of a tile; see `tile_choices`."""

TUNED_TOKENS: Final = (16, 32, 64, 128)
WARP_GROUP_TOKENS: Final = (64, 128)
MEAN_TOKENS: Final = (8, 16, 32, 64, 128, 256)
TILE_COLUMNS: Final = 128
FULL_TILE_TOKENS: Final = 128
L2_SPEEDUP: Final = 4.0
"""Read bandwidth of the last cache over that of memory, for the part that is found there."""
OUTPUT_BYTES: Final = 2.0
ARRANGED_LAUNCHES: Final = 0.5
"""Of the launches of two products and two vector kernels, those of CANN's GroupedMatmulSwigluQuant
and GroupedMatmul, which are all that arranged rows need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """How weights and activations of the experts are held, and which units multiply them."""

    weight_bytes: float
    """Of one weight, scales included."""
    input_bytes: float
    """Of one activation that enters a product, scales included."""
    units: tuple[str, ...]
    """Keys of peak_flops_per_s, in order of preference."""


FORMATS: Final[Mapping[str, NumberFormat]] = MappingProxyType(
    {
        "bf16": NumberFormat(weight_bytes=2.0, input_bytes=2.0, units=("bf16",)),
        "fp8": NumberFormat(weight_bytes=1.0, input_bytes=1.0, units=("fp8", "bf16")),
        "fp8_block": NumberFormat(weight_bytes=1.0, input_bytes=1.0, units=("fp8", "bf16")),
        "int8": NumberFormat(weight_bytes=1.0, input_bytes=1.0, units=("int8", "bf16")),
        # a 16-bit scale for each 128 weights, products in bf16
        "int4": NumberFormat(weight_bytes=0.5 + 2 / 128, input_bytes=2.0, units=("bf16",)),
        # the same weights, products in int8
        "w4a8": NumberFormat(
            weight_bytes=0.5 + 2 / 128, input_bytes=1.0, units=("int8", "fp8", "bf16")
        ),
        # an 8-bit scale for each 16 numbers
        "nvfp4": NumberFormat(
            weight_bytes=0.5 + 1 / 16, input_bytes=0.5 + 1 / 16, units=("fp4", "fp8", "bf16")
        ),
        # an 8-bit scale for each 32 numbers
        "w4a16_mxfp4": NumberFormat(weight_bytes=0.5 + 1 / 32, input_bytes=2.0, units=("bf16",)),
        "w4a8_mxfp4_mxfp8": NumberFormat(
            weight_bytes=0.5 + 1 / 32, input_bytes=1.0 + 1 / 32, units=("fp8", "bf16")
        ),
    }
)
"""By the name of the quantisation."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GroupedGemmShape:
    """Experts of one layer on one die; all fields broadcast to [n]."""

    loads: ExpertLoads
    """Tokens of each of the die's experts [n, levels]: the hottest die's, as the others wait."""
    num_tokens: Amount
    """Tokens that enter the layer: all of the expert group where every die sees them (all-gather,
    and the measured tables), those that arrived here where they were dispatched."""
    topk: Amount
    """Experts of a token."""
    num_slots: Amount
    """Experts that the die holds."""
    hidden_size: Amount
    inter_size: Amount
    """Of one expert on this die: already divided by the tensor-parallel size."""
    num_up_matrices: Amount = 2.0
    """2: gate and up projection; 1: experts without a gate."""
    is_arranged: bool = False
    """Rows come in the order of experts and leave so: whoever brings them permutes and sums."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """One of the two grouped GEMMs: [pairs, inner] by [inner, columns] of each expert."""

    columns: Amount
    inner: Amount
    source_rows: Amount
    """Rows of the matrix that the inputs are gathered from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rates:
    """What one layer runs at on a die."""

    flops_per_s: float
    """Of all cores, largest tiles."""
    hbm_bytes_per_s: float
    """Peak."""
    weight_bytes_per_s: Amount
    """Of weights and activations, cache hits included."""
    num_cores: int
    l2_bytes: float


def peak_flops_per_s(die: DieSpec, dtype: str) -> float:
    """Of the units that multiply `dtype`; of the next wider ones if the die has none."""
    return next(
        die.peak_flops_per_s[unit] for unit in FORMATS[dtype].units if unit in die.peak_flops_per_s
    )


def working_set_bytes(shape: GroupedGemmShape, dtype: str) -> Floats:
    """Weights that are read and activations that live through the layer [n]."""
    held = FORMATS[dtype]
    matrices = shape.num_up_matrices + 1.0
    weights = shape.loads.hit * shape.hidden_size * shape.inter_size * matrices
    rows = shape.loads.pairs * (shape.hidden_size + shape.inter_size)
    return np.asarray(
        weights * held.weight_bytes + rows * (held.input_bytes + OUTPUT_BYTES) / 2.0, np.float64
    )


def rates_of(
    die: DieSpec,
    constants: GroupedGemmConstants,
    shape: GroupedGemmShape,
    dtype: str,
    is_cold: bool,
) -> Rates:
    """Bandwidth as seen by the layer: a benchmark that repeats a small one finds it in the cache.

    Share found there: 1 / (1 + (working set / (l2_frac l2_bytes))^2).
    """
    cache_bytes = constants.l2_frac * die.l2_bytes
    found = 0.0 if is_cold else 1.0 / (1.0 + (working_set_bytes(shape, dtype) / cache_bytes) ** 2)
    return Rates(
        flops_per_s=peak_flops_per_s(die, dtype) * constants.compute_frac,
        hbm_bytes_per_s=die.hbm_bytes_per_s,
        weight_bytes_per_s=die.hbm_bytes_per_s
        * constants.hbm_frac
        / (1.0 - found * (1.0 - 1.0 / L2_SPEEDUP)),
        num_cores=die.num_cores,
        l2_bytes=die.l2_bytes,
    )


def products_of(shape: GroupedGemmShape) -> tuple[Product, Product]:
    """Gate-up and down."""
    return (
        Product(
            columns=shape.num_up_matrices * shape.inter_size,
            inner=shape.hidden_size,
            source_rows=shape.num_tokens,
        ),
        Product(columns=shape.hidden_size, inner=shape.inter_size, source_rows=shape.loads.pairs),
    )


def smooth_max(first: Floats, second: Floats, exponent: float) -> Floats:
    """(a^p + b^p)^(1/p), without overflow; 0 of two zeros, as on a die without tokens."""
    large = np.maximum(first, second)
    ratio = np.minimum(first, second) / np.where(large > 0.0, large, 1.0)
    return np.asarray(large * (1.0 + ratio**exponent) ** (1.0 / exponent), dtype=np.float64)


def tiled_s(
    rates: Rates,
    constants: GroupedGemmConstants,
    shape: GroupedGemmShape,
    product: Product,
    tile: tuple[int, int],
    dtype: str,
) -> Floats:
    """Seconds [n] of one grouped GEMM cut into tiles of (tokens, columns).

    tiles   = sum over experts of ceil(tokens / t) * ceil(columns / c): a tile has one expert
    tile    = (2 t c inner cores / rate + fill t c / 128^2) * (1 + half / t) / (1 + half / 128)
    waves   = tiles / cores, of whose last one wave_frac waits for its slowest core
    memory  = weights of the experts hit, activations in and out, once
    reread  = activations of each tile again for each column of tiles, as far as their matrix
              outgrows the cache: footprint / (footprint + L2)
    seconds = smooth maximum(waves * tile, memory) + reread
    """
    tokens, columns = tile
    held = FORMATS[dtype]
    tiles = shape.loads.tiles(tokens) * np.ceil(product.columns / columns)
    half = constants.half_tokens
    product_s = 2.0 * tokens * columns * product.inner * rates.num_cores / rates.flops_per_s
    fill_s = constants.fill_s * tokens * columns / (FULL_TILE_TOKENS * TILE_COLUMNS)
    tile_s = (product_s + fill_s) * (1.0 + half / tokens) / (1.0 + half / FULL_TILE_TOKENS)
    waves = tiles / rates.num_cores
    waves = waves + constants.wave_frac * (np.ceil(waves - 1e-9) - waves)
    row_bytes = product.inner * held.input_bytes
    streamed_bytes = (
        shape.loads.hit * product.columns * product.inner * held.weight_bytes
        + shape.loads.pairs * (row_bytes + product.columns * OUTPUT_BYTES)
    )
    footprint_bytes = product.source_rows * row_bytes
    missed = footprint_bytes / (footprint_bytes + rates.l2_bytes)
    reread_bytes = constants.reread_frac * missed * tiles * tokens * row_bytes
    return (
        smooth_max(
            np.asarray(waves * tile_s, dtype=np.float64),
            np.asarray(streamed_bytes / rates.weight_bytes_per_s, dtype=np.float64),
            constants.overlap_exponent,
        )
        + reread_bytes / rates.hbm_bytes_per_s
    )


def tile_choices(
    shape: GroupedGemmShape, policy: TilePolicy
) -> Iterator[tuple[tuple[int, int], Floats | None]]:
    """Tiles (tokens, columns) that a library would use, and where [n] (None: if it is fastest).

    tuned: the fastest of several (CUTLASS and Marlin, autotuned; CANN). warp_group: the faster of
    one and two warp groups of 64 rows (DeepGEMM, sm90.hpp: BLOCK_M of masked groups). mean: tokens
    as the power of two above num_tokens * topk / num_slots, which in an expert group that sees all
    tokens is `ep_size` times the mean load (the TensorRT-LLM generated kernels). fixed: 16 x 32
    below one token an expert, else 64 x 64 (vLLM's and SGLang's Triton kernel untuned).
    """
    if policy in ("tuned", "warp_group"):
        sizes = TUNED_TOKENS if policy == "tuned" else WARP_GROUP_TOKENS
        yield from (((tokens, TILE_COLUMNS), None) for tokens in sizes)
    elif policy == "fixed":
        small = np.asarray(np.asarray(shape.num_tokens) <= shape.num_slots, dtype=np.float64)
        yield (16, 32), small
        yield (64, 64), 1.0 - small
    else:
        mean = np.maximum(np.asarray(shape.num_tokens * shape.topk / shape.num_slots), 1.0)
        wanted = np.clip(2.0 ** np.ceil(np.log2(mean)), MEAN_TOKENS[0], MEAN_TOKENS[-1])
        for tokens in MEAN_TOKENS:
            yield (tokens, TILE_COLUMNS), np.asarray(wanted == tokens, dtype=np.float64)


def products_s(
    die: DieSpec,
    constants: GroupedGemmConstants,
    shape: GroupedGemmShape,
    *,
    dtype: str = "bf16",
    policy: TilePolicy = "tuned",
    is_cold: bool = False,
) -> tuple[Floats, Floats]:
    """Seconds [n] of the gate-up and of the down projection, without launches."""
    rates = rates_of(die, constants, shape, dtype, is_cold)
    choices = list(tile_choices(shape, policy))

    def seconds(product: Product) -> Floats:
        found = [
            (tiled_s(rates, constants, shape, product, tile, dtype), where)
            for tile, where in choices
        ]
        parts = [price * where for price, where in found if where is not None]
        if not parts:
            return reduce(np.minimum, (price for price, _ in found))
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)

    up, down = products_of(shape)
    return seconds(up), seconds(down)


def around_s(
    die: DieSpec, constants: GroupedGemmConstants, shape: GroupedGemmShape, dtype: str
) -> Floats:
    """Seconds [n] of everything but the two products.

    launch + slots * slot_s + (pairs of all dies * routing_bytes_per_pair + traffic_scale * bytes) /
    bandwidth; bytes: tokens in and out, permuted rows in and out, activation in and out. Arranged
    rows are neither sorted nor permuted: activation alone, and `ARRANGED_LAUNCHES`.
    """
    held = FORMATS[dtype]
    hidden, inter = shape.hidden_size, shape.inter_size
    activated_bytes = (
        shape.loads.pairs * inter * (shape.num_up_matrices * OUTPUT_BYTES + held.input_bytes)
    )
    permuted_bytes = shape.num_tokens * hidden * 2.0 * OUTPUT_BYTES + shape.loads.pairs * hidden * (
        held.input_bytes + OUTPUT_BYTES
    )
    routed_bytes = shape.num_tokens * shape.topk * constants.routing_bytes_per_pair
    launch_s = constants.launch_s
    if shape.is_arranged:
        launch_s *= ARRANGED_LAUNCHES
        permuted_bytes = routed_bytes = np.zeros(())
    moved_bytes = constants.traffic_scale * (permuted_bytes + activated_bytes)
    traffic_s = (routed_bytes + moved_bytes) / die.hbm_bytes_per_s
    return launch_s + shape.num_slots * constants.slot_s + traffic_s


def grouped_gemm_s(
    die: DieSpec,
    constants: GroupedGemmConstants,
    shape: GroupedGemmShape,
    *,
    dtype: str = "bf16",
    policy: TilePolicy = "tuned",
    is_cold: bool = False,
) -> Floats:
    """Seconds [n] of the routed experts of one layer: sort, permute, two GEMMs, finalise.

    The sum of `around_s` and `products_s`; the kernels run one after another. `is_cold`: nothing
    of the last run is in the cache, as between the layers of a model.
    """
    up, down = products_s(die, constants, shape, dtype=dtype, policy=policy, is_cold=is_cold)
    return around_s(die, constants, shape, dtype) + up + down
