"""Small views, written by hand, for one policy at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from simpod.policies import ROLE_OF_KEY, BatchPlan, PolicyRef, resolve
from simpod.policies.fakes import FakeBatchView, FakeRouterView, FakeSequence

KEY_OF_ROLE = {role: key for key, role in ROLE_OF_KEY.items()}


def make(role: str, name: str, **params: Any) -> Any:
    return resolve(KEY_OF_ROLE[role], PolicyRef(name, params))()


def prompt(seq_id: int, uncached: int, **given: Any) -> FakeSequence:
    """A prompt; arrivals are in the order of ids."""
    columns: dict[str, Any] = {
        "arrival_s": float(seq_id),
        "prompt_tokens": uncached,
        "is_running": False,
        "ttft_deadline_s": float("inf"),
    }
    return FakeSequence(seq_id=seq_id, uncached_tokens=uncached, **(columns | given))


def decoding(seq_id: int, emitted: int, *, context: int = 32, **given: Any) -> FakeSequence:
    """A sequence that decodes, or is paused; blocks of 16 tokens."""
    columns: dict[str, Any] = {
        "prompt_tokens": context - emitted,
        "is_running": True,
        "emitted_tokens": emitted,
        "context_tokens": context,
        "held_blocks": -(-context // 16),
    }
    return prompt(seq_id, 0, **(columns | given))


def rank(*sequences: FakeSequence, **given: Any) -> FakeBatchView:
    """A rank with these prompts; `decodes` and `pauses` are others that it has."""
    decodes = given.get("decodes", ())
    columns: dict[str, Any] = {
        "now_s": 50.0,
        "max_step_tokens": given.pop("budget", 100),
        "num_decoding": given.pop("decoding", len(decodes)),
        "free_seq_slots": given.pop("slots", 8),
        "free_blocks": given.pop("blocks", 1000),
    }
    return FakeBatchView(sequences=sequences, **(columns | given))


def pool(
    *,
    waiting: Sequence[int] = (),
    running: Sequence[int] = (),
    queued: Sequence[int] = (),
    kv: Sequence[int] = (),
    slots: int = 64,
    **given: Any,
) -> FakeRouterView:
    num = max(map(len, (waiting, running, queued, kv)))
    columns = [
        np.array(column if len(column) else [0] * num, dtype=np.int64)
        for column in (waiting, running, queued, kv)
    ]
    return FakeRouterView(
        now_s=given.pop("now_s", 0.0),
        num_targets=num,
        waiting_seqs=columns[0],
        running_seqs=columns[1],
        queued_tokens=columns[2],
        kv_tokens=columns[3],
        max_num_seqs=slots,
        **given,
    )


def request(*hashes: int, tokens: int = 10, **given: Any) -> FakeSequence:
    """A request as a router sees it."""
    columns: dict[str, Any] = {"arrival_s": 0.0, "prefix_hashes": hashes}
    return prompt(0, tokens, **(columns | given))


def chunks_of(plan: BatchPlan) -> list[tuple[int, int]]:
    """Chunks in their order."""
    return list(plan.prefill_chunks.items())
