"""Constants of a kernel that was not measured on a die: the die's, and those of its library."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from cli_runs import call
from kernel_examples import REAL_GEMM, fit_of
from measured_tables import SHARED, table
from validate_cases import gemm_rows, gemm_table

from simpod.config import load_hardware
from simpod.hardware.kernels.decode_attention import DecodeAttentionConstants
from simpod.hardware.kernels.decode_mla import DecodeMlaConstants
from simpod.hardware.kernels.encoder_attention import EncoderAttentionConstants
from simpod.hardware.kernels.fits import KernelFits
from simpod.hardware.kernels.gemm import GemmConstants
from simpod.hardware.kernels.grouped_gemm import GroupedGemmConstants
from simpod.hardware.kernels.prefill_attention import PrefillAttentionConstants
from simpod.hardware.kernels.prefill_mla import PrefillMlaConstants
from simpod.hardware.kernels.transfer import with_library
from simpod.hardware.spec import DieSpec
from simpod.validate.kernels import find_tables, transferred, validate_kernels, without_die
from simpod.validate.names import MEASURED, measured_kernels
from simpod.validate.tables.kinds import KINDS
from simpod.validate.tables.mla_rows import STRUCTURE

CLASSES = (
    GemmConstants,
    GroupedGemmConstants,
    PrefillAttentionConstants,
    DecodeAttentionConstants,
    PrefillMlaConstants,
    DecodeMlaConstants,
    EncoderAttentionConstants,
)
OTHER = replace(REAL_GEMM, launch_s=7e-6, hbm_frac=0.5, quantise_s_per_row=3e-7)


@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_of_the_library_is_a_constant_and_shares_of_peaks_are_of_the_die(kind: Any) -> None:
    names = {each.name for each in fields(kind)}
    assert names > kind.LIBRARY
    assert {"hbm_frac", "compute_frac", "matmul_frac"} & kind.LIBRARY == set()
    assert "launch_s" in kind.LIBRARY
    assert len(names - set(STRUCTURE)) <= 12  # what a table must tell


def test_halves_make_a_whole() -> None:
    mixed = asdict(with_library(REAL_GEMM, OTHER))
    for name, value in mixed.items():
        source = OTHER if name in GemmConstants.LIBRARY else REAL_GEMM
        assert value == getattr(source, name)
    assert mixed["launch_s"] == 7e-6
    assert mixed["hbm_frac"] == REAL_GEMM.hbm_frac


def test_links_and_strange_classes_stay_as_they_are() -> None:
    links = next(iter(load_hardware("h100").kernels.collective.values())).constants
    assert with_library(links, links) is links
    assert with_library(REAL_GEMM, links) is REAL_GEMM


# --- which constants a variant gets ---------------------------------------------------------------


def gemm_fits(**variants: Any) -> KernelFits:
    return KernelFits(gemm={name: fit_of(constants) for name, constants in variants.items()})


def test_own_fit_wins_then_the_nearest_with_the_library_of_others() -> None:
    hardware = replace(load_hardware("h100"), kernels=gemm_fits(bf16=REAL_GEMM))
    kind, others = KINDS["gemm"], (KernelFits(), gemm_fits(bf16=OTHER, fp8=OTHER))
    assert kind.constants_for(hardware, "bf16", others) == REAL_GEMM
    assert kind.constants_for(hardware, "fp8", others) == with_library(REAL_GEMM, OTHER)
    assert kind.constants_for(hardware, "nvfp4", others) == REAL_GEMM  # nobody measured it
    bare = replace(hardware, kernels=KernelFits())
    assert kind.constants_for(bare, "bf16", others) is None


def test_a_library_far_from_the_best_brings_its_rates_too() -> None:
    h100, b200 = load_hardware("h100"), load_hardware("b200")
    found = KINDS["context_attention"].constants_for(h100, "bf16/triton", (b200.kernels,))
    assert found == b200.kernels.prefill_attention["bf16/triton"].constants
    near = KINDS["context_attention"].constants_for(h100, "bf16/trtllm", (b200.kernels,))
    own = h100.kernels.prefill_attention["bf16/fused"].constants
    assert near.matmul_frac == own.matmul_frac
    assert near.query_tile_tokens == 256.0


def test_an_unfitted_device_has_its_familys_die_and_the_measured_libraries() -> None:
    """A layer of vLLM takes its host's time on any device; weights come at the die's rate."""
    h200, b200 = load_hardware("h200"), load_hardware("b200")
    layer = KINDS["gemm"].constants_for(b200, "fp8/vllm", measured_kernels())
    assert layer.host_s == h200.kernels.gemm["fp8/vllm"].constants.host_s
    assert layer.hbm_frac == b200.kernels.gemm["fp8"].constants.hbm_frac
    served = KINDS["generation_attention"].constants_for(h200, "bf16/trtllm", measured_kernels())
    assert served.unit_s == b200.kernels.decode_attention["bf16/trtllm"].constants.unit_s
    assert served.hbm_frac == h200.kernels.decode_attention["bf16/fa3"].constants.hbm_frac


def test_measured_devices_have_fits_of_their_own() -> None:
    for name, kernels in zip(MEASURED, measured_kernels(), strict=True):
        die = load_hardware(name).die.name
        own = [fit for _, _, fit in kernels.each() if fit.device == die and fit.rows > 0]
        assert own
        assert all(fit.device != die for _, _, fit in without_die(kernels, die).each())


# --- the command ----------------------------------------------------------------------------------


def test_tables_are_priced_by_another_devices_constants(tmp_path: Path) -> None:
    gemm_table(tmp_path, "h100_sxm.gemm.csv")
    gemm_rows().to_csv(tmp_path / "b200_sxm.gemm.csv", index=False)
    report = validate_kernels(tmp_path, load_hardware("h100"))
    names = [group.group for group in report.groups()]
    assert names == [f"kernels/b200_sxm/as-h100{end}/gemm" for end in ("", "+library")]
    strict, known = (group.errors for group in report.groups())
    assert strict == known  # bf16 was fitted on both: nothing is missing


def test_nothing_of_the_tables_own_die_is_used_but_libraries_on_request() -> None:
    """FlashAttention-3's rows of the h100, by the b200, which never ran it."""
    table("kernels/h100_sxm.generation_attention.parquet")
    (found,) = (
        each
        for each in find_tables(SHARED / "kernels")
        if (each.device, each.kind) == ("h100_sxm", "generation_attention")
    )
    report = transferred(KINDS[found.kind], found, load_hardware("b200"))
    errors = {group.group: group.errors.median_abs_error_frac for group in report.groups()}  # type: ignore[union-attr]
    assert errors["kernels/h100_sxm/as-b200+library/generation_attention"] < 0.08
    assert errors["kernels/h100_sxm/as-b200/generation_attention"] > 0.15


@pytest.mark.parametrize(
    ("source", "device", "kind", "median_frac"),
    [
        ("h100", "b200_sxm", "gemm", 0.12),
        ("h100", "b200_sxm", "context_attention", 0.09),
        ("h100", "b200_sxm", "generation_mla", 0.12),
        ("h100", "b200_sxm", "context_mla", 0.09),
        ("b200", "h100_sxm", "context_attention", 0.09),
        ("b200", "h100_sxm", "moe", 0.15),
        ("h100", "a100_sxm", "context_attention", 0.15),
    ],
)
def test_dies_of_other_generations_serve_where_the_library_is_known(
    source: str, device: str, kind: str, median_frac: float
) -> None:
    table(f"kernels/{device}.{kind}.parquet")
    (found,) = (
        each
        for each in find_tables(SHARED / "kernels")
        if (each.device, each.kind) == (device, kind)
    )
    report = transferred(KINDS[kind], found, load_hardware(source))
    whole = {group.group: group.errors for group in report.groups()}
    known = whole[f"kernels/{device}/as-{source}+library/{kind}"]
    assert known is not None
    assert known.median_abs_error_frac < median_frac


def test_the_option_needs_tables_and_a_profile(tmp_path: Path) -> None:
    gemm_rows().to_csv(tmp_path / "b200_sxm.gemm.csv", index=False)
    done = call("validate", "--kernels", tmp_path, "--kernels-of", "h100")
    assert done.exit_code == 0
    assert "kernels/b200_sxm/as-h100+library/gemm" in done.stdout
    done = call("validate", "--kernels-of", "h100")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--kernels-of: is about kernel tables; name a folder with --kernels" in done.stderr
    done = call("validate", "--kernels", tmp_path, "--kernels-of", "h1000")
    assert done.exit_code == 2
    assert 'unknown hardware profile "h1000"' in done.stderr


# --- exponentials ---------------------------------------------------------------------------------


def test_twice_the_exponentials_shorten_a_softmax_by_their_share() -> None:
    b200, b300 = load_hardware("b200").die, load_hardware("b300").die
    assert b200.softmax_flops_per_s == b200.vector_flops_per_s
    ratio = b200.softmax_flops_per_s / b300.softmax_flops_per_s
    assert ratio == pytest.approx(0.2 + 0.8 / 2, rel=0.01)


def test_prompt_attention_of_blackwell_ultra_gains_what_nvidia_published() -> None:
    """35 % in fp8, long prompts, heads of 128."""

    def key_s(die: DieSpec) -> float:
        fit = load_hardware("b200").kernels.prefill_attention["fp8/trtllm"].constants
        product_s = 2.0 * 256.0 / (die.peak_flops_per_s["fp8"] * fit.matmul_frac)
        return product_s + fit.softmax_flops / die.softmax_flops_per_s

    gain = key_s(load_hardware("b200").die) / key_s(load_hardware("b300").die) - 1.0
    assert gain == pytest.approx(0.35, abs=0.02)
