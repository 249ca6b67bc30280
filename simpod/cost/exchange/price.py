"""Which law prices what: by the class of the constants and of the shape."""

from dataclasses import dataclass

from numpy.typing import ArrayLike

from simpod.cost.exchange.all_to_all import domain_s
from simpod.cost.exchange.breakdown import ExchangeTime
from simpod.cost.exchange.deepep import NormalShape, low_latency_s, normal_s
from simpod.cost.exchange.point_to_point import bulk_s, point_to_point_s
from simpod.cost.exchange.pull import pull_s
from simpod.cost.exchange.push import push_s
from simpod.cost.exchange.shapes import ExchangeShape, Fabric
from simpod.cost.exchange.trampoline import SplitShape, naive_s, trampoline_s
from simpod.hardware.kernels.exchange import (
    BulkConstants,
    DomainConstants,
    LowLatencyConstants,
    NormalConstants,
    PointToPointConstants,
    PullConstants,
    PushConstants,
)

Constants = (
    BulkConstants
    | DomainConstants
    | LowLatencyConstants
    | NormalConstants
    | PointToPointConstants
    | PullConstants
    | PushConstants
)

OUTBOUND = ("dispatch", "a2e")
"""Operations that go to the experts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BulkShape:
    """Blocks moved between two dies."""

    size_bytes: ArrayLike
    is_inter_node: ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SendShape:
    """Messages between two dies, by vector cores on either side."""

    size_bytes: ArrayLike
    num_cores: ArrayLike


Shape = ExchangeShape | NormalShape | SplitShape | BulkShape | SendShape


def price(
    fabric: Fabric, operator: str, variant: str, constants: Constants, shape: Shape
) -> ExchangeTime:
    """The breakdown of `(system/)kernel/operation`; the constants' class says which mechanism."""
    kernel, operation = operator.split("/")[-2:]
    outbound = operation in OUTBOUND
    match constants, shape:
        case BulkConstants(), BulkShape():
            plane = fabric.out_bytes_per_s if variant == "rdma" else fabric.up_bytes_per_s
            time = bulk_s(plane, constants, shape.size_bytes, shape.is_inter_node)
        case PointToPointConstants(), SendShape():
            size, cores = shape.size_bytes, shape.num_cores
            time = point_to_point_s(fabric.up_bytes_per_s, constants, size, cores)
        case PushConstants(), ExchangeShape():
            time = push_s(fabric, constants, shape, is_dispatch=outbound)
        case PullConstants(), SplitShape():
            law = naive_s if kernel == "naive" else trampoline_s
            time = law(fabric, constants, shape, to_experts=outbound)
        case PullConstants(), ExchangeShape():
            time = pull_s(fabric, constants, shape)
        case LowLatencyConstants(), ExchangeShape():
            time = low_latency_s(fabric, constants, shape)
        case NormalConstants(), NormalShape():
            time = normal_s(fabric, constants, shape)
        case DomainConstants(), ExchangeShape():
            time = domain_s(fabric, constants, shape)
        case _:
            raise ValueError(
                f"{operator}: {type(constants).__name__} do not price a {type(shape).__name__}"
            )
    return time
