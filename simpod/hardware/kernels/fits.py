"""What kernels cost on a device: constants by operator class and variant, and where they are from.

A variant is a data type, with the kernel library where that matters (`bf16`, `bf16_kv_fp8`,
`bf16/triton`); which variants stand in for one that is missing, is said where they are priced.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

from simpod.fields import STRICT, Index, NonNegative
from simpod.hardware.kernels.collective import CollectiveConstants, CustomAllReduceConstants
from simpod.hardware.kernels.decode_attention import DecodeAttentionConstants
from simpod.hardware.kernels.decode_mla import DecodeMlaConstants
from simpod.hardware.kernels.encoder_attention import EncoderAttentionConstants
from simpod.hardware.kernels.exchange import (
    BulkConstants,
    DomainConstants,
    LowLatencyConstants,
    NormalConstants,
    PointToPointConstants,
    PullConstants,
    PushConstants,
)
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.kernels.prefill_attention import PrefillAttentionConstants
from simpod.hardware.kernels.prefill_mla import PrefillMlaConstants

C = TypeVar("C")

ExchangeConstants = (
    PushConstants
    | PullConstants
    | PointToPointConstants
    | BulkConstants
    | LowLatencyConstants
    | NormalConstants
    | DomainConstants
)

LINK_KERNELS = ("collective", "exchange")
"""Operator classes whose constants belong to the links as much as to the die."""

Status = Literal["calibrated", "family", "assumed"]
"""calibrated: fitted on this device and this variant; family: on a device of its family; assumed:
neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit(Generic[C]):
    """Constants of one variant."""

    __pydantic_config__: ClassVar[Any] = STRICT

    device: str
    """The die's name that they were fitted on."""
    family: str
    """The family of that die."""
    source: str
    """The data."""
    rows: Index
    """Measurements that were fitted; 0: none, the constants were derived as `source` says."""
    median_abs_error_frac: NonNegative | None = None
    """What the fit left, on rows that were not fitted."""
    p90_abs_error_frac: NonNegative | None = None
    """The same, 90th percentile."""
    constants: C
    """Those of the operator class."""

    def status(self, device: str, family: str) -> Status:
        """How far the constants are from the die `device` of `family`."""
        if self.device == device and self.rows > 0:
            return "calibrated"
        return "family" if self.family == family else "assumed"


Fits = Mapping[str, Fit[C]]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFits:
    """By operator class, then by variant."""

    __pydantic_config__: ClassVar[Any] = STRICT

    gemm: Fits[GemmConstants] = field(default_factory=dict)
    """Dense matrix products, by data type."""
    grouped_gemm: Fits[GroupedGemmConstants] = field(default_factory=dict)
    """Routed experts of a layer: number format/library."""
    prefill_attention: Fits[PrefillAttentionConstants] = field(default_factory=dict)
    """Causal attention of prompts and of chunks of prompts, grouped heads."""
    decode_attention: Fits[DecodeAttentionConstants] = field(default_factory=dict)
    """Attention of decoding sequences over their caches, grouped heads."""
    prefill_mla: Fits[PrefillMlaConstants] = field(default_factory=dict)
    """Causal multi-head latent attention of prompts, plain or absorbed."""
    decode_mla: Fits[DecodeMlaConstants] = field(default_factory=dict)
    """Absorbed multi-head latent attention of decoding sequences."""
    collective: Fits[CollectiveConstants | CustomAllReduceConstants] = field(default_factory=dict)
    """All-reduce, all-gather, reduce-scatter, all-to-all inside a node: library/operation/dtype."""
    exchange: Fits[ExchangeConstants] = field(default_factory=dict)
    """Dispatch, combine and transfers between dies: kernel/operation/dtype."""
    encoder_attention: Fits[EncoderAttentionConstants] = field(default_factory=dict)
    """Bidirectional attention of vision and audio encoders."""

    def each(self) -> Iterator[tuple[str, str, Fit[Any]]]:
        """Operator class, variant and fit of everything that there is."""
        for operator in fields(self):
            found: Fits[Any] = getattr(self, operator.name)
            for variant, fit in found.items():
                yield operator.name, variant, fit

    def statuses(self, device: str, family: str) -> dict[Status, int]:
        """How many variants have each status on the die `device` of `family`; none: left out."""
        found = [fit.status(device, family) for _, _, fit in self.each()]
        every: tuple[Status, ...] = get_args(Status)
        return {status: found.count(status) for status in every if status in found}
