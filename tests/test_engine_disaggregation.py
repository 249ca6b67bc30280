"""Prefill and decode pools by hand: hand-over, transfer, back-pressure; a step takes 1 s."""

from typing import Any

import numpy as np
import pytest
from engine_cases import (
    LinearPricer,
    at,
    chained,
    in_two_stages,
    pool_inputs,
    pool_spec,
    simulate,
)

from simpod.records.columns import FINISHED, REFUSED, RunRecords
from simpod.workload import Requests


@pytest.fixture(params=[True, False], ids=["skip_ahead", "every_step"])
def skip_ahead(request):
    return request.param


def split(requests: Requests, skip_ahead: bool, **limits: Any) -> RunRecords:
    """Prefill with one prompt at a time, decode with `slots`; a transfer of half a second."""
    run = {"skip_ahead": skip_ahead} | limits.pop("run", {})
    prefill = {"role": "prefill", "name": "prefill", "max_num_seqs": 1} | limits.pop("prefill", {})
    decode = {"role": "decode", "name": "decode"} | limits.pop("decode", {})
    return in_two_stages(
        requests,
        prefill=pool_inputs(pool_spec(**prefill)),
        decode=pool_inputs(pool_spec(**decode), limits.pop("pricer", LinearPricer())),
        transfer_s=0.5,
        **run,
    )


def test_one_request_through_both_stages(skip_ahead) -> None:
    """Prompt 0-1, transfer 1-1.5, and the second to fourth token at 2.5, 3.5, 4.5."""
    records = split(at([0.0], 7, 4), skip_ahead)
    requests = records.requests
    assert (requests.prefill_end_s[0], requests.first_token_s[0]) == (1.0, 1.0)
    assert (requests.transfer_start_s[0], requests.transfer_end_s[0]) == (1.0, 1.5)
    assert requests.finish_s[0] == 4.5
    assert (requests.prefill_target[0], requests.decode_target[0]) == (0, 0)
    assert records.groups[1].decode_end_s.tolist() == [2.5, 3.5, 4.5]
    assert requests.ledger[0] == 1
    assert records.transfers.size_bytes.tolist() == [14.0]
    assert records.transfers.end_s.tolist() == [1.5]


def test_the_first_token_may_come_from_the_decode_stage(skip_ahead) -> None:
    """All four tokens come from decode steps; the first one ends at 2.5."""
    records = split(at([0.0], 7, 4), skip_ahead, run={"first_token_from_decode": True})
    assert records.requests.prefill_end_s[0] == 1.0
    assert records.requests.first_token_s[0] == 2.5
    assert records.requests.finish_s[0] == 5.5


def test_a_single_token_needs_no_second_stage(skip_ahead) -> None:
    records = split(at([0.0], 7, 1), skip_ahead)
    assert records.requests.finish_s.tolist() == [1.0]
    assert np.isnan(records.requests.transfer_start_s[0])
    assert len(records.transfers.start_s) == 0
    late = split(at([0.0], 7, 1), skip_ahead, run={"first_token_from_decode": True})
    assert late.requests.finish_s.tolist() == [2.5]


def test_a_full_decode_stage_holds_back_the_prefill_stage(skip_ahead) -> None:
    """Prefill has 4 blocks, a prompt takes 2 until it is pulled; decode serves one at a time.

    Two prompts can be done ahead. The fourth finds blocks only when the second is pulled at 6 s.
    """
    records = split(
        at([0.0] * 4, 8, 5),
        skip_ahead,
        prefill={"block_tokens": 4, "kv_blocks": 4},
        decode={"max_num_seqs": 1},
    )
    requests = records.requests
    assert requests.scheduled_s.tolist() == [0.0, 1.0, 2.0, 6.0]
    assert requests.transfer_start_s.tolist() == [1.0, 5.5, 10.0, 14.5]
    assert requests.finish_s.tolist() == [5.5, 10.0, 14.5, 19.0]


def test_a_full_decode_rank_is_not_chosen_and_if_all_are_a_request_waits_in_front(
    skip_ahead,
) -> None:
    """Two decode ranks of two slots under least_kv; prompts are computed at 1, 2, ... 5 s.

    The first rank gets the long prompt, the other two short ones: then it is full, and the fourth
    goes to the long one. The fifth finds all full and waits, its KV on the prefill side, until the
    second request ends.
    """
    records = in_two_stages(
        at([0.0] * 5, [50, 2, 2, 2, 2], [20, 8, 20, 20, 2]),
        prefill=pool_inputs(pool_spec(role="prefill", name="prefill", max_num_seqs=1)),
        decode=pool_inputs(
            pool_spec(role="decode", name="decode", dp=2, max_num_seqs=2), router="least_kv"
        ),
        transfer_s=0.5,
        skip_ahead=skip_ahead,
    )
    requests = records.requests
    assert requests.decode_target.tolist() == [0, 1, 1, 0, 1]
    assert requests.prefill_end_s.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert requests.transfer_start_s[4] == requests.finish_s[1] > 5.0


def test_decode_admits_by_blocks_too(skip_ahead) -> None:
    """Decode has 5 blocks of 4 and slots for all: a prompt of 8 needs 2 and one more to go on."""
    records = split(
        at([0.0, 0.0], 8, 4), skip_ahead, decode={"block_tokens": 4, "kv_blocks": 5, "dp": 1}
    )
    # the first decodes 1.5 - 4.5 with 3 blocks; the second is pulled at the first boundary after 2
    assert records.requests.transfer_start_s.tolist() == [1.0, 2.5]
    assert records.requests.num_preemptions.tolist() == [0, 1]  # 3 + 3 blocks do not fit at 3.5
    # 4.5 - 5.5 recomputes the prompt and gives the second token, two decode steps the others
    assert records.requests.finish_s.tolist() == [4.5, 7.5]
    assert records.requests.status.tolist() == [FINISHED, FINISHED]
    tight = split(at([0.0, 0.0], 8, 4), skip_ahead, decode={"block_tokens": 4, "kv_blocks": 4})
    assert tight.requests.transfer_start_s.tolist() == [1.0, 4.5]
    assert tight.requests.num_preemptions.tolist() == [0, 0]


def test_both_pools_set_the_longest_request(skip_ahead) -> None:
    records = split(
        at([0.0, 0.0], [14, 15], 2), skip_ahead, decode={"block_tokens": 4, "kv_blocks": 4}
    )
    assert records.requests.status.tolist() == [FINISHED, REFUSED]


def test_decode_alone_starts_with_the_prompt_resident(skip_ahead) -> None:
    records = simulate(at([0.0, 0.25], 100, [3, 2]), role="decode", run={"skip_ahead": skip_ahead})
    requests = records.requests
    assert requests.finish_s.tolist() == [3.0, 3.0]
    assert requests.first_token_s.tolist() == [1.0, 2.0]
    assert requests.scheduled_s.tolist() == [0.0, 1.0]
    assert requests.prefill_target.tolist() == [-1, -1]
    assert records.steps.context_tokens.tolist() == [100, 101 + 100]  # as each run starts
    assert records.steps.num_steps.tolist() == [1, 2]
    assert records.steps.prefill_tokens.sum() == 0


def test_prefill_alone_ends_with_the_prompt(skip_ahead) -> None:
    records = simulate(at([0.0, 0.0], 5, 9), role="prefill", run={"skip_ahead": skip_ahead})
    assert records.requests.finish_s.tolist() == [1.0, 1.0]
    assert records.requests.decode_target.tolist() == [-1, -1]


def test_prefixes_are_shared_on_the_prefill_side(skip_ahead) -> None:
    requests = at([0.0, 5.0], 12, 3, **chained([1, 2, 3], [1, 2, 9], block_tokens=4))
    records = split(
        requests,
        skip_ahead,
        prefill={"block_tokens": 4, "kv_blocks": 50, "prefix_caching": True},
        decode={"block_tokens": 4, "kv_blocks": 50},
    )
    assert records.requests.cached_tokens.tolist() == [0, 8]
    assert records.steps.prefill_tokens.sum() == 12 + 4
    assert records.transfers.size_bytes.tolist() == [24.0, 24.0]  # all of it moves all the same


def test_tandem_of_two_servers() -> None:
    """Random arrivals through one prefill slot and one decode slot against the recursion.

    p_i = max(a_i, p_(i-1)) + 1; the pull starts at max(p_i, f_(i-1)); f_i = pull + 0.5 + (n_i - 1).
    """
    rng = np.random.default_rng(2)
    arrival_s = np.sort(rng.uniform(0.0, 900.0, 200))
    outputs = rng.integers(2, 9, 200)
    records = split(at(arrival_s, 1, outputs), True, decode={"max_num_seqs": 1})
    prompt_s = finish_s = -np.inf
    expected = []
    for came_s, tokens in zip(arrival_s, outputs, strict=True):
        prompt_s = max(came_s, prompt_s) + 1.0
        pull_s = max(prompt_s, finish_s)
        finish_s = pull_s + 0.5 + (tokens - 1)
        expected.append((prompt_s, pull_s, finish_s))
    requests = records.requests
    measured = np.array([requests.prefill_end_s, requests.transfer_start_s, requests.finish_s]).T
    np.testing.assert_allclose(measured, expected, rtol=1e-12)


def test_a_finish_comes_before_a_hand_over_of_the_same_instant(skip_ahead) -> None:
    """At 5.5 s the second prompt is done and the first request leaves decode rank 0, now free."""
    records = in_two_stages(
        at([0.0, 4.5], 1, 5),
        prefill=pool_inputs(pool_spec(role="prefill", name="prefill")),
        decode=pool_inputs(
            pool_spec(role="decode", name="decode", instances=2), router="least_requests"
        ),
        transfer_s=0.5,
        skip_ahead=skip_ahead,
    )
    assert records.requests.finish_s[0] == records.requests.prefill_end_s[1] == 5.5
    assert records.requests.decode_target.tolist() == [0, 0]
