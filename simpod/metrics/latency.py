"""Latencies of each request, [n] columns in seconds, NaN where the run did not come to it."""

import numpy as np
from numpy.typing import NDArray

from simpod.records.columns import FINISHED, Floats, Ints, RequestRecords

Bools = NDArray[np.bool_]


def ttft_s(requests: RequestRecords) -> Floats:
    """Time to first token: first token ready - arrival."""
    return requests.first_token_s - requests.arrival_s


def e2e_s(requests: RequestRecords) -> Floats:
    """End to end: finish - arrival."""
    return requests.finish_s - requests.arrival_s


def produced_tokens(requests: RequestRecords) -> Ints:
    """Output tokens of a finished request: one if no group decoded it (a prefill pool alone)."""
    decoded = requests.ledger >= 0
    return np.where(decoded, requests.output_tokens, np.minimum(requests.output_tokens, 1))


def tpot_s(requests: RequestRecords) -> Floats:
    """Time per output token: (finish - first token) / (tokens - 1); 0 for one token.

    Only requests with more than one token belong in percentiles (`has_tpot`), as in vLLM.
    """
    gaps = np.maximum(produced_tokens(requests) - 1, 1)
    return (requests.finish_s - requests.first_token_s) / gaps


def has_tpot(requests: RequestRecords) -> Bools:
    """Finished requests of more than one token."""
    several: Bools = (requests.status == FINISHED) & (produced_tokens(requests) > 1)
    return several
