"""Named service-level objectives.

Source: MLPerf Inference rules and mlperf.conf, Server and Interactive scenarios: TTFT and TPOT that
99 % of the requests must meet.
"""

from collections.abc import Mapping
from typing import Final

SLO_PRESETS: Final[Mapping[str, Mapping[str, float]]] = {
    "mlperf/llama2-70b-server": {"ttft_s": 2.0, "tpot_s": 0.2},
    "mlperf/llama2-70b-interactive": {"ttft_s": 0.45, "tpot_s": 0.04},
    "mlperf/llama3.1-405b-server": {"ttft_s": 6.0, "tpot_s": 0.175},
    "mlperf/llama3.1-405b-interactive": {"ttft_s": 4.5, "tpot_s": 0.08},
    "mlperf/llama3.1-8b-server": {"ttft_s": 2.0, "tpot_s": 0.1},
    "mlperf/llama3.1-8b-interactive": {"ttft_s": 0.5, "tpot_s": 0.03},
    "mlperf/deepseek-r1-server": {"ttft_s": 2.0, "tpot_s": 0.08},
    "mlperf/deepseek-r1-interactive": {"ttft_s": 1.5, "tpot_s": 0.015},
    "mlperf/gpt-oss-120b-server": {"ttft_s": 3.0, "tpot_s": 0.08},
    "mlperf/gpt-oss-120b-interactive": {"ttft_s": 2.0, "tpot_s": 0.02},
    "mlperf/mixtral-8x7b-server": {"ttft_s": 2.0, "tpot_s": 0.2},
}
"""Preset name -> fields of `Slo`."""
