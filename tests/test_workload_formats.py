"""Five rows of each trace format, read exactly; times, windows, jitter and scaling on top."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simpod.errors import ConfigError
from simpod.workload import (
    AzureTrace,
    BailianTrace,
    BurstGptTrace,
    ColumnsTrace,
    LengthsTrace,
    MooncakeTrace,
    PoissonArrivals,
    Requests,
    WindowSpec,
    WorkloadSpec,
    build,
    read_trace,
    streams,
)
from simpod.workload.traces.spec import TimedTrace

MOONCAKE = """\
{"timestamp": 0, "input_length": 1100, "output_length": 52, "hash_ids": [0, 1, 2]}
{"timestamp": 3000, "input_length": 512, "output_length": 1, "hash_ids": [0], "session_id": "b"}
{"timestamp": 3000, "input_length": 1024, "output_length": 9, "hash_ids": [0, 3], "session_id": 7}
{"timestamp": 6001, "input_length": 10, "output_length": 3}
{"timestamp": 9000.5, "input_length": 1600, "output_length": 4, "hash_ids": [0, 3, 4, 5], \
"session_id": "b"}
"""
BAILIAN = """\
{"chat_id": 10, "parent_chat_id": -1, "timestamp": 0.0, "input_length": 40, "output_length": 20, \
"type": "text", "turn": 1, "hash_ids": [1, 2, 3]}
{"chat_id": 11, "parent_chat_id": -1, "timestamp": 1.5, "input_length": 16, "output_length": 5, \
"type": "file", "turn": 1, "hash_ids": [9]}
{"chat_id": 12, "parent_chat_id": 10, "timestamp": 4.25, "input_length": 64, "output_length": 7, \
"type": "text", "turn": 2, "hash_ids": [1, 2, 4, 5]}
{"chat_id": 13, "parent_chat_id": 5, "timestamp": 5.0, "input_length": 8, "output_length": 1, \
"type": "text", "turn": 3, "hash_ids": [6]}
{"chat_id": 14, "parent_chat_id": 12, "timestamp": 8.0, "input_length": 70, "output_length": 2, \
"type": "text", "turn": 3, "hash_ids": [1, 2, 4, 7, 8]}
"""
AZURE_2023 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
2023-11-16 18:15:51.2224671,91,16
2023-11-16 18:16:46.6805900,91,16
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:01+00:00,2399,6
2024-05-10 00:00:01.017335+00:00,76,15
2024-05-10 02:00:02.009930+02:00,2376,4
2024-05-10 00:00:02.109930Z,7670,8
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,276,693,Conversation log
118,ChatGPT,1360,647,2007,API log
185.5,ChatGPT,185,215,400,Conversation log
"""


@pytest.fixture
def write(tmp_path: Path):
    def to_file(text: str, name: str = "trace") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return str(path)

    return to_file


def read(spec: TimedTrace, limit: int | None = None, seed: int = 0) -> Requests:
    return read_trace(spec, streams(seed)("jitter"), limit)


def test_mooncake(write) -> None:
    requests = read(MooncakeTrace(path=write(MOONCAKE)))
    assert requests.arrival_s.tolist() == [0.0, 3.0, 3.0, 6.001, 9.0005]
    assert requests.prompt_tokens.tolist() == [1100, 512, 1024, 10, 1600]
    assert requests.output_tokens.tolist() == [52, 1, 9, 3, 4]
    assert requests.session_id.tolist() == [-1, 0, 1, -1, 0]
    assert [requests.prefix_ids(i).tolist() for i in range(5)] == [
        [0, 1, 2],
        [0],
        [0, 3],
        [],
        [0, 3, 4, 5],
    ]
    assert requests.hash_block_tokens == 512
    assert requests.after.tolist() == [-1] * 5
    assert requests.skipped_rows == 0


def test_mooncake_delay_follows_the_row_before_in_its_session(write) -> None:
    path = write(
        '{"timestamp": 1000, "input_length": 5, "output_length": 1, "session_id": "a"}\n'
        '{"timestamp": 2000, "input_length": 6, "output_length": 1, "session_id": "b"}\n'
        '{"delay": 500, "input_length": 7, "output_length": 1, "session_id": "a"}\n'
        '{"delay": 0, "input_length": 8, "output_length": 1, "session_id": "a"}\n'
        '{"delay": 250, "input_length": 9, "output_length": 1, "session_id": "b"}\n'
    )
    requests = read(MooncakeTrace(path=path))
    assert requests.after.tolist() == [-1, -1, 0, 2, 1]
    assert requests.think_s.tolist() == [0, 0, 0.5, 0, 0.25]
    np.testing.assert_array_equal(requests.arrival_s, [1, 2, math.nan, math.nan, math.nan])
    of_a = read(MooncakeTrace(path=path, window=WindowSpec(end_s=1.5)))
    assert of_a.prompt_tokens.tolist() == [5, 7, 8]  # a conversation goes with its first request
    assert of_a.after.tolist() == [-1, 0, 1]


def test_bailian(write) -> None:
    requests = read(BailianTrace(path=write(BAILIAN)))
    assert requests.arrival_s.tolist() == [0.0, 1.5, 4.25, 5.0, 8.0]
    assert requests.session_id.tolist() == [0, 1, 0, 2, 0]  # 14 <- 12 <- 10
    assert requests.prefix_ids(4).tolist() == [1, 2, 4, 7, 8]
    assert requests.hash_block_tokens == 16
    assert requests.output_tokens.tolist() == [20, 5, 7, 1, 2]


@pytest.mark.parametrize("style", ["plain", "bom", "crlf", "bom+crlf"])
def test_azure_2023(write, style: str) -> None:
    text = AZURE_2023.replace("\n", "\r\n") if "crlf" in style else AZURE_2023
    requests = read(AzureTrace(path=write("\ufeff" + text if "bom" in style else text)))
    expected = [0.0, 4.314579, 4.541877, 4.5418771, 60.0]
    np.testing.assert_allclose(requests.arrival_s, expected, rtol=0, atol=1e-12)
    assert requests.prompt_tokens.tolist() == [374, 396, 879, 91, 91]
    assert requests.output_tokens.tolist() == [44, 109, 55, 16, 16]
    assert requests.hash_block_tokens == 0


def test_azure_2024_has_zones(write) -> None:
    requests = read(AzureTrace(path=write(AZURE_2024)))
    expected = [0.0, 0.99007, 1.007405, 2.0, 2.1]
    np.testing.assert_allclose(requests.arrival_s, expected, rtol=0, atol=1e-12)
    assert requests.prompt_tokens.tolist() == [2162, 2399, 76, 2376, 7670]


def test_azure_multimodal_ignores_images(write) -> None:
    text = (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        "2024-10-15 12:00:00.000000+00:00,0,770,491\n"
        "2024-10-15 12:00:00.500000+00:00,1,949,126\n"
    )
    requests = read(AzureTrace(path=write(text)))
    assert requests.prompt_tokens.tolist() == [770, 949]
    assert requests.arrival_s.tolist() == [0, 0.5]


def test_burstgpt(write) -> None:
    requests = read(BurstGptTrace(path=write(BURSTGPT)))
    assert requests.arrival_s.tolist() == [5, 45, 118, 118, 185.5]
    assert requests.prompt_tokens.tolist() == [472, 1087, 417, 1360, 185]
    assert requests.output_tokens.tolist() == [18, 230, 276, 647, 215]
    assert requests.session_id.tolist() == [-1] * 5


def test_burstgpt_sessions(write) -> None:
    text = (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n"
        "5,x,1,ChatGPT,472,18,490,Conversation log\n"
        "6,,1,ChatGPT,472,18,490,API log\n"
        "7,y,1,ChatGPT,472,18,490,Conversation log\n"
        "8,x,1,ChatGPT,472,18,490,Conversation log\n"
    )
    requests = read(BurstGptTrace(path=write(text)))
    assert requests.session_id.tolist() == [0, -1, 1, 0]


def test_columns(write) -> None:
    text = "user,t_us,in,out,note\nu1,5000000,10,1,a\nu2,5500000,20.0,2,\nu1,7000000, 30 ,3,c\n"
    spec = ColumnsTrace(
        path=write(text),
        arrival="t_us",
        prompt_tokens="in",
        output_tokens="out",
        session="user",
        time_unit="us",
    )
    requests = read(spec)
    assert requests.arrival_s.tolist() == [0, 0.5, 2.0]  # trace time starts at the first row
    assert requests.prompt_tokens.tolist() == [10, 20, 30]
    assert requests.session_id.tolist() == [0, 1, 0]


def test_lengths_take_arrivals_from_a_process(write) -> None:
    text = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n" + "".join(
        f"{p},{d},{p + d},{p / d}\n"
        for p, d in [(74, 918), (290, 905), (1402, 711), (9, 1), (5, 5)]
    )
    spec = WorkloadSpec(
        trace=LengthsTrace(path=write(text)),
        arrivals=PoissonArrivals(rate_per_s=2.0),
        num_requests=4,
    )
    requests = build(spec, streams(3))
    assert requests.prompt_tokens.tolist() == [74, 290, 1402, 9]
    assert requests.output_tokens.tolist() == [918, 905, 711, 1]
    expected = PoissonArrivals(rate_per_s=2.0).sample(4, streams(3)("arrivals"))
    np.testing.assert_array_equal(requests.arrival_s, expected)


@pytest.mark.parametrize(("unit", "per_s"), [("ns", 1e9), ("us", 1e6), ("ms", 1e3), ("s", 1)])
def test_time_unit(write, unit: str, per_s: float) -> None:
    path = write('{"timestamp": 3000, "input_length": 9, "output_length": 1}\n')
    requests = read(MooncakeTrace(path=path, time_unit=unit))  # type: ignore[arg-type]
    assert requests.arrival_s.tolist() == [3000 / per_s]


def test_rate_scale_divides_times_and_nothing_else(write) -> None:
    path = write(MOONCAKE)
    once, twice = read(MooncakeTrace(path=path)), read(MooncakeTrace(path=path, rate_scale=2.0))
    np.testing.assert_array_equal(twice.arrival_s, once.arrival_s / 2)
    np.testing.assert_array_equal(twice.prompt_tokens, once.prompt_tokens)


def test_window_is_half_open_before_scaling_and_starts_at_zero(write) -> None:
    window = WindowSpec(start_s=3.0, end_s=9.0005)
    requests = read(MooncakeTrace(path=write(MOONCAKE), window=window, rate_scale=0.5))
    np.testing.assert_allclose(requests.arrival_s, [0, 0, 6.002])
    assert requests.prompt_tokens.tolist() == [512, 1024, 10]
    assert requests.prefix_ids(1).tolist() == [0, 3]
    assert requests.prefix_ids(2).tolist() == []


def test_window_without_requests_is_an_error(write) -> None:
    spec = MooncakeTrace(path=write(MOONCAKE), window=WindowSpec(start_s=100))
    with pytest.raises(ConfigError, match=r"holds none of 5 requests; allowed: .* 0 s to 9.0005 s"):
        read(spec)


def test_first_requests(write) -> None:
    requests = read(MooncakeTrace(path=write(MOONCAKE)), limit=2)
    assert requests.prompt_tokens.tolist() == [1100, 512]
    assert requests.hash_ids.tolist() == [0, 1, 2, 0]


def test_jitter_keeps_order_and_undoes_the_clock(write) -> None:
    rows = [
        f'{{"timestamp": {3000 * tick}, "input_length": {row + 1}, "output_length": 1}}'
        for tick in range(300)
        for row in range(10)
    ]
    path = write("\n".join(rows))
    recorded = read(MooncakeTrace(path=path))
    spread = read(MooncakeTrace(path=path, jitter_s=3.0))
    np.testing.assert_array_equal(spread.prompt_tokens, recorded.prompt_tokens)
    shift_s = spread.arrival_s - recorded.arrival_s
    assert shift_s.min() >= 0
    assert shift_s.max() < 3.0
    assert np.all(np.diff(spread.arrival_s) > 0)  # no batches any more
    standard_error_s = 3.0 / math.sqrt(12 * 3000)
    assert abs(shift_s.mean() - 1.5) < 4 * standard_error_s
    again = read(MooncakeTrace(path=path, jitter_s=3.0))
    np.testing.assert_array_equal(again.arrival_s, spread.arrival_s)
    assert not np.array_equal(
        read(MooncakeTrace(path=path, jitter_s=3.0), seed=1).arrival_s, spread.arrival_s
    )


@given(
    times=st.lists(st.integers(0, 50), min_size=1, max_size=30).map(sorted),
    jitter_s=st.floats(0, 20),
)
def test_jitter_wider_than_the_clock_still_keeps_order(tmp_path_factory, times, jitter_s) -> None:
    path = tmp_path_factory.mktemp("jitter") / "trace"
    path.write_text(
        "".join(f'{{"timestamp": {t}, "input_length": 1, "output_length": 1}}\n' for t in times)
    )
    spread = read(MooncakeTrace(path=str(path), time_unit="s", jitter_s=jitter_s)).arrival_s
    assert np.all(np.diff(spread) >= 0)
    assert np.all(spread >= times)
    assert np.all(spread <= np.array(times) + jitter_s)


def test_sort_is_stable(write) -> None:
    text = "t,p,o\n5,1,1\n3,2,1\n5,3,1\n3,4,1\n"
    spec = ColumnsTrace(
        path=write(text), arrival="t", prompt_tokens="p", output_tokens="o", sort=True
    )
    requests = read(spec)
    assert requests.prompt_tokens.tolist() == [2, 4, 1, 3]
