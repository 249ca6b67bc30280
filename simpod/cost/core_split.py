"""A die of which a stream owns only some of the cores."""

from dataclasses import replace
from typing import Any

from simpod.hardware.kernels.exchange import PullConstants, PushConstants
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.spec import HardwareProfile


def share_of_cores(hardware: HardwareProfile, frac: float) -> HardwareProfile:
    """The same with `frac` of the matrix and vector cores; memory and links are there for all.

    Exchanges of Ascend run on vector cores: they have `frac` of them, and quantise as much slower.
    """
    die = hardware.die
    peaks = {unit: flops * frac for unit, flops in die.peak_flops_per_s.items()}
    kernels = hardware.kernels
    return replace(
        hardware,
        die=replace(
            die,
            peak_flops_per_s=peaks,
            vector_flops_per_s=die.vector_flops_per_s * frac,
            num_cores=max(1, round(die.num_cores * frac)),
        ),
        kernels=replace(
            kernels, exchange={name: _fewer(fit, frac) for name, fit in kernels.exchange.items()}
        ),
    )


def _fewer(fit: Fit[Any], frac: float) -> Fit[Any]:
    constants = fit.constants
    if not isinstance(constants, PullConstants | PushConstants):
        return fit
    fewer = replace(
        constants,
        num_cores=max(1, round(constants.num_cores * frac)),
        quantise_bytes_per_s=constants.quantise_bytes_per_s * frac,
    )
    return replace(fit, constants=fewer)
