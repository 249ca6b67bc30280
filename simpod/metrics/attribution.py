"""Where the time to first token went, request by request."""

import numpy as np

from simpod.records.columns import Floats, RequestRecords

TTFT_PARTS = (
    "router",
    "queue",
    "cache_read",
    "prefill",
    "barrier",
    "back_pressure",
    "transfer",
    "first_decode",
    "frontend",
)
"""Parts of a TTFT in the order of time; they add up to it (`barrier` lies within the prefill)."""


def ttft_parts_s(requests: RequestRecords) -> dict[str, Floats]:
    """How long each of `TTFT_PARTS` took in each request's TTFT, [n]; NaN without first token.

    router: deciding where to send it; no time passes there yet. queue: arrival to the first step
    that worked for it, without cache_read: reading its prefix from the shared memory. prefill:
    from that step until its prompt is computed, without barrier: the time in which its rank waited
    for slower ranks. back_pressure: until the decode pool pulls the KV. transfer: the pull.
    first_decode: until the first token. These three count only where the decode pool gives the
    first token; otherwise they delay the second one. frontend: until a central frontend has sent it
    on; 0 without one.
    """
    first = requests.engine_first_token_s
    scheduled = requests.scheduled_s
    # prompts that arrive with their KV have no prefill
    prefill_end = np.where(np.isnan(requests.prefill_end_s), scheduled, requests.prefill_end_s)
    is_pulled_first = first >= requests.transfer_end_s  # False where there was no transfer
    pull_start = np.where(is_pulled_first, requests.transfer_start_s, prefill_end)
    pull_end = np.where(is_pulled_first, requests.transfer_end_s, prefill_end)
    barrier = np.nan_to_num(requests.barrier_wait_s)
    parts = (
        np.zeros(len(first)),
        scheduled - requests.arrival_s - requests.cache_read_s,
        requests.cache_read_s,
        prefill_end - scheduled - barrier,
        barrier,
        pull_start - prefill_end,
        pull_end - pull_start,
        first - pull_end,
        requests.first_token_s - first,
    )
    has_token = ~np.isnan(requests.first_token_s)
    return {
        name: np.where(has_token, part, np.nan)
        for name, part in zip(TTFT_PARTS, parts, strict=True)
    }
