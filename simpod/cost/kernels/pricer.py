"""Seconds of the operators of one die, with the constants of its profile.

Caches are cold: in a step each layer reads weights and KV of its own, and what it wrote is gone by
the time that it comes round again. Benchmarks repeat one call and find much of it in L2; that is
what the validation prices, never this module.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from simpod.cost.kernels.collective import CollectiveShape, Operation, collective_s
from simpod.cost.kernels.decode_attention import DecodeAttentionShape, decode_attention_s
from simpod.cost.kernels.decode_mla import DecodeMlaShape, decode_mla_s
from simpod.cost.kernels.decode_split import LIBRARY_OF_FAMILY
from simpod.cost.kernels.expert_load import ExpertLoads, uniform_loads
from simpod.cost.kernels.gemm import GemmShape, gemm_s
from simpod.cost.kernels.grouped_gemm import GroupedGemmShape, grouped_gemm_s
from simpod.cost.kernels.mla import MlaDims
from simpod.cost.kernels.prefill_attention import PrefillAttentionShape, prefill_attention_s
from simpod.cost.kernels.prefill_mla import PrefillMlaShape, prefill_mla_s
from simpod.cost.kernels.variants import (
    GEMM,
    GROUPED_GEMM,
    collective_variants,
    decode_variants,
    gemm_format,
    grouped_format,
    mla_variants,
    need,
    prefill_variants,
)
from simpod.cost.work import Amount, Floats, Product
from simpod.hardware.kernels.decode_attention import DecodeAttentionConstants
from simpod.hardware.kernels.decode_mla import DecodeMlaConstants
from simpod.hardware.kernels.fits import Fit
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.kernels.prefill_attention import PrefillAttentionConstants
from simpod.hardware.kernels.prefill_mla import PrefillMlaConstants
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import AttentionSpec


class Launched(Protocol):
    """Constants of a kernel that is launched."""

    @property
    def launch_s(self) -> float:
        """Stand-alone."""


C = TypeVar("C", bound=Launched)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertWork:
    """Routed experts of one layer on one die; `group_tokens` [n]."""

    group_tokens: Floats
    """Tokens of all ranks of the expert group."""
    arriving_tokens: Floats
    """Of those, the tokens that come to this die."""
    num_experts: int
    """Slots of all dies, redundant ones included."""
    top_k: int
    num_slots: int
    hidden_size: int
    inter_size: int
    """Of one expert on this die."""
    loads: ExpertLoads | None = None
    """Tokens of the die's experts [n, levels]; None: routing uniform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSite:
    """Attention of one layer on one die."""

    spec: AttentionSpec
    num_heads: int
    """Query heads of the die."""
    num_kv_heads: int
    kv_dtype: str
    window_tokens: int
    """0: a query sees the whole context."""


class KernelPricer:
    """Prices operators; arrays broadcast, results are [n]."""

    def __init__(
        self, hardware: HardwareProfile, launch_frac: float = 1.0, *, is_arranged: bool = False
    ) -> None:
        """is_arranged: experts get their rows in order and leave sums to others."""
        self._launch_frac = launch_frac
        self._is_arranged = is_arranged
        self._hardware = hardware
        self._die = hardware.die
        self._library = LIBRARY_OF_FAMILY[hardware.family]

    def product_s(self, work: Product) -> Floats:
        """A product whose input is quantised already. No tokens: 0."""
        fmt = gemm_format(self._hardware, work.dtype)
        constants = self._gemm_constants(fmt)
        if work.is_joined:
            constants = replace(constants, launch_s=0.0)
        tokens = np.asarray(work.tokens, dtype=np.float64)
        shape = GemmShape(
            m=np.maximum(tokens, 1.0),
            n=_whole(work.n),
            k=_whole(work.k),
            is_result_kept=work.is_per_head,
        )
        priced = gemm_s(self._die, constants, shape, fmt, is_cold=True, is_quantised=True)
        return np.where(tokens > 0.0, priced, 0.0)

    def _gemm_constants(self, fmt: str) -> GemmConstants:
        """Of a served product: one kernel, its input quantised by the kernel before.

        Tables of narrow formats time two kernels, and often the framework around them, which hides
        whether a divided k would pay: launch and split are those of bf16.
        """
        bf16: Fit[GemmConstants] = need(self._hardware, "gemm", GEMM["bf16"])
        own: Fit[GemmConstants] = need(self._hardware, "gemm", GEMM[fmt])
        served = replace(
            own.constants, launch_s=bf16.constants.launch_s, split_s=bf16.constants.split_s
        )
        return self._in_graph(served)

    def _expert_constants(self, fmt: str) -> GroupedGemmConstants:
        """The same for experts: the shorter of a variant's launches and those of bf16."""
        bf16: Fit[GroupedGemmConstants] = need(self._hardware, "grouped_gemm", GROUPED_GEMM["bf16"])
        own: Fit[GroupedGemmConstants] = need(self._hardware, "grouped_gemm", GROUPED_GEMM[fmt])
        launch_s = min(bf16.constants.launch_s, own.constants.launch_s)
        return self._in_graph(replace(own.constants, launch_s=launch_s))

    def _in_graph(self, constants: C) -> C:
        """The same with the launch that is left in a graph."""
        changed: Any = constants
        launch_s = constants.launch_s + self._hardware.calibration.kernel_gap_s
        found: C = replace(changed, launch_s=launch_s * self._launch_frac)
        return found

    def experts_s(self, work: ExpertWork, dtype: str) -> Floats:
        """Gate and up, activation, down of all experts of a die, with permuting and summing."""
        fmt = grouped_format(self._hardware, dtype)
        constants = self._expert_constants(fmt)
        shape = GroupedGemmShape(
            loads=work.loads
            or uniform_loads(work.group_tokens, work.num_experts, work.top_k, work.num_slots),
            num_tokens=work.arriving_tokens,
            topk=float(work.top_k),
            num_slots=float(work.num_slots),
            hidden_size=float(work.hidden_size),
            inter_size=float(work.inter_size),
            is_arranged=self._is_arranged,
        )
        return grouped_gemm_s(self._die, constants, shape, dtype=fmt, is_cold=True)

    def decode_attention_s(
        self, site: AttentionSite, seqs: Floats, context: Floats, query_tokens: int
    ) -> Floats:
        """`seqs` sequences that hold `context` tokens each, `query_tokens` new ones included."""
        if site.spec.kind == "mla":
            mla: Fit[DecodeMlaConstants] = need(
                self._hardware, "decode_mla", mla_variants(site.kv_dtype)
            )
            latent = DecodeMlaShape(
                num_seqs=seqs,
                context_tokens=context,
                num_heads=site.num_heads,
                query_tokens=query_tokens,
            )
            return decode_mla_s(
                self._die,
                self._in_graph(mla.constants),
                latent,
                kv_dtype=site.kv_dtype,
                is_cold=True,
                dims=mla_dims(site.spec),
            )
        gqa: Fit[DecodeAttentionConstants] = need(
            self._hardware, "decode_attention", decode_variants(self._hardware, site.kv_dtype)
        )
        shape = DecodeAttentionShape(
            seqs=seqs,
            context_tokens=context,
            query_heads=_whole(site.num_heads),
            kv_heads=_whole(site.num_kv_heads),
            head_dim=_whole(site.spec.head_dim),
            window_tokens=_whole(site.window_tokens),
            query_tokens=_whole(query_tokens),
        )
        return decode_attention_s(
            self._die,
            self._in_graph(gqa.constants),
            shape,
            library=self._library,
            kv_dtype=site.kv_dtype,
            is_cold=True,
        )

    def prefill_attention_s(
        self,
        site: AttentionSite,
        seqs: Floats,
        new: Floats,
        resident: Floats,
        *,
        is_absorbed: bool = False,
    ) -> Floats:
        """`seqs` chunks of `new` tokens each behind `resident` ones; is_absorbed: mla, latents."""
        if site.spec.kind == "mla":
            mla: Fit[PrefillMlaConstants] = need(
                self._hardware, "prefill_mla", mla_variants(site.kv_dtype)
            )
            chunks = PrefillMlaShape(
                num_seqs=seqs, query_tokens=new, num_heads=site.num_heads, resident_tokens=resident
            )
            return prefill_mla_s(
                self._die,
                self._in_graph(mla.constants),
                chunks,
                is_absorbed=is_absorbed,
                dims=mla_dims(site.spec),
            )
        gqa: Fit[PrefillAttentionConstants] = need(
            self._hardware, "prefill_attention", prefill_variants(site.kv_dtype)
        )
        shape = PrefillAttentionShape(
            num_seqs=seqs,
            query_tokens=new,
            resident_tokens=resident,
            num_heads=_whole(site.num_heads),
            num_kv_heads=_whole(site.num_kv_heads),
            head_dim=_whole(site.spec.head_dim),
            value_dim=_whole(site.spec.head_dim),
            window_tokens=_whole(site.window_tokens),
        )
        return prefill_attention_s(
            self._die, self._in_graph(gqa.constants), shape, "bf16", site.kv_dtype
        )

    def has_collective(self, operation: Operation) -> bool:
        """The profile has constants of this one."""
        fits = self._hardware.kernels.collective
        return any(name in fits for names in collective_variants(operation) for name in names)

    def collective_s(self, operation: Operation, size_bytes: Amount, num_dies: int) -> Floats:
        """Inside a node, by the fastest library that the profile has."""
        plane = self._hardware.planes["scale_up"]
        link = plane.bytes_per_s
        if plane.is_full_mesh:
            link *= (num_dies - 1) / (self._hardware.dies_per_node - 1)
        shape = CollectiveShape(
            size_bytes=np.asarray(size_bytes, np.float64), num_dies=_whole(num_dies)
        )
        fits = self._hardware.kernels.collective
        priced = [
            collective_s(link, self._in_graph(fit.constants), shape, operation)
            for variants in collective_variants(operation)
            if (fit := next((fits[name] for name in variants if name in fits), None)) is not None
        ]
        return np.asarray(np.minimum.reduce(priced))


def _whole(count: int) -> Floats:
    """A count as an array, which broadcasts."""
    return np.asarray(count, dtype=np.float64)


def mla_dims(attention: AttentionSpec) -> MlaDims:
    """Widths of a model's MLA."""
    return MlaDims(
        kv_lora_rank=attention.kv_lora_rank,
        qk_rope_head_dim=attention.qk_rope_head_dim,
        qk_nope_head_dim=attention.qk_nope_head_dim,
        v_head_dim=attention.v_head_dim,
    )
