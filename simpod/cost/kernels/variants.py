"""Which measured variant stands for an operator as it is served, best first.

A profile has the variants that somebody measured; the first of a list that it has is taken. Data
types are those of `Layout`: as weights and caches are held.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from simpod.cost.kernels.decode_split import LIBRARY_OF_FAMILY
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit, Fits
from simpod.hardware.spec import HardwareProfile

C = TypeVar("C")

GEMM: Final = {
    "bf16": ("bf16",),
    "fp8": ("fp8_block/kernel", "fp8", "fp8/*", "fp8_static", "fp8_block/*"),
    "int8": ("int8", "fp8_block/kernel", "fp8", "fp8/*"),
    "nvfp4": ("nvfp4", "fp8_static", "fp8", "fp8/*"),
    "w4a8": ("w4a8", "int8", "fp8", "fp8/*"),
    "int8_wo": ("int8_wo", "bf16"),
    "int4_wo": ("int4_wo", "bf16"),
}
"""Format -> variants. fp8 kernels first that do not quantise their input: engines fuse that."""

GROUPED_GEMM: Final = {
    "bf16": ("bf16/cutlass", "bf16/*"),
    "fp8": ("fp8_block/cutlass", "fp8/cutlass", "fp8_block/*", "fp8/*"),
    "int8": ("int8/*", "fp8_block/*", "fp8/*"),
    "nvfp4": ("nvfp4/generated", "nvfp4/*", "w4a8_mxfp4_mxfp8/*", "fp8/*"),
    "w4a8": ("w4a8/*", "int8/*", "fp8/*"),
    "int4": ("int4/*", "w4a16_mxfp4/*", "bf16/*"),
    "w4a16_mxfp4": ("w4a16_mxfp4/*", "int4/*", "bf16/*"),
}
"""The same for experts; behind the slash is the library, any of them if it is *."""


def gemm_format(hardware: HardwareProfile, dtype: str) -> str:
    """Format of a dense product: what the die has no units for is multiplied in bf16."""
    peaks = hardware.die.peak_flops_per_s
    if dtype == "fp4":
        return "nvfp4" if "fp4" in peaks else "int4_wo"
    if dtype == "int4":
        return "int4_wo"
    if dtype in ("fp8", "int8"):
        return dtype if dtype in peaks else "int8_wo"
    if dtype == "w4a8":
        return "w4a8" if "int8" in peaks else "int4_wo"
    return "bf16"


def grouped_format(hardware: HardwareProfile, dtype: str) -> str:
    """Format of the experts."""
    fmt = gemm_format(hardware, dtype)
    if fmt == "int4_wo":
        return "w4a16_mxfp4" if dtype == "fp4" else "int4"
    return "fp8" if fmt == "int8_wo" else fmt


def decode_variants(hardware: HardwareProfile, kv_dtype: str) -> tuple[str, ...]:
    """Variants of decode attention: the family's usual library, this cache type first."""
    library = LIBRARY_OF_FAMILY[hardware.family]
    own = "bf16" if kv_dtype == "bf16" else "fp8"
    return tuple(f"{kind}/{library}" for kind in (own, "bf16", "fp8"))


def prefill_variants(kv_dtype: str) -> tuple[str, ...]:
    """Variants of prefill attention: queries in bf16 over a cache of this type."""
    kinds = ("bf16",) if kv_dtype == "bf16" else ("bf16_kv_fp8", "bf16")
    return tuple(f"{kind}{end}" for kind in kinds for end in ("", "/fused", "/trtllm"))


def mla_variants(kv_dtype: str) -> tuple[str, ...]:
    """Variants of both MLA kernels; a device has those of one 8-bit type."""
    wide = ("bf16", "bf16/trtllm_mla")
    return wide if kv_dtype == "bf16" else ("fp8", "fp8/trtllm_mla", "int8", *wide)


def collective_variants(operation: str) -> tuple[tuple[str, ...], ...]:
    """Libraries to choose among by price, each with its variants: custom kernels, NCCL, HCCL."""
    nccl = (f"nccl/{operation}", f"nccl/{operation}/bf16", f"hccl/{operation}")
    return (("custom_graph/all_reduce",), nccl) if operation == "all_reduce" else (nccl,)


def find(fits: Fits[C], variants: Sequence[str]) -> Fit[C] | None:
    """The fit of the first variant that is there, else of any of the class; None: it is empty."""
    for variant in variants:
        found = fits.get(variant.removesuffix("/*")) or next(
            (fit for name, fit in fits.items() if fnmatchcase(name, variant)), None
        )
        if found is not None:
            return found
    return next(iter(fits.values()), None)


def need(hardware: HardwareProfile, operator: str, variants: Sequence[str]) -> Fit[C]:
    """The same; ConfigError if the profile has no constants of this operator at all."""
    fits: Fits[C] = getattr(hardware.kernels, operator)
    found = find(fits, variants)
    if found is None:
        raise ConfigError(
            f"hardware {hardware.name}: kernels: has no constants of {operator};"
            " fit them with simpod calibrate, or take those of another profile with kernels_of"
        )
    return found
