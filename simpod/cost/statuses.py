"""How far each part of a step's price rests on measurements of this very device."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from simpod.cost.collectives import meets_in_layers
from simpod.cost.exchange.shapes import Fabric
from simpod.cost.gather_exchange import gathers_tokens
from simpod.cost.kernels.pricer import KernelPricer
from simpod.cost.kernels.variants import (
    GEMM,
    GROUPED_GEMM,
    collective_variants,
    decode_variants,
    find,
    gemm_format,
    grouped_format,
    mla_variants,
    prefill_variants,
)
from simpod.cost.layout import Layout
from simpod.cost.operators import part_dtype
from simpod.cost.semantics import Semantics
from simpod.hardware.kernels.fits import Fit, Status
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec
from simpod.records.columns import STEP_PARTS

SPLIT: Final = "xccl_pull"
"""Constants that attention and experts on different dies exchange by."""
STATUSES: tuple[Status, ...] = ("calibrated", "family", "assumed")
"""From the best to the worst."""


def part_statuses(
    model: ModelSpec, hardware: HardwareProfile, layout: Layout, role: str, semantics: Semantics
) -> dict[str, Status]:
    """Status of each part of a step.

    A mixed pool's attention has the worse of its two kernels. Waiting is as good as what is waited
    for. Element-wise passes, sampling and the host's gap are assumed: no table is fitted for them.
    So are exchanges of Ascend's kernels beyond the dies that scale_up joins.
    """

    def of(operator: str, variants: Sequence[str]) -> Status:
        fits: Mapping[str, Fit[Any]] = getattr(hardware.kernels, operator)
        found = find(fits, variants)
        return found.status(hardware.die.name, hardware.family) if found else "assumed"

    dense = of("gemm", GEMM[gemm_format(hardware, layout.weight_dtype)])
    dtype = part_dtype(model, "experts", layout.weight_dtype)
    attention = worst(
        [
            of(operator, variants)
            for phase, operator, variants in _attention(model, hardware, layout)
            if role in (phase, "mixed")
        ]
    )
    exchanges = hardware.kernels.exchange
    is_beyond = SPLIT in exchanges and layout.dies > Fabric.of(hardware).up_dies
    dispatch = combine = "assumed" if not exchanges or is_beyond else of("exchange", ())
    kernels = KernelPricer(hardware, semantics.launch_frac)
    if semantics.gathers_few and gathers_tokens(model, hardware, layout, kernels):
        dispatch = of("collective", collective_variants("all_gather")[0])
        combine = of("collective", collective_variants("reduce_scatter")[0])
    split = of("exchange", (SPLIT,)) if SPLIT in hardware.kernels.exchange else "assumed"
    experts = of("grouped_gemm", GROUPED_GEMM[grouped_format(hardware, dtype)])
    known: dict[str, Status] = {
        "attention": attention,
        "projections": dense,
        "ffn": dense,
        "experts": experts,
        "all_reduce": of("collective", ("custom_graph/all_reduce", "hccl/all_reduce")),
        "latent_gather": of("collective", ("hccl/all_gather", "nccl/all_gather")),
        "dispatch": dispatch,
        "dispatch_wait": attention,
        "combine": combine,
        "combine_wait": worst([experts, split]) if layout.expert_dies else combine,
        "a2e": split,
        "e2a": split,
        "head": dense,
        "mtp": dense,
    }
    return {part: known.get(part, "assumed") for part in STEP_PARTS}


def parts_of(model: ModelSpec, layout: Layout) -> tuple[str, ...]:
    """Those of `STEP_PARTS` that a step of a group can have, in that order."""
    is_apart, meets = layout.expert_dies > 0, meets_in_layers(model, layout)
    is_there = {
        "experts": model.moe is not None,
        "all_reduce": layout.tp > 1 and not layout.is_staged,
        "latent_gather": layout.is_staged,
        "head_exchange": layout.is_staged,
        "dispatch": meets and not is_apart,
        "dispatch_wait": layout.has_tokens_apart,
        "combine": meets and not is_apart,
        "combine_wait": meets or is_apart,
        "a2e": is_apart,
        "e2a": is_apart,
        "mtp": layout.mtp_layers > 0,
    }
    return tuple(part for part in STEP_PARTS if is_there.get(part, True))


def worst(statuses: Sequence[Status]) -> Status:
    """The last of them in `STATUSES`."""
    return max(statuses, key=STATUSES.index, default="assumed")


def _attention(
    model: ModelSpec, hardware: HardwareProfile, layout: Layout
) -> tuple[tuple[str, str, Sequence[str]], ...]:
    if model.attention.kind == "mla":
        variants = mla_variants(layout.kv_dtype)
        return ("prefill", "prefill_mla", variants), ("decode", "decode_mla", variants)
    return (
        ("prefill", "prefill_attention", prefill_variants(layout.kv_dtype)),
        ("decode", "decode_attention", decode_variants(hardware, layout.kv_dtype)),
    )
