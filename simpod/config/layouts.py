"""How an instance is split over dies: what follows from what, and what does not divide."""

from collections.abc import Mapping
from math import sqrt
from typing import Final

from simpod.config.nodes import Path
from simpod.config.problems import Problems
from simpod.config.schema import Mtp, Pool
from simpod.cost.layout import Layout
from simpod.cost.statuses import SPLIT
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec

Derived = dict[Path, tuple[object, str]]
"""Path in the document -> value that was left open, and how it was found."""

_WIDE: Final[Mapping[str, str]] = {"fp16": "bf16", "fp32": "bf16"}
"""Published wider or otherwise: served in bf16, as engines do."""


def resolve_layout(
    path: Path,
    pool: Pool,
    model: ModelSpec,
    hardware: HardwareProfile,
    problems: Problems,
) -> tuple[Layout, Derived] | None:
    """The layout of one instance of the pool at `path`; None and the problems if it can't be."""
    before = len(problems.found)
    derived: Derived = {}
    split = _split(path, pool, problems, derived)
    if split is None:
        return None
    dies, dp, tp = split
    ep = _expert_dies(path, pool, dies, derived)
    _check_heads(path, tp, model, problems)
    _check_stages(path, pool, model, problems)
    _check_experts(path, pool, (dies, ep), model, problems)
    _check_split_kernels(path, pool, hardware, problems)
    _check_pipeline(path, pool, (dp, tp), model, problems)
    _check_cores(path, pool, hardware, problems)
    if pool.mtp.layers and not model.num_mtp_layers:
        problems.at((*path, "mtp", "layers"), f"{model.name} has no MTP layers", allowed="0")
    acceptance = _acceptance((*path, "mtp"), pool.mtp, problems)
    if len(problems.found) > before:
        return None
    layout = Layout(
        dies=dies,
        dp=dp,
        tp=tp,
        ep=ep,
        weight_dtype=_weight_dtype(path, pool, model, hardware, derived),
        kv_dtype="bf16" if pool.kv_dtype == "auto" else pool.kv_dtype,
        mtp_layers=pool.mtp.layers,
        mtp_acceptance=acceptance,
        mtp_acceptance_std=pool.mtp.acceptance_std,
        balances_mtp=pool.mtp.balanced,
        pipelines_mtp=pool.mtp.pipelined,
        shared_expert_dies=pool.shared_expert_dies,
        expert_dies=pool.expert_dies,
        domains=pool.domains,
        micro_batches=pool.micro_batches,
        micro_batch_tokens=pool.micro_batch_tokens,
        attention_cores=pool.attention_cores or 0,
        attention_parallelism=pool.attention_parallelism,
        max_num_seqs=pool.max_num_seqs if pool.role == "decode" else 0,
    )
    if pool.kv_dtype == "auto":
        derived[*path, "kv_dtype"] = (layout.kv_dtype, "auto is bf16")
    return layout, derived


def _acceptance(path: Path, mtp: Mtp, problems: Problems) -> float | tuple[float, ...]:
    """One share for all layers, or of several layers one each, which have no spread."""
    mean, std, layers = mtp.acceptance, mtp.acceptance_std, mtp.layers
    if isinstance(mean, tuple):
        if layers and len(mean) != layers:
            problems.at(
                problems.blamed(path, "acceptance", "layers"),
                f"a list of {len(mean)} where layers is {layers}",
                allowed=f"{layers} numbers, or one for all layers",
            )
        if layers != 1 or len(mean) != 1:
            if layers and std:
                problems.at(
                    (*path, "acceptance_std"),
                    "a spread of several shares: which of them a request draws is not modelled",
                    allowed="0 with a list of several, or one number as acceptance",
                )
            return mean
        mean = mean[0]
    most = sqrt(mean * (1.0 - mean))  # the less the nearer the mean is to 0 or 1
    if std and std >= most:
        what = f"no share with mean {mean:g} spreads by {std:g}"
        problems.at((*path, "acceptance_std"), what, allowed=f"< {most:.3g}")
    return mean


def _split(
    path: Path, pool: Pool, problems: Problems, derived: Derived
) -> tuple[int, int, int] | None:
    """dies, dp and tp: whatever is missing follows from the rest."""
    dies, dp, tp = pool.dies, pool.dp, pool.tp
    if dies is not None and dies > 1 and dp is None and tp is None:
        problems.at(
            (*path, "dies"),
            f"{dies} dies can be split in more than one way",
            hint="give dp (ranks of their own), tp (dies of one rank), or both",
        )
        return None
    if dies is not None and (dp is None) != (tp is None):
        return _divide(path, dies, dp, tp, problems, derived)
    for key, value in (("dp", dp), ("tp", tp)):
        if value is None:
            derived[*path, key] = (1, "")
    dp, tp = dp or 1, tp or 1
    if dies is None:
        derived[*path, "dies"] = (dp * tp, f"dp {dp} x tp {tp}")
    elif dp * tp != dies:
        problems.at(
            problems.blamed(path, "dies", "dp", "tp"),
            f"dp {dp} x tp {tp} = {dp * tp} does not match dies {dies}",
            allowed=f"dies: {dp * tp}, or dp and tp whose product is {dies}",
        )
        return None
    return dp * tp, dp, tp


def _divide(
    path: Path, dies: int, dp: int | None, tp: int | None, problems: Problems, derived: Derived
) -> tuple[int, int, int] | None:
    """One of dp and tp is given, the other follows from dies."""
    given, other = ("dp", "tp") if tp is None else ("tp", "dp")
    size = (dp or 1) * (tp or 1)
    if dies % size:
        problems.at(
            problems.blamed(path, "dies", given), f"dies {dies} is not a multiple of {given} {size}"
        )
        return None
    derived[*path, other] = (dies // size, f"dies {dies} / {given} {size}")
    return dies, dp or dies // size, tp or dies // size


def _expert_dies(path: Path, pool: Pool, dies: int, derived: Derived) -> int:
    """Dies that share the routed experts: those of their own, or `ep` of the instance's `dies`."""
    if pool.ep != "all":
        return pool.expert_dies or pool.ep
    if pool.expert_dies:
        ep, whose = pool.expert_dies, "expert_dies"
    else:
        ep, whose = dies, "dies"
    derived[*path, "ep"] = (ep, f"all {whose}")
    return ep


def _check_heads(path: Path, tp: int, model: ModelSpec, problems: Problems) -> None:
    attention = model.attention
    heads, kv_heads = attention.num_heads, attention.num_kv_heads
    if heads % tp:
        problems.at(
            (*path, "tp"),
            f"tp {tp} does not divide the {heads} attention heads of {model.name}",
            allowed=", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0),
        )
    elif attention.kind == "gqa" and kv_heads % tp and tp % kv_heads:
        problems.at(
            (*path, "tp"),
            f"tp {tp} neither divides nor is a multiple of the {kv_heads} KV heads of {model.name}",
        )


def _check_stages(path: Path, pool: Pool, model: ModelSpec, problems: Problems) -> None:
    """sp_tp_sp gathers the latents of query and keys, so a model must have both."""
    if pool.attention_parallelism == "tensor":
        return
    attention = model.attention
    what = ""
    if attention.kind != "mla":
        what = f"its attention is {attention.kind}, without latents"
    elif attention.q_lora_rank is None:
        what = "its queries have no latent"
    if what:
        key = (*path, "attention_parallelism")
        problems.at(key, f"sp_tp_sp with {model.name}: {what} to gather", allowed="tensor")


def _check_experts(
    path: Path, pool: Pool, split: tuple[int, int], model: ModelSpec, problems: Problems
) -> None:
    """split: dies of an instance, and those that share the experts."""
    dies, ep = split
    _check_shared(path, pool, ep, model, problems)
    if pool.ep == 1 or pool.expert_dies:
        return
    if model.moe is None:
        problems.at((*path, "ep"), f"{model.name} is dense, it has no experts", allowed="1")
    elif dies % ep:
        problems.at(
            problems.blamed(path, "ep", "dies", "dp", "tp"),
            f"ep {ep} does not divide the {dies} dies of an instance",
            allowed="a divisor of dies; all spreads the experts over all of them",
        )


def _check_shared(path: Path, pool: Pool, ep: int, model: ModelSpec, problems: Problems) -> None:
    """A shared copy takes one slot, so it must be as large as a routed expert."""
    if not pool.shared_expert_dies:
        return
    moe = model.moe
    if moe is None or moe.shared_intermediate_size != moe.expert_intermediate_size:
        problems.at(
            (*path, "shared_expert_dies"),
            f"{model.name} has no shared expert of the size of a routed one",
            allowed="0",
        )
    elif pool.shared_expert_dies > ep:
        problems.at(
            (*path, "shared_expert_dies"),
            f"{pool.shared_expert_dies} copies on {ep} dies of experts",
            allowed=f"0 to {ep}",
            hint="or ep: all, or the number of dies that share the experts" if ep == 1 else "",
        )


def _check_split_kernels(
    path: Path, pool: Pool, hardware: HardwareProfile, problems: Problems
) -> None:
    if pool.expert_dies and SPLIT not in hardware.kernels.exchange:
        problems.at(
            (*path, "expert_dies"),
            f"constants of {SPLIT} price A2E and E2A, and {hardware.name} has none",
            allowed="0",
            hint=f"or give hardware.kernels.exchange.{SPLIT}, as in cloudmatrix384",
        )


def _check_pipeline(
    path: Path, pool: Pool, split: tuple[int, int], model: ModelSpec, problems: Problems
) -> None:
    """Experts on dies of their own, domains, and micro-batches."""
    dp, tp = split
    if pool.expert_dies:
        if model.moe is None:
            problems.at((*path, "expert_dies"), f"{model.name} has no experts", allowed="0")
        if pool.ep not in (1, "all", pool.expert_dies):
            what = f"ep {pool.ep} is not expert_dies {pool.expert_dies}"
            problems.at((*path, "ep"), what, hint="leave ep out")
        if tp > 1:
            what = (
                f"tp {tp}: a rank with expert_dies is one attention die, which sends its own tokens"
            )
            problems.at((*path, "tp"), what, allowed="1")
        if dp % pool.domains:
            what = (
                f"domains {pool.domains} do not divide dp {dp}: they take turns at the expert dies,"
                " each with as many attention dies"
            )
            problems.at(
                problems.blamed(path, "domains", "dies", "dp"), what, allowed="a divisor of dp"
            )
        return
    if pool.domains > 1:
        what = "domains are of attention dies that share expert_dies, and there are none"
        problems.at((*path, "domains"), what, allowed="1")
    is_alone = dp == 1 and (tp == 1 or pool.attention_parallelism == "tensor")
    if pool.micro_batches > 1 and (model.moe is None or is_alone):
        problems.at(
            (*path, "micro_batches"),
            "micro-batches hide the exchange between ranks, and there is none",
            allowed="1",
        )


def _check_cores(path: Path, pool: Pool, hardware: HardwareProfile, problems: Problems) -> None:
    """Two streams on a die, and a core for each."""
    key, cores, of = (*path, "attention_cores"), pool.attention_cores, hardware.die.num_cores
    if cores is None:
        return
    if pool.expert_dies or pool.micro_batches < 2:
        problems.at(
            key,
            "dies whose cores two streams split have micro_batches, and the experts as well",
            hint="micro_batches: 2 without expert_dies, or leave it out",
        )
    elif pool.role == "prefill" and hardware.family == "ascend":
        what = "prompts in micro-batches run on three engines of a die, which split no cores"
        problems.at(key, what, hint="leave it out")
    elif cores >= of:
        what = f"{hardware.die.name} has {of} cores, and the stream of experts needs one"
        problems.at(key, what, allowed=f"1 to {of - 1}")


def _weight_dtype(
    path: Path, pool: Pool, model: ModelSpec, hardware: HardwareProfile, derived: Derived
) -> str:
    if pool.weight_dtype != "auto":
        return pool.weight_dtype
    peaks = hardware.die.peak_flops_per_s
    published: str = model.weight_dtype
    dtype, how = published, f"as {model.name} is published"
    if published in _WIDE:
        dtype, how = _WIDE[published], f"published in {published}"
    elif published == "fp8" and "fp8" not in peaks and "int8" in peaks:
        dtype, how = "int8", f"published in fp8, {hardware.die.name} has int8 but no fp8"
    derived[*path, "weight_dtype"] = (dtype, how)
    return dtype
