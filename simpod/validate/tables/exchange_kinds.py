"""Large tables of expert exchange: how they are told, read, priced and fitted, like kernel tables.

The operator is `exchange`, a variant `kernel/operation/dtype`: the key of its constants.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from simpod.cost.exchange.named import fabric_of
from simpod.cost.exchange.price import price as price_exchange
from simpod.hardware.spec import HardwareProfile
from simpod.validate.tables import exchange, exchange_fit
from simpod.validate.tables.exchange import GPUS_PER_NODE, ExchangeGroup
from simpod.validate.tables.group import Group
from simpod.validate.tables.starts import fit_free

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeTable:
    """One form of table. counts and times are the columns with numbers above 0."""

    reader: Callable[["pd.DataFrame", str], list[ExchangeGroup]]
    labels: tuple[str, ...]
    counts: tuple[str, ...]
    times: tuple[str, ...]
    ranks_column: str
    dies_per_rank: int = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """What tells this form from the others."""
        return (*self.labels, *self.counts, *self.times)

    def is_it(self, frame: "pd.DataFrame") -> bool:
        """Has the table all columns of this form?"""
        return set(self.columns) <= set(self.plain(frame))

    def plain(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """The table with its time in `latency_us`, in whatever unit it came."""
        if "latency" in frame and "latency_us" not in frame:
            return frame.assign(latency_us=1e3 * _numbers(frame, "latency"))
        return frame

    def usable(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """The rows whose counts and times are numbers above 0."""
        plain = self.plain(frame)
        columns = (*self.counts, *self.times)
        numbers = plain.assign(**{name: _numbers(plain, name) for name in columns})
        good = [(numbers[name] > 0) & np.isfinite(numbers[name]) for name in columns]
        return numbers[np.all(good, axis=0)]

    def ranks(self, frame: "pd.DataFrame") -> Floats:
        """Ranks of every row [n]."""
        return exchange.column(frame, self.ranks_column) * self.dies_per_rank

    def num_dies(self, frame: "pd.DataFrame") -> int:
        """Dies that the largest row needs."""
        return int(self.ranks(frame).max())

    def read(self, frame: "pd.DataFrame") -> list[Group[Any]]:
        """Groups by kernel, operation and data type."""
        groups = self.reader(self.plain(frame), "any")
        return [
            replace(
                group,
                operator="exchange",
                variant=f"{group.operator.removeprefix('any/')}/{group.variant}",
            )
            for group in groups
        ]


def _numbers(frame: "pd.DataFrame", name: str) -> Floats:
    import pandas as pd

    numbers: Floats = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
    return numbers


DEEPEP_COUNTS: Final = ("node_num", "hidden_size", "num_token", "num_topk", "num_experts")

TABLES: Final[Mapping[str, ExchangeTable]] = {
    "deepep_low_latency": ExchangeTable(
        reader=exchange.read_low_latency,
        labels=("device",),
        counts=DEEPEP_COUNTS,
        times=("dispatch_avg_t_us", "combine_avg_t_us"),
        ranks_column="node_num",
        dies_per_rank=GPUS_PER_NODE,
    ),
    "deepep_normal": ExchangeTable(
        reader=exchange.read_normal,
        labels=("device", "dispatch_notify_us", "combine_notify_us"),
        counts=(*DEEPEP_COUNTS, "dispatch_sms", "combine_sms"),
        times=("dispatch_transmit_us", "combine_transmit_us"),
        ranks_column="node_num",
        dies_per_rank=GPUS_PER_NODE,
    ),
    "alltoall": ExchangeTable(
        reader=exchange.read_domain,
        labels=("device", "op_name", "kernel_source", "moe_dtype"),
        counts=("num_tokens", "hidden_size", "topk", "num_experts", "moe_ep_size"),
        times=("latency_us",),
        ranks_column="moe_ep_size",
    ),
}
"""By the second part of a kernel table's file name, DEVICE.KIND.parquet."""


def price(hardware: HardwareProfile, variant: str, constants: Any, shape: Any) -> Floats:
    """Seconds [n] of a group's rows."""
    operator, _, dtype = variant.rpartition("/")
    fabric = fabric_of(hardware, operator.partition("/")[0])
    return price_exchange(fabric, operator, dtype, constants, shape).total_s


def fallbacks(variant: str) -> tuple[str, ...]:
    """Keys whose constants may stand in, nearest first."""
    operator, _, dtype = variant.rpartition("/")
    return exchange_fit.fallbacks(f"any/{operator}", dtype)


def calibrate(hardware: HardwareProfile, group: Group[Any]) -> Any:
    """Constants of one variant; those that no row depends on (other nodes) stay as they are."""
    operator, _, _ = group.variant.rpartition("/")
    known = hardware.kernels.exchange.get(group.variant)
    start = exchange_fit.start_of(f"any/{operator}") if known is None else known.constants
    return fit_free(
        lambda constants: price(hardware, group.variant, constants, group.shape),
        group.measured_s,
        start,
    )
