"""`hash_block_tokens` that is not the file's: found from the lengths, where they can tell."""

import json
from pathlib import Path

import numpy as np
import pytest

from simpod.errors import ConfigError
from simpod.workload import (
    BailianTrace,
    MooncakeTrace,
    PoissonArrivals,
    Requests,
    SharedPrefixSpec,
    UniformLengths,
    WorkloadSpec,
    build,
    read_trace,
    streams,
    write_mooncake,
)
from simpod.workload.traces.spec import TimedTrace

Row = tuple[int, int, int]  # prompt tokens, output tokens, number of ids


def read(spec: TimedTrace) -> Requests:
    return read_trace(spec, streams(0)("jitter"))


def trace_of(tmp_path: Path, rows: list[Row]) -> str:
    """Rows whose ids are all different."""
    path, next_id = tmp_path / "t.jsonl", 0
    lines = []
    for chat, (prompt, output, count) in enumerate(rows):
        row = {"timestamp": 0, "input_length": prompt, "output_length": output}
        row |= {"hash_ids": list(range(next_id, next_id + count))}
        lines.append(json.dumps(row | {"chat_id": chat, "parent_chat_id": -1}))
        next_id += count
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def rows_of(block: int, *, whole: bool = False, with_output: bool = False) -> list[Row]:
    """Rows with one id a block: begun ones too or `whole` ones only, of the prompt or of all."""
    rng = np.random.default_rng(5)
    rows = []
    for prompt, output in rng.integers(50, 20_000, size=(60, 2)).tolist():
        tokens = prompt + output if with_output else prompt
        rows.append((prompt, output, tokens // block if whole else -(-tokens // block)))
    return rows


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("with_output", [False, True])
@pytest.mark.parametrize("block", [16, 512, 1000])
def test_a_block_that_is_far_too_small_is_refused_with_the_likely_one(
    tmp_path: Path, block: int, whole: bool, with_output: bool
) -> None:
    path = trace_of(tmp_path, rows_of(block, whole=whole, with_output=with_output))
    assert read(MooncakeTrace(path=path, hash_block_tokens=block)).hash_block_tokens == block
    with pytest.raises(ConfigError) as error:
        read(MooncakeTrace(path=path, hash_block_tokens=block // 8))
    assert f"{path}: hash_block_tokens {block // 8}: the hash_ids of " in str(error.value)
    likely = int(str(error.value).rpartition("probably ")[2])
    assert likely == pytest.approx(block, rel=0.1 if block == 1000 else 0)


def test_both_formats_and_skipping_does_not_help(tmp_path: Path) -> None:
    path = trace_of(tmp_path, rows_of(512))
    for spec in (
        BailianTrace(path=path),
        MooncakeTrace(path=path, hash_block_tokens=16, bad_rows="skip"),
    ):
        with pytest.raises(ConfigError, match=r"hash_block_tokens 16: .* probably 512"):
            read(spec)


@pytest.mark.parametrize(
    "rows",
    [
        [*rows_of(512)[:20], (100_000, 5, 3)],  # one short row
        [(5000, 10, 0)] * 10 + [(5000, 10, 1)],  # nearly all without identity
        [(5000, 10, 2)] * 10,  # every one names its shared prefix alone
        [(50_000, 10, 2), (1100, 10, 2), (900, 10, 1), (80_000, 10, 1), (30_000, 10, 1)],
    ],
)
def test_partial_identity_is_legal(tmp_path: Path, rows: list[Row]) -> None:
    assert len(read(MooncakeTrace(path=trace_of(tmp_path, rows)))) == len(rows)


def test_a_written_shared_prefix_is_read_back(tmp_path: Path) -> None:
    spec = WorkloadSpec(
        arrivals=PoissonArrivals(rate_per_s=1),
        prompt_tokens=UniformLengths(min=500, max=3000),
        output_tokens=UniformLengths(min=1, max=9),
        shared_prefix=SharedPrefixSpec(tokens=64, num_prefixes=3),
        num_requests=50,
    )
    requests = build(spec, streams(1))
    write_mooncake(requests, tmp_path / "t.jsonl")
    again = read(MooncakeTrace(path=str(tmp_path / "t.jsonl"), hash_block_tokens=16))
    assert again.hash_ids.tolist() == requests.hash_ids.tolist()
