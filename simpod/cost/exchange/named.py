"""The price of an exchange by name: which constants of a profile, and what they come to."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, Final, cast

import numpy as np

from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.exchange.buffers import PinnedBuffers
from simpod.cost.exchange.collective import collective_time
from simpod.cost.exchange.price import price
from simpod.cost.exchange.requests import (
    COLLECTIVES,
    DEEPEP_KERNELS,
    DOMAIN_KERNELS,
    KERNELS,
    OPERATIONS,
    SPLIT_KERNELS,
    SPLITS,
    TRANSFERS,
    Request,
)
from simpod.cost.exchange.shaped import buffers_of, message_bytes, payload_bytes, shape_of
from simpod.cost.exchange.shapes import Fabric
from simpod.cost.kernels.collective import CollectiveShape, Operation
from simpod.errors import ConfigError
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.spec import HardwareProfile
from simpod.units import BYTES_PER_ELEMENT

WORDS: Final = {
    "num_ranks": "a number of ranks (ep, dies)",
    "tokens": "tokens a rank",
    "hidden_size": "a hidden size",
    "top_k": "a top-k",
    "size_bytes": "a size in bytes",
    "num_cores": "a number of vector cores",
    "num_attention_dies": "a number of attention dies",
    "num_domains": "a number of domains",
}
"""What a request can't do without, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """One exchange's price and what it rests on."""

    request: Request
    variant: str
    """Key of the constants in the profile."""
    fit: Fit[Any]
    time: ExchangeTime
    payload_bytes: float
    """What bandwidths are counted over: every message once, those of the own rank included."""
    message_bytes: float = 0.0
    buffers: PinnedBuffers | None = None

    @property
    def total_s(self) -> float:
        """All parts."""
        return float(self.time.total_s)

    @property
    def bytes_per_s(self) -> float:
        """Payload over time."""
        return self.payload_bytes / self.total_s

    @property
    def parts_s(self) -> dict[str, float]:
        """Seconds by part of `ExchangeTime`."""
        return {
            each.name: float(np.asarray(getattr(self.time, each.name)))
            for each in fields(ExchangeTime)
        }


def fabric_of(hardware: HardwareProfile, kernel: str) -> Fabric:
    """What a kernel runs over; DeepEP takes a scale-up domain beyond the node for its node."""
    fabric = Fabric.of(hardware)
    if kernel in DEEPEP_KERNELS and hardware.planes["scale_up"].scope == "pod":
        return replace(fabric, dies_per_node=hardware.num_dies)
    return fabric


def kernels_on(hardware: HardwareProfile, operation: str) -> tuple[str, ...]:
    """Kernels whose constants a profile has for an operation."""
    return tuple(name for name in KERNELS[operation] if _variant(hardware, operation, name, ""))


def priced(hardware: HardwareProfile, request: Request) -> Priced:
    """Price one exchange; ConfigError says what is missing or impossible."""
    if request.operation not in OPERATIONS:
        known = ", ".join(OPERATIONS)
        raise ConfigError(f"no model of operation {request.operation!r}; allowed: {known}")
    if request.kernel not in KERNELS[request.operation]:
        known = ", ".join(KERNELS[request.operation])
        raise ConfigError(
            f"no model of {request.operation} by kernel {request.kernel!r}; allowed: {known}"
        )
    _require(hardware, request)
    detail = request.plane if request.operation in TRANSFERS else request.sent_as
    variant = _variant(hardware, request.operation, request.kernel, detail)
    if variant is None:
        raise ConfigError(
            f"hardware {hardware.name} has no constants of {request.kernel} for {request.operation}"
        )
    if request.operation in COLLECTIVES:
        return _collective(hardware, request, variant)
    return _exchange(hardware, request, variant)


def _require(hardware: HardwareProfile, request: Request) -> None:
    """What the operation needs is there, and the dies are."""
    needed: tuple[str, ...] = ("num_ranks", "tokens", "hidden_size", "top_k")
    if request.operation in SPLITS:
        needed = (*needed, "num_attention_dies", "num_domains")
    elif request.operation in TRANSFERS:
        needed = ("size_bytes", "num_cores") if request.operation == "p2p_send" else ("size_bytes",)
    elif request.operation in COLLECTIVES:
        needed = ("num_ranks", "size_bytes")
    empty = [WORDS[name] for name in needed if not 0 < getattr(request, name) < inf]
    if empty:
        raise ConfigError(f"{request.operation} needs {', '.join(empty)}")
    if request.sent_as != "none" and request.sent_as not in BYTES_PER_ELEMENT:
        known = ", ".join(BYTES_PER_ELEMENT)
        raise ConfigError(f"unknown data type {request.sent_as!r}; allowed: {known}")
    if request.top_k > request.experts:
        raise ConfigError(f"a token goes to {request.top_k} of {request.experts} experts")
    dies = request.num_ranks
    if request.operation in SPLITS:
        dies += request.num_attention_dies * request.num_domains
    if dies > hardware.num_dies:
        raise ConfigError(
            f"{dies} dies are needed, hardware {hardware.name} has only {hardware.num_dies}"
        )
    if request.kernel == "hixl" and (request.plane, request.is_inter_node) == ("ub", True):
        _require_ub_between_nodes(hardware)
    if request.kernel in (*SPLIT_KERNELS, *DOMAIN_KERNELS):
        _require_domain(hardware, request.kernel, dies)


def _require_domain(hardware: HardwareProfile, kernel: str, dies: int) -> None:
    up = hardware.planes["scale_up"]
    domain = hardware.num_dies if up.scope == "pod" else hardware.dies_per_node
    if dies > domain:
        raise ConfigError(
            f"{kernel} is priced inside one scale-up domain only: {domain} dies on"
            f" hardware {hardware.name}, not {dies}"
        )


def _require_ub_between_nodes(hardware: HardwareProfile) -> None:
    if hardware.planes["scale_up"].scope == "node":
        raise ConfigError(
            f"plane ub of hardware {hardware.name} ends at the node: give 1 node, or plane rdma"
        )


def _variant(hardware: HardwareProfile, operation: str, kernel: str, detail: str) -> str | None:
    """The key of the constants in a profile, those of another data type if need be."""
    fits = hardware.kernels.collective if operation in COLLECTIVES else hardware.kernels.exchange
    return next((name for name in _keys(operation, kernel, detail) if name in fits), None)


def _keys(operation: str, kernel: str, detail: str) -> Iterator[str]:
    """Keys of constants, nearest first; `detail` is a data type or a plane."""
    if kernel in SPLIT_KERNELS:
        yield "xccl_pull"
    elif kernel == "hixl":
        for name in (operation, "p2p_read", "p2p_write"):
            yield f"hixl/{name}/{detail or 'ub'}"
    else:
        yield kernel
        yield f"{kernel}/{operation}"
        for name in (detail, "fp8", "bf16", "int8", "fp4", "none"):
            yield f"{kernel}/{operation}/{name}"


def _collective(hardware: HardwareProfile, request: Request, variant: str) -> Priced:
    """Within one scale-up domain: the constants know no second level."""
    up = hardware.planes["scale_up"]
    _require_domain(hardware, request.kernel, request.num_ranks)
    fit = hardware.kernels.collective[variant]
    shape = CollectiveShape(
        size_bytes=np.array(request.size_bytes), num_dies=np.array(float(request.num_ranks))
    )
    operation = cast(Operation, request.operation)
    time = collective_time(
        up.bytes_per_s, fit.constants, operation, shape, graph=request.kernel != "custom_eager"
    )
    return Priced(
        request=request, variant=variant, fit=fit, time=time, payload_bytes=request.size_bytes
    )


def _exchange(hardware: HardwareProfile, request: Request, variant: str) -> Priced:
    fit = hardware.kernels.exchange[variant]
    fabric = fabric_of(hardware, request.kernel)
    operator = f"{request.kernel}/{request.operation}"
    time = price(fabric, operator, request.plane, fit.constants, shape_of(request))
    return Priced(
        request=request,
        variant=variant,
        fit=fit,
        time=time,
        payload_bytes=payload_bytes(request, fabric.dies_per_node),
        message_bytes=message_bytes(request, request.sent_as),
        buffers=buffers_of(request, fit.constants),
    )
