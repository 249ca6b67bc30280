"""The summary on a terminal: figures in human units, 80 columns, no colour codes in a pipe."""

import io
from typing import Any

import numpy as np
import pytest
from records_builder import NAN, group, pool, requests, run, steps
from rich.console import Console

from simpod.cli.render import count, duration, notes, percent, summary_table
from simpod.metrics import summary
from simpod.records.columns import FINISHED, LIVE, REFUSED, STEP_PARTS
from simpod.records.measure import Measure
from simpod.records.slo import Slo


def backlogged() -> dict[str, Any]:
    """Two requests a second for one that is served; names as long as they get."""
    number = 1000
    arrivals = np.arange(number) / 2.0
    start = np.arange(number, dtype=float)
    status = np.full(number, FINISHED)
    status[-2:] = REFUSED, LIVE
    ends = np.where(status == FINISHED, start + 1, NAN)
    records = run(
        requests(
            arrivals,
            scheduled_s=np.where(status == REFUSED, NAN, start),
            prefill_end_s=np.where(status == REFUSED, NAN, start + 0.5),
            barrier_wait_s=0.1,
            first_token_s=ends,
            finish_s=ends,
            status=status,
        ),
        groups=(group(pool="prefill", busy_s=999.0, num_preemptions=3, peak_kv_frac=1.0),),
        pools=(pool("prefill", instances=16, num_npus=256.0, mean_waiting_seqs=251.3),),
        steps=steps(
            [{"start_s": 0.0, "end_s": 171.0, "num_steps": 10, "prefill_tokens": 9, "parts": PARTS}]
        ),
    )
    metadata = {"label": "cloudmatrix384-deepseek-r1-production", "model_id": "deepseek-r1"}
    return summary(
        records,
        slo=Slo(ttft_s=2.0, tpot_s=0.05, e2e_s=60.0),
        window_rule=Measure(warmup_frac=0.1, drain_frac=0.1),
        metadata=metadata,
    )


PARTS = {name: float(seconds) for seconds, name in enumerate(STEP_PARTS, start=1)}


def shown(value: dict[str, Any], **options: Any) -> str:
    """What a pipe or a terminal gets."""
    console = Console(file=io.StringIO(), width=80, **options)
    console.print(summary_table(value))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_fits_80_columns_and_a_pipe_gets_plain_text() -> None:
    text = shown(backlogged())
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "…" not in text  # nothing was cut
    assert "\x1b" in shown(backlogged(), force_terminal=True, color_system="truecolor")


def test_says_what_matters() -> None:
    text = " ".join(shown(backlogged()).split())
    for part in (
        "cloudmatrix384-deepseek-r1-production",
        "998 requests",
        "800 of 1,000 requests",
        "1 requests/s",
        "TTFT",
        "NOT STATIONARY: the queue grows",
        "200.3 % of the nearest limit",
        "TTFT 0.0 %, TPOT 100.0 %",
        "1 refused",
        "1 unfinished",
        "3 preemptions",
        "prefill x16",
        "host gap 1.8 s 10.5 %",  # 18 of 171 s, in 10 steps
        "13 others",
    ):
        assert part in text, part


def test_largest_parts_come_first_and_nothing_is_lost() -> None:
    lines = shown(backlogged()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Step of prefill"))
    shares = [float(line.split("%")[0].split()[-1]) for line in lines[start:] if "%" in line[:45]]
    assert shares[:5] == sorted(shares[:5], reverse=True)
    assert sum(shares[:6]) == pytest.approx(100, abs=0.3)


def test_an_empty_and_an_unfinished_run_can_be_shown() -> None:
    empty = summary(run(requests([]), groups=(), pools=()), slo=Slo())
    assert "0 requests" in shown(empty)
    live = run(requests([0.0], status=[LIVE], first_token_s=[NAN]), end_s=3.0)
    assert "1 unfinished" in shown(summary(live, slo=Slo(ttft_s=1.0)))


def test_a_burst_is_no_alarm() -> None:
    said = list(notes(summary(run(requests([0.0, 0.0])), slo=Slo())))
    assert any("whole run" in note for note in said)
    assert not any("NOT STATIONARY" in note for note in said)


@pytest.mark.parametrize(
    ("kind", "load", "said"),
    [
        (
            "measured",
            2.0,
            "Load: 200.0 % of the nearest limit, kv of pool d, which saturates at 5 "
            "requests/s (measured)",
        ),
        (
            "estimate",
            0.5,
            "Load: about 50.0 % of the nearest limit, kv of pool d, which saturates at "
            "about 5 requests/s (estimate)",
        ),
        (
            "lower_bound",
            0.5,
            "Load: at most 50.0 % of the nearest limit, kv of pool d, which "
            "saturates at 5 requests/s or more",
        ),
        (
            None,
            None,
            "No rate was offered: 0.5 requests/s with 90.0 % of kv of pool d in use, whole run",
        ),
    ],
)
def test_says_how_well_the_capacity_is_known(
    kind: str | None, load: float | None, said: str
) -> None:
    value = summary(run(requests([0.0, 1.0], finish_s=[2.0, 4.0])), slo=Slo())
    value["saturation"] = {
        "pool": "d",
        "resource": "kv",
        "used_frac": 0.9,
        "load_frac": load,
        "capacity_rate_per_s": kind and 5.0,
        "capacity_kind": kind,
    }
    assert said in " ".join(shown(value).split())


def test_names_are_no_markup() -> None:
    odd = summary(
        run(requests([0.0, 1.0]), pools=(pool("[red]x"),), groups=(group(pool="[red]x"),)),
        slo=Slo(),
        metadata={"label": "[bold]odd"},
    )
    assert "[red]x" in shown(odd)
    assert "[bold]odd" in shown(odd)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (0.0000123, "12.3 us"),
        (0.0012345, "1.23 ms"),
        (0.9999, "1 s"),
        (0.99949, "999 ms"),
        (12.345, "12.3 s"),
        (-0.5, "-500 ms"),
        (12345.6, "12,346 s"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.12345, "0.123"),
        (1234.5, "1,234"),
        (9999, "9,999"),
        (12345, "12.35k"),
        (999_999, "1000k"),
        (12_345_678, "12.35M"),
        (5.5e9, "5.5G"),
    ],
)
def test_count(value: float | None, text: str) -> None:
    assert count(value) == text


def test_percent() -> None:
    assert (percent(None), percent(0.5), percent(1e300)) == ("-", "50.0 %", "1e+302 %")


def test_without_decoding_tokens_are_those_of_prompts() -> None:
    """Four prompts of 100 tokens, one a second, on 2 NPUs; with a pool that decodes, answers."""
    rows = requests(np.arange(4.0), finish_s=np.arange(4.0) + 1, prompt_tokens=100)
    for role, figures in (
        ("prefill", "Prompts 100 tokens/s, 50 tokens/s per NPU"),
        ("decode", "Output 1 tokens/s, 0.5 tokens/s per NPU"),
    ):
        records = run(rows, pools=(pool(role, role=role, num_npus=2.0),))
        text = " ".join(shown(summary(records, slo=Slo())).split())
        assert figures in text
