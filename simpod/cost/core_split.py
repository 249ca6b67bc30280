"""A die of which a stream owns only some of the cores."""

from dataclasses import replace
from typing import Any

from simpod.hardware.kernels.exchange import PullConstants, PushConstants
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.spec import HardwareProfile

VECTOR_CORES_PER_CUBE = 2


def share_of_cores(hardware: HardwareProfile, frac: float) -> HardwareProfile:
    """The same with `frac` of the matrix and vector cores; memory and links are there for all.

    Exchanges of Ascend run on vector cores, two for each cube core (CloudMatrix-Infer 3.3.1): they
    have no more than `frac` of them, and quantise as much slower as they have fewer than before.
    """
    die = hardware.die
    peaks = {unit: flops * frac for unit, flops in die.peak_flops_per_s.items()}
    kernels = hardware.kernels
    vector_cores = max(1, round(VECTOR_CORES_PER_CUBE * die.num_cores * frac))
    return replace(
        hardware,
        die=replace(
            die,
            peak_flops_per_s=peaks,
            vector_flops_per_s=die.vector_flops_per_s * frac,
            num_cores=max(1, round(die.num_cores * frac)),
        ),
        kernels=replace(
            kernels,
            exchange={name: _on(fit, vector_cores) for name, fit in kernels.exchange.items()},
        ),
    )


def _on(fit: Fit[Any], vector_cores: int) -> Fit[Any]:
    constants = fit.constants
    if not isinstance(constants, PullConstants | PushConstants):
        return fit
    used = min(constants.num_cores, vector_cores)
    rate = constants.quantise_bytes_per_s * used / constants.num_cores
    fewer = replace(constants, num_cores=used, quantise_bytes_per_s=rate)
    return replace(fit, constants=fewer)
