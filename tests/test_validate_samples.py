"""The sample of an Ascend 910B's kernels: rows that the die can reach, read as any other table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cli_runs import call

from simpod.config import load_hardware
from simpod.validate.kernels import validate_tables
from simpod.validate.samples import SAMPLED, shipped_tables
from simpod.validate.sources import Sources
from simpod.validate.tables.kinds import KINDS

TABLES = {table.kind: table for table in shipped_tables()}
HARDWARE = load_hardware("atlas-a2-376t")


def group_of(kind: str) -> Any:
    (group,) = KINDS[kind].read(TABLES[kind].read())
    return group


def test_every_row_is_read_once() -> None:
    assert tuple(TABLES) == SAMPLED
    read = [len(group.measured_s) for k in SAMPLED for group in KINDS[k].read(TABLES[k].read())]
    text = TABLES["gemm"].path.read_text(encoding="utf-8").splitlines()
    assert sum(read) == sum(1 for line in text if not line.startswith(("#", "kind")))
    assert not any(frame.duplicated().any() for frame in (t.read() for t in TABLES.values()))


def test_no_row_beats_the_die() -> None:
    """376 TFLOPS, 752 int8; memory where weights or caches are far larger than L2."""
    peaks = {"bf16": 376e12, "int8": HARDWARE.die.peak_flops_per_s["int8"]}
    for group in KINDS["gemm"].read(TABLES["gemm"].read()):
        shape = group.shape
        assert (2 * shape.m * shape.n * shape.k / group.measured_s < peaks[group.variant]).all()
    mla = group_of("generation_mla")
    latents = mla.shape.num_seqs * mla.shape.context_tokens
    assert (latents * mla.shape.num_heads * 2 * 1088 / mla.measured_s < 376e12).all()
    far = latents * 1152 > 2 * HARDWARE.die.l2_bytes
    assert far.any()
    assert (latents[far] * 1152 / mla.measured_s[far] < HARDWARE.die.hbm_bytes_per_s).all()


def test_devices_and_libraries_are_known() -> None:
    variants = {k: {g.variant for g in KINDS[k].read(TABLES[k].read())} for k in SAMPLED}
    for kind, names in variants.items():
        fits = getattr(HARDWARE.kernels, KINDS[kind].operator)
        assert names <= set(fits), kind
    report = validate_tables(shipped_tables())
    assert report.refusals == []
    assert {table.group for table in report.tables} >= {f"kernels/ascend_910b/{k}" for k in SAMPLED}


def test_even_shares_explain_how_decode_mla_grows_with_sequences() -> None:
    """The ratio of price and time hardly depends on how many waves there would be: 32,768 keys,
    128 heads, 16 sequences and more. With whole tiles in waves it varies by over 30 %."""
    group = group_of("generation_mla")
    constants = HARDWARE.kernels.decode_mla["bf16"].constants
    chosen = (group.shape.context_tokens == 32_768) & (group.shape.num_heads == 128)
    chosen &= group.shape.num_seqs >= 16

    def spread(known: Any) -> float:
        priced_s = KINDS["generation_mla"].price(HARDWARE, "bf16", known, group.shape)
        ratios = (priced_s / group.measured_s)[chosen]
        return float(ratios.max() / ratios.min())

    assert chosen.sum() == 5
    assert spread(constants) < 1.05
    waves = replace(constants, spread_block_tokens=1e7, min_split_tokens=256.0)
    assert spread(waves) > 1.3


def test_samples_are_kernels_that_ship(tmp_path: Path) -> None:
    kept = Sources().only(["kernels/ascend_910b"])
    assert (kept.with_shipped_kernels, kept.with_shipped_points) == (True, False)
    assert not Sources().only(["points"]).with_shipped_kernels
    result = call("validate", "--group", "kernels/ascend_910b/gemm", "--data", str(tmp_path))
    assert result.exit_code == 0
    assert "kernels/ascend_910b/gemm/int8" in result.output
    assert "generation_mla" not in result.output


def test_absorbed_products_are_heads_side_by_side() -> None:
    shape = group_of("mla_bmm").shape
    heads = shape.n * shape.k / (512 * 128)
    assert set(heads) == {16.0, 64.0, 128.0}
    assert set(zip(shape.n / heads, shape.k, strict=True)) == {(128.0, 512.0), (512.0, 128.0)}
    assert KINDS["mla_bmm"].fit is None  # products of other tables say what the constants are


def test_a_group_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    result = call("validate", "--group", "kernels/ascend_910b/gemmm", "--data", str(tmp_path))
    assert result.exit_code == 2
    assert "no group begins so; found kernels/ascend_910b/" in result.output
