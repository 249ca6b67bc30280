"""Files and rows that cannot be read: a message with file, line, value and what is allowed."""

from pathlib import Path

import pytest

from simpod.errors import ConfigError
from simpod.workload import (
    AzureTrace,
    BailianTrace,
    BurstGptTrace,
    ColumnsTrace,
    EmpiricalLengths,
    LengthsTrace,
    MooncakeTrace,
    Requests,
    read_trace,
    streams,
)
from simpod.workload.traces.lengths import read as read_lengths
from simpod.workload.traces.spec import TimedTrace

GOOD = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}'
GOOD_CHAT = (
    '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0, "input_length": 9, "output_length": 1}'
)
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
GOOD_AZURE = "2024-05-10 00:00:00.009930+00:00,2162,5"


def read(spec: TimedTrace) -> Requests:
    return read_trace(spec, streams(0)("jitter"))


def trace_of(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "t"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def row(**changes: str) -> str:
    fields = {"timestamp": "1", "input_length": "600", "output_length": "5"} | changes
    return "{" + ", ".join(f'"{key}": {value}' for key, value in fields.items()) + "}"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(timestamp='"soon"'), 'timestamp is "soon"; allowed: a finite number'),
        (row(timestamp="NaN"), "timestamp is NaN; allowed: a finite number"),
        (row(timestamp="true"), "timestamp is true; allowed: a finite number"),
        (row(timestamp="-1"), "timestamp is -1; allowed: a number >= 0"),
        (row(input_length="0"), "input_length is 0 .*allowed: a whole number >= 1"),
        (row(input_length="-5"), "input_length is -5; allowed: a whole number >= 1"),
        (row(input_length="2.5"), "input_length is 2.5; allowed: a whole number >= 1"),
        (row(input_length="1e12"), "input_length is 1000000000000; allowed: .* <= 1e9"),
        (row(input_length="9" * 30), "input_length is 1e\\+30; allowed: .* <= 1e9"),
        (row(input_length="9" * 5000), "not JSON .*digits"),
        (row(output_length="0"), r"output_length is 0 \(a failed request\?\); allowed"),
        (row(output_length="null"), "output_length is null; allowed: a finite number"),
        (row(output_length="Infinity"), "output_length is Infinity; allowed: a finite number"),
        (
            '{"timestamp": 1, "input_lenght": 3, "output_length": 5}',
            "missing key 'input_length'; the row has timestamp, input_lenght, output_length; "
            "did you mean 'input_length' by 'input_lenght'?",
        ),
        (
            '{"timestamp": 1, "input_length": 3}',
            "missing key 'output_length'; the row has timestamp, input_length$",
        ),
        ("{}", "missing key 'timestamp'; the row has none"),
        ("[1, 2]", r"'\[1, 2\]'; allowed: a JSON object"),
        ('{"timestamp": 1', "not JSON .*allowed: one JSON object a line"),
        (row(hash_ids='["a"]'), r'hash_ids is \["a"\]; allowed: a list of whole numbers'),
        (row(hash_ids="[-1]"), r"hash_ids is \[-1\]; allowed: a list of whole numbers"),
        (row(hash_ids="3"), "hash_ids is 3; allowed: a list of whole numbers"),
        (row(hash_ids="[1.0]"), r"hash_ids is \[1.0\]; allowed: a list of whole numbers"),
        (row(hash_ids="[1, 2, 3]"), "3 hash_ids of 512 tokens for 605 tokens .*allowed: <= 2"),
        (row(session_id="[]"), r"session_id is \[\]; allowed: a string or whole number"),
    ],
)
def test_mooncake_bad_row_is_refused_or_skipped(tmp_path: Path, bad: str, message: str) -> None:
    path = trace_of(tmp_path, GOOD, "", bad, GOOD.replace("0", "3", 1))
    with pytest.raises(ConfigError, match=f"(?m){path}:3: {message}") as error:
        read(MooncakeTrace(path=path))
    assert "`bad_rows: skip`" in str(error.value)
    requests = read(MooncakeTrace(path=path, bad_rows="skip"))
    assert requests.skipped_rows == 1
    assert requests.arrival_s.tolist() == [0, 0.003]
    assert requests.hash_ids.tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("2024-05-10 00:00:01,12", "2 fields; allowed: 3 as the header"),
        ("2024-05-10 00:00:01,12,3,4", "4 fields; allowed: 3 as the header"),
        ("yesterday,12,3", "TIMESTAMP is 'yesterday'; allowed: a date and time such as"),
        ("2024-02-31 00:00:01,12,3", "TIMESTAMP is '2024-02-31 00:00:01'; allowed: a date"),
        (",12,3", "TIMESTAMP is ''; allowed: a date and time"),
        ("2024-05-10 00:00:01,nan,3", "ContextTokens is 'nan'; allowed: a finite number"),
        ("2024-05-10 00:00:01,,3", "ContextTokens is ''; allowed: a finite number"),
        ("2024-05-10 00:00:01,0x10,3", "ContextTokens is '0x10'; allowed: a finite number"),
        ("2024-05-10 00:00:01,1e999,3", "ContextTokens is '1e999'; allowed: a finite number"),
        ("2024-05-10 00:00:01,12,-3", "GeneratedTokens is -3; allowed: a whole number >= 1"),
        ("2024-05-10 00:00:01,12,0", r"GeneratedTokens is 0 \(a failed request\?\); allowed"),
        (",,", "TIMESTAMP is ''; allowed"),
    ],
)
def test_azure_bad_row_is_refused_or_skipped(tmp_path: Path, bad: str, message: str) -> None:
    path = trace_of(tmp_path, AZURE, GOOD_AZURE, "", bad, GOOD_AZURE.replace("00.", "07."))
    with pytest.raises(ConfigError, match=f"{path}:4: {message}"):
        read(AzureTrace(path=path))
    requests = read(AzureTrace(path=path, bad_rows="skip"))
    assert requests.skipped_rows == 1
    assert requests.arrival_s.tolist() == [0, 7]


def test_burstgpt_failed_request_is_a_bad_row(tmp_path: Path) -> None:
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    path = trace_of(tmp_path, header, "5,ChatGPT,9,0,9,API log", "6,ChatGPT,9,1,10,API log")
    with pytest.raises(ConfigError, match=r":2: Response tokens is 0 \(a failed request\?\)"):
        read(BurstGptTrace(path=path))
    assert read(BurstGptTrace(path=path, bad_rows="skip")).arrival_s.tolist() == [6]


@pytest.mark.parametrize("key", ["chat_id", "parent_chat_id"])
def test_bailian_needs_chat_ids(tmp_path: Path, key: str) -> None:
    path = trace_of(tmp_path, GOOD_CHAT, GOOD_CHAT.replace(f'"{key}"', '"other"'))
    with pytest.raises(ConfigError, match=f"{path}:2: {key} is missing; allowed: a whole number"):
        read(BailianTrace(path=path))


def test_bailian_has_no_delay(tmp_path: Path) -> None:
    path = trace_of(tmp_path, GOOD_CHAT, GOOD_CHAT.replace('"timestamp"', '"delay"'))
    with pytest.raises(ConfigError, match=":2: missing key 'timestamp'"):
        read(BailianTrace(path=path))


def test_every_bad_row_is_counted_and_ten_are_listed(tmp_path: Path) -> None:
    path = trace_of(tmp_path, *([row(input_length="0", output_length='"x"')] * 25))
    with pytest.raises(ConfigError) as error:
        read(MooncakeTrace(path=path))
    problems = error.value.problems
    assert len(problems) == 2 * 10 + 1  # both mistakes of each listed row
    assert problems[0].startswith(f"{path}:1: input_length is 0")
    assert problems[1].startswith(f'{path}:1: output_length is "x"')
    assert problems[19].startswith(f"{path}:10: ")
    assert "25 bad rows (15 more, see above)" in problems[-1]
    with pytest.raises(ConfigError, match=r"no usable row \(25 bad ones skipped\)"):
        read(MooncakeTrace(path=path, bad_rows="skip"))


def test_bad_row_far_into_a_big_file_has_its_line(tmp_path: Path) -> None:
    lines = [AZURE, *([GOOD_AZURE] * 60_000), "short,1", "x,1,1", GOOD_AZURE]
    path = trace_of(tmp_path, *lines)
    with pytest.raises(ConfigError) as error:
        read(AzureTrace(path=path))
    assert error.value.problems[0].startswith(f"{path}:60002: 2 fields")
    assert error.value.problems[1].startswith(f"{path}:60003: TIMESTAMP is 'x'")


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_out_of_order_names_both_lines_and_offers_sort(tmp_path: Path, policy) -> None:
    path = trace_of(tmp_path, row(timestamp="2000"), row(timestamp="3000"), row(timestamp="2500"))
    with pytest.raises(ConfigError) as error:
        read(MooncakeTrace(path=path, bad_rows=policy))
    first, last = error.value.problems
    assert first == f"{path}:3: trace time 2.5 s is before 3 s of line 2; allowed: ascending times"
    assert last == f"{path}: 1 row out of order; `sort: true` sorts the trace by time"
    assert read(MooncakeTrace(path=path, sort=True)).arrival_s.tolist() == [2, 2.5, 3]


def test_delay_needs_a_row_before_it_in_its_session(tmp_path: Path) -> None:
    orphan = '{"delay": 5, "input_length": 1, "output_length": 1, "session_id": "z"}'
    path = trace_of(tmp_path, GOOD, orphan)
    with pytest.raises(ConfigError, match=f"{path}:2: no timestamp, and no usable row of its"):
        read(MooncakeTrace(path=path))


ALL = [
    MooncakeTrace,
    BailianTrace,
    AzureTrace,
    BurstGptTrace,
    lambda path: ColumnsTrace(path=path, arrival="t", prompt_tokens="p", output_tokens="o"),
]


@pytest.mark.parametrize("make", ALL)
def test_missing_file(tmp_path: Path, make) -> None:
    path = str(tmp_path / "none")
    with pytest.raises(ConfigError, match=f"{path}: cannot be read: No such file or directory"):
        read(make(path=path))


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_empty_file(tmp_path: Path, make, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ConfigError, match=r"the file is empty|no column"):
        read(make(path=str(tmp_path / "t")))


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_header_alone(tmp_path: Path, ending: str) -> None:
    (tmp_path / "t").write_bytes((AZURE + ending).encode())
    with pytest.raises(ConfigError, match="no row after the header"):
        read(AzureTrace(path=str(tmp_path / "t")))


@pytest.mark.parametrize("make", ALL)
def test_not_text(tmp_path: Path, make) -> None:
    (tmp_path / "t").write_bytes(b"\xff\xfe\x00\x01\n")
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        read(make(path=str(tmp_path / "t")))


def test_wrong_header_offers_the_close_name(tmp_path: Path) -> None:
    path = trace_of(tmp_path, "timestamp,ContextTokens,OutTokens", GOOD_AZURE)
    with pytest.raises(ConfigError) as error:
        read(AzureTrace(path=path))
    assert error.value.problems == (
        f"{path}:1: no column 'TIMESTAMP'; the header has timestamp, ContextTokens, OutTokens; "
        "did you mean 'timestamp'?",
        f"{path}:1: no column 'GeneratedTokens'; the header has timestamp, ContextTokens, "
        "OutTokens",
    )


def test_ambiguous_header(tmp_path: Path) -> None:
    path = trace_of(tmp_path, "p,o,p", "1,2,3")
    with pytest.raises(ConfigError, match=":1: column 'p' appears 2 times"):
        read(ColumnsTrace(path=path, prompt_tokens="p", output_tokens="o"))


def test_lengths_count_what_they_skip(tmp_path: Path) -> None:
    path = trace_of(tmp_path, "num_prefill_tokens,num_decode_tokens", "5,0", "6,2")
    with pytest.raises(ConfigError, match=":2: num_decode_tokens is 0"):
        read_lengths(LengthsTrace(path=path))
    rows = read_lengths(LengthsTrace(path=path, bad_rows="skip"))
    assert rows.prompt_tokens.tolist() == [6]
    assert rows.skipped_rows == 1


def test_empirical_file_is_checked(tmp_path: Path) -> None:
    path = trace_of(tmp_path, "len", "5", "x")
    with pytest.raises(ConfigError, match=f"{path}:3: len is 'x'; allowed: a finite number"):
        EmpiricalLengths(path=path, column="len").sample(3, streams(0)("a"))
