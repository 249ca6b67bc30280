"""The kinds of kernel tables: which operator a file holds, how it is read, priced and fitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from simpod.hardware.kernels.fits import Fit
from simpod.hardware.spec import DieSpec, HardwareProfile
from simpod.validate.tables import (
    decode_attention,
    decode_mla,
    encoder_attention,
    prefill_attention,
    prefill_mla,
)
from simpod.validate.tables.group import Group

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of table.

    read(frame) gives its groups; price(die, variant, constants, shape) seconds [n]; fit(die, group)
    the constants; fallbacks(variant) the variants that may stand in, nearest first.
    """

    operator: str
    read: Callable[["pd.DataFrame"], list[Group[Any]]]
    price: Callable[[DieSpec, str, Any, Any], Floats]
    fit: Callable[[DieSpec, Group[Any]], Any]
    fallbacks: Callable[[str], tuple[str, ...]]

    def fit_for(self, hardware: HardwareProfile, variant: str) -> Fit[Any] | None:
        """The constants of a profile for a variant, or what stands in for it; None: it has none."""
        fits: Mapping[str, Fit[Any]] = getattr(hardware.kernels, self.operator)
        names = (variant, *self.fallbacks(variant))
        return next((fits[name] for name in names if name in fits), None)

    def seconds(self, hardware: HardwareProfile, group: Group[Any]) -> Floats | None:
        """Prices [n] of a group's rows; None without constants."""
        fit = self.fit_for(hardware, group.variant)
        if fit is None:
            return None
        return self.price(hardware.die, group.variant, fit.constants, group.shape)


def _calibrated(module: Any, die: DieSpec, group: Group[Any]) -> Any:
    return module.calibrate(die, group.variant, group.shape, group.measured_s)


KINDS: Final[Mapping[str, Kind]] = {
    "context_attention": Kind(
        operator="prefill_attention",
        read=prefill_attention.read_prefill_attention,
        price=prefill_attention.price,
        fit=prefill_attention.fit_prefill_attention,
        fallbacks=prefill_attention.fallbacks,
    ),
    "generation_attention": Kind(
        operator="decode_attention",
        read=decode_attention.read_decode_attention,
        price=decode_attention.price,
        fit=decode_attention.fit_decode_attention,
        fallbacks=decode_attention.fallbacks,
    ),
    "encoder_attention": Kind(
        operator="encoder_attention",
        read=encoder_attention.read_encoder_attention,
        price=encoder_attention.price,
        fit=encoder_attention.fit_encoder_attention,
        fallbacks=encoder_attention.fallbacks,
    ),
    "context_mla": Kind(
        operator="prefill_mla",
        read=prefill_mla.read_prefill_mla,
        price=prefill_mla.price,
        fit=partial(_calibrated, prefill_mla),
        fallbacks=prefill_mla.fallbacks,
    ),
    "generation_mla": Kind(
        operator="decode_mla",
        read=decode_mla.read_decode_mla,
        price=decode_mla.price,
        fit=partial(_calibrated, decode_mla),
        fallbacks=decode_mla.fallbacks,
    ),
}
"""By the second part of the file's name, DEVICE.KIND.parquet."""
