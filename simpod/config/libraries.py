"""Libraries of experts: an engine runs other kernels than those that a device's tables have.

Where the tables have several for one format, `engine.experts_library` says which an engine was
told to run (TensorRT-LLM's `moe_config: {backend}`).

The tables of Hopper are TensorRT-LLM's (CUTLASS, and its mxfp4 kernels); vLLM and SGLang run their
experts there by Triton, and those of 4 bits by Marlin (InferenceX's scripts: `--moe-backend
triton`, VLLM_MXFP4_USE_MARLIN=1). Both were measured on the A100; their constants are fractions of
a die's rates, so they are lent to the other devices, and a price says `assumed`: of another family.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final, Literal, NoReturn, get_args

from simpod.config.references import load_hardware
from simpod.cost.kernels.variants import GROUPED_GEMM, find, grouped_format
from simpod.cost.operators import part_dtype
from simpod.cost.semantics import Semantics
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

Library = Literal["cutlass", "generated", "deepgemm", "triton", "marlin"]
LIBRARIES: Final = get_args(Library)
"""Those that an engine can be told to run."""
LENDER: Final = "a100"
LENT: Final[Mapping[str, str]] = {
    "bf16/triton": "bf16/triton",
    "fp8_block/triton": "bf16/triton",
    "w4a16_mxfp4/marlin": "int4/marlin",
}
"""Variants that a device gets, and those of the lender that they are."""
REPLACED: Final = ("bf16/cutlass", "fp8/cutlass", "fp8_block/cutlass", "w4a16_mxfp4/generated")
"""Variants of TensorRT-LLM."""
BORROWERS: Final = frozenset({("vllm-v1", "hopper"), ("sglang", "hopper")})


def with_libraries(
    hardware: HardwareProfile, semantics: Semantics, told: str | None = None
) -> HardwareProfile:
    """The profile with the libraries of an engine; itself where the tables have them.

    A device whose tables have a variant of their own of a lent one keeps it. told: the library that
    an engine was told to run, of formats that it has; ConfigError if it has none.
    """
    own = hardware.kernels.grouped_gemm
    fits = known = own
    if own and (semantics.name, hardware.family) in BORROWERS:
        known = {**_lender(), **own}
        fits = {name: fit for name, fit in known.items() if name not in REPLACED}
    if told is not None:
        asked = {name: fit for name, fit in known.items() if _library(name) == told}
        if not asked:
            _refuse(hardware, known, told)
        formats = {_format(name) for name in asked}
        fits = asked | {name: fit for name, fit in fits.items() if _format(name) not in formats}
    if fits is own:
        return hardware
    return replace(hardware, kernels=replace(hardware.kernels, grouped_gemm=fits))


def require_library(hardware: HardwareProfile, told: str, model: ModelSpec, dtype: str) -> None:
    """ConfigError unless the experts of `model`, with weights of `dtype`, run kernels of `told`."""
    if model.moe is None:
        raise ConfigError(f"{model.name} has no experts; leave it out")
    dtype = part_dtype(model, "experts", dtype)
    fits = hardware.kernels.grouped_gemm
    found = find(fits, GROUPED_GEMM[grouped_format(hardware, dtype)])
    name = next(name for name, fit in fits.items() if fit is found)
    if _library(name) != told:
        raise ConfigError(
            f"{told} has no kernels of the experts of {model.name}, which are {dtype}, on hardware"
            f" {hardware.name}; left out: {_library(name)}"
        )


def _refuse(hardware: HardwareProfile, known: Iterable[str], told: str) -> NoReturn:
    names = sorted({_library(name) for name in known if _library(name) in LIBRARIES})
    raise ConfigError(
        f"hardware {hardware.name} has no experts' kernels of {told}; it has those of"
        f" {', '.join(names) or 'no library'}"
    )


def _format(variant: str) -> str:
    return variant.partition("/")[0]


def _library(variant: str) -> str:
    return variant.rpartition("/")[2]


@lru_cache(maxsize=1)
def _lender() -> Mapping[str, Fit[GroupedGemmConstants]]:
    fits = load_hardware(LENDER).kernels.grouped_gemm
    return {name: fits[variant] for name, variant in LENT.items()}
