"""Names of devices and models in measured data, and the profiles and models they mean."""

import re
from functools import cache

from simpod.config import library
from simpod.config.references import load_hardware, load_model
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import KernelFits
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

FORM_FACTORS = re.compile(r"[-_](sxm\d?|pcie|server|nvl\d*)$")
VENDOR = "nvidia "
PODS = ("-pod", "-nvl72")
"""What is appended to a device's name for the profile of many of its nodes."""
SAME_ARCHITECTURE = {
    "glm-4.6": "glm-4.5",
    "glm-4.7": "glm-4.5",
    "llama-3.3-70b": "llama-3.1-70b",
    "minimax-m2": "minimax-m2.5",
    "minimax-m2.1": "minimax-m2.5",
    "kimi-k2-thinking": "kimi-k2",
}
"""Releases whose configurations give the same numbers as one that is shipped."""

DEVICES = {
    "cloudmatrix": "cloudmatrix384",
    "cm384": "cloudmatrix384",
    "atlas800a3752t128gdie": "cloudmatrix384",
    "atlas800a3560t128gdie": "atlas-a3-560t",
    "atlas800a2376t64g": "atlas-a2-376t",
    "ascend910b": "atlas-a2-376t",
    "atlas800a2313t64g": "atlas-a2-313t",
    "atlas800a2280t64g": "atlas-a2-280t",
}
"""Ascend servers as papers, msmodeling and measured tables call them, in letters and digits. The
910B of those tables reaches 324 TFLOPS: it is the bin of 376."""

MEASURED = ("h100", "b200", "a100", "h800")
"""Shipped devices whose kernels were measured: where constants of libraries are looked for."""

_RELEASE = re.compile(
    r"-(instruct|chat|thinking|base|hf|it|fp8|fp4|nvfp4|mxfp4|bf16|w8a8|awq|int8|int4"
    r"|\d{4}|v\d+(\.\d+)?|dynamic)$"
)


def hardware_of(device: str, num_dies: int = 1) -> HardwareProfile:
    """The profile of a device as measured tables call it (`h100_sxm`), a pod if it must be.

    ConfigError if there is none, or if `num_dies` are more than it has.
    """
    known = {_letters(name): name for name in library.names("hardware_profiles")}
    plain = device.lower().removeprefix(VENDOR)
    known |= {name: profile for name, profile in DEVICES.items() if profile in known.values()}
    for name in (plain, short_name(device)):
        for candidate in (_letters(f"{name}{suffix}") for suffix in ("", *PODS)):
            if candidate in known:
                profile = load_hardware(known[candidate])
                if profile.num_dies >= num_dies:
                    return profile
    raise ConfigError(f"no hardware profile for {num_dies} dies of {device!r}")


@cache
def measured_kernels() -> tuple[KernelFits, ...]:
    """What was fitted on the devices of MEASURED."""
    return tuple(load_hardware(name).kernels for name in MEASURED)


def short_name(device: str) -> str:
    """`NVIDIA H100`, `h100_sxm` and `H100` as h100."""
    return FORM_FACTORS.sub("", device.lower().removeprefix(VENDOR))


def _letters(name: str) -> str:
    """Letters and digits alone: RTXPRO6000, rtx_pro_6000 and rtx-pro-6000 are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def model_of(repository: str) -> ModelSpec:
    """The shipped model that a HuggingFace repository name means; ConfigError if there is none."""
    name = repository.rsplit("/", 1)[-1].lower().removeprefix("meta-")
    known = library.names("models")
    while True:
        found = SAME_ARCHITECTURE.get(name, name)
        if found in known:
            return load_model(found)
        shorter = _RELEASE.sub("", name)
        if shorter == name:
            raise ConfigError(f"model {repository!r} is not among the shipped ones")
        name = shorter
