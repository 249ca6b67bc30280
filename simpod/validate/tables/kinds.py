"""The kinds of kernel tables: which operator a file holds, how it is read, priced and fitted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from simpod.hardware.kernels.fits import Fit, KernelFits
from simpod.hardware.kernels.transfer import with_library
from simpod.hardware.spec import DieSpec, HardwareProfile
from simpod.validate.fit import fit
from simpod.validate.tables import (
    collective,
    decode_attention,
    decode_mla,
    encoder_attention,
    exchange_kinds,
    gemm,
    grouped_gemm,
    grouped_products,
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

    read(frame) gives its groups; price(hardware, variant, constants, shape) seconds [n];
    fit(hardware, group) the constants, None if such rows can't tell them; fallbacks(variant) the
    variants that may stand in, nearest first; num_dies(frame) how many dies the hardware must have;
    is_far(variant) whether its library is so far from any die's best that its rates are its own;
    derived(hardware, variant, constants) the constants with all that fits of another operator tell
    of the variant, None if that is nothing.
    """

    operator: str
    read: Callable[["pd.DataFrame"], list[Group[Any]]]
    price: Callable[[HardwareProfile, str, Any, Any], Floats]
    fit: Callable[[HardwareProfile, Group[Any]], Any] | None
    fallbacks: Callable[[str], tuple[str, ...]]
    num_dies: Callable[["pd.DataFrame"], int] = lambda _: 1
    is_far: Callable[[str], bool] = lambda _: False
    derived: Callable[[HardwareProfile, str, Any], Any | None] = lambda *_: None

    def constants_for(
        self, hardware: HardwareProfile, variant: str, libraries: Sequence[KernelFits]
    ) -> Any | None:
        """The constants of a profile for a variant; None: it has none of the operator.

        Without a fit of the variant those of the nearest one, with what belongs to the library
        (`transfer`) from the first of `libraries` that has it, or all of that if it is far. What
        the profile's own fits of another operator tell (`derived`) goes before both.
        """
        fits: Mapping[str, Fit[Any]] = getattr(hardware.kernels, self.operator)
        names = (variant, *self.fallbacks(variant))
        nearest = next((name for name in names if name in fits), None)
        if nearest is None:
            return None
        own = fits[nearest].constants
        if nearest == variant:
            return own
        known = (getattr(each, self.operator).get(variant) for each in libraries)
        measured: Fit[Any] | None = next((fit for fit in known if fit is not None), None)
        if measured is not None and self.is_far(variant):
            return measured.constants
        joined = own if measured is None else with_library(own, measured.constants)
        return self.derived(hardware, variant, joined) or joined

    def seconds(
        self, hardware: HardwareProfile, group: Group[Any], libraries: Sequence[KernelFits] = ()
    ) -> Floats | None:
        """Prices [n] of a group's rows; None without constants. libraries: see `constants_for`."""
        constants = self.constants_for(hardware, group.variant, libraries)
        if constants is None:
            return None
        return self.price(hardware, group.variant, constants, group.shape)


class _DieModule(Protocol):
    """A reader whose prices need the die alone."""

    def price(self, die: DieSpec, variant: str, constants: Any, shape: Any, /) -> Floats:
        """Seconds [n]."""

    def fallbacks(self, variant: str, /) -> tuple[str, ...]:
        """Variants that may stand in, nearest first."""


def _of_die(
    operator: str,
    module: _DieModule,
    read: Callable[["pd.DataFrame"], list[Group[Any]]],
    fit: Callable[[DieSpec, Group[Any]], Any],
) -> Kind:
    return Kind(
        operator=operator,
        read=read,
        price=lambda hardware, variant, constants, shape: module.price(
            hardware.die, variant, constants, shape
        ),
        fit=lambda hardware, group: fit(hardware.die, group),
        fallbacks=module.fallbacks,
    )


def _fit_gemm(die: DieSpec, group: Group[Any]) -> Any:
    def price_s(constants: Any) -> Floats:
        return gemm.price(die, group.variant, constants, group.shape)

    return fit(price_s, group.measured_s, gemm.start_of(group.variant))


def _fit_prefill_mla(die: DieSpec, group: Group[Any]) -> Any:
    return prefill_mla.calibrate(die, group.variant, group.shape, group.measured_s)


def _fit_decode_mla(die: DieSpec, group: Group[Any]) -> Any:
    return decode_mla.calibrate(die, group.variant, group.shape, group.measured_s)


def _link_bytes_per_s(hardware: HardwareProfile) -> float:
    return hardware.planes["scale_up"].bytes_per_s


HAS_NVLS: Final = ("hopper", "blackwell")
"""Families whose switches can reduce."""

COLLECTIVE: Final = Kind(
    operator="collective",
    read=collective.read_collective,
    price=lambda hardware, variant, constants, shape: collective.price(
        _link_bytes_per_s(hardware), variant, constants, shape
    ),
    fit=lambda hardware, group: collective.fit_collective(
        _link_bytes_per_s(hardware), [group], has_nvls=hardware.family in HAS_NVLS
    ),
    fallbacks=collective.fallbacks,
)


def _of_exchange(table: exchange_kinds.ExchangeTable) -> Kind:
    return Kind(
        operator="exchange",
        read=table.read,
        price=exchange_kinds.price,
        fit=exchange_kinds.calibrate,
        fallbacks=exchange_kinds.fallbacks,
        num_dies=table.num_dies,
    )


GROUPED_GEMM: Final = replace(
    _of_die("grouped_gemm", grouped_gemm, grouped_gemm.read_grouped_gemm, grouped_gemm.calibrated),
    is_far=grouped_gemm.is_far,
    derived=grouped_gemm.from_dense,
)
DECODE_ATTENTION: Final = _of_die(
    "decode_attention",
    decode_attention,
    decode_attention.read_decode_attention,
    decode_attention.fit_decode_attention,
)
PREFILL_ATTENTION: Final = replace(
    _of_die(
        "prefill_attention",
        prefill_attention,
        prefill_attention.read_prefill_attention,
        prefill_attention.fit_prefill_attention,
    ),
    is_far=prefill_attention.is_far,
)
PREFILL_MLA: Final = _of_die(
    "prefill_mla", prefill_mla, prefill_mla.read_prefill_mla, _fit_prefill_mla
)
DECODE_MLA: Final = _of_die("decode_mla", decode_mla, decode_mla.read_decode_mla, _fit_decode_mla)


def _of_products(read: Callable[["pd.DataFrame"], list[Group[Any]]]) -> Kind:
    """Both products of experts alone, without what surrounds them."""
    return replace(
        GROUPED_GEMM,
        read=read,
        price=lambda hardware, variant, constants, shape: grouped_products.price(
            hardware.die, variant, constants, shape
        ),
        fit=None,
    )


GEMM: Final = _of_die("gemm", gemm, gemm.read_gemm, _fit_gemm)

KINDS: Final[Mapping[str, Kind]] = {
    "gemm": GEMM,
    "mla_bmm": replace(GEMM, read=gemm.read_absorbed, fit=None),
    "moe": GROUPED_GEMM,
    "context_attention": PREFILL_ATTENTION,
    "generation_attention": DECODE_ATTENTION,
    "context_mla": PREFILL_MLA,
    "generation_mla": DECODE_MLA,
    "encoder_attention": _of_die(
        "encoder_attention",
        encoder_attention,
        encoder_attention.read_encoder_attention,
        encoder_attention.fit_encoder_attention,
    ),
    "nccl": COLLECTIVE,
    "allreduce": COLLECTIVE,
    **{name: _of_exchange(table) for name, table in exchange_kinds.TABLES.items()},
    "grouped_gemm/prefill": _of_products(grouped_products.read_contiguous),
    "grouped_gemm/decode": _of_products(grouped_products.read_masked),
    "mha/decode": replace(DECODE_ATTENTION, read=decode_attention.read_decode_by_heads),
    "mla/prefill": replace(PREFILL_MLA, read=prefill_mla.read_prefill_mla_by_length),
    "mla/decode": replace(DECODE_MLA, read=decode_mla.read_decode_mla_by_length),
}
"""By the second part of the file's name, DEVICE.KIND.parquet, or by folder, KIND/DEVICE/*.csv."""
