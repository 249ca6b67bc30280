"""Libraries of experts: an engine runs other kernels than those that a device's tables have.

Where the tables have several for one format, `engine.experts_library` says which an engine was
told to run (TensorRT-LLM's `moe_config: {backend}`).

The tables of Hopper are TensorRT-LLM's (CUTLASS, and its mxfp4 kernels); vLLM and SGLang run their
experts there by Triton, and those of 4 bits by Marlin (InferenceX's scripts: `--moe-backend
triton`, VLLM_MXFP4_USE_MARLIN=1). Both were measured on the A100; their constants are fractions of
a die's rates, so they are lent to the other devices, and a price says `assumed`: of another family.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from simpod.config.references import load_hardware
from simpod.cost.semantics import Semantics
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.spec import HardwareProfile

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
    an engine was told to run, whatever it is by itself.
    """
    if told is not None:
        return _with_one(hardware, told)
    if (semantics.name, hardware.family) not in BORROWERS:
        return hardware
    own = hardware.kernels.grouped_gemm
    if not own:
        return hardware
    lent = {name: fit for name, fit in _lender().items() if name not in own}
    kept = {name: fit for name, fit in own.items() if name not in REPLACED}
    kernels = replace(hardware.kernels, grouped_gemm={**lent, **kept})
    return replace(hardware, kernels=kernels)


def _with_one(hardware: HardwareProfile, told: str) -> HardwareProfile:
    """Of formats that `told` has, only its variant; other formats keep theirs."""
    own = hardware.kernels.grouped_gemm
    formats = {name.split("/")[0] for name in own if name.split("/")[-1] == told}
    if not formats:
        libraries = sorted({name.split("/")[-1] for name in own})
        raise ConfigError(
            f"engine.experts_library: hardware {hardware.name} has no experts' kernels of {told};"
            f" it has those of {', '.join(libraries)}"
        )
    kept = {
        name: fit
        for name, fit in own.items()
        if name.split("/")[0] not in formats or name.split("/")[-1] == told
    }
    return replace(hardware, kernels=replace(hardware.kernels, grouped_gemm=kept))


@lru_cache(maxsize=1)
def _lender() -> Mapping[str, Fit[GroupedGemmConstants]]:
    fits = load_hardware(LENDER).kernels.grouped_gemm
    return {name: fits[variant] for name, variant in LENT.items()}
