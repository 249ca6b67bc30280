"""A request's progress through the engine. What it does not hold: how long its output will be."""

from collections.abc import Sequence as ReadOnly
from dataclasses import dataclass

NAN = float("nan")


@dataclass(slots=True, eq=False)
class Sequence:
    """Mutable state of one request; the engine's own, policies see a `SequenceFacade`."""

    seq_id: int
    arrival_s: float
    prompt_tokens: int
    session_id: int
    prefix_hashes: ReadOnly[int]
    goal_tokens: int  # resident before the next token: the prompt; grows by preemption
    ttft_deadline_s: float = float("inf")
    resident_tokens: int = 0  # tokens with KV; while decoding, as of the join
    cached_tokens: int = 0
    dram_tokens: int = 0  # of the cached ones, read from the shared memory
    ssd_tokens: int = 0
    cache_read_s: float = 0.0
    emitted_tokens: int = 0
    own_blocks: int = 0  # KV blocks held alone; shared prefix units are in `units`
    units: ReadOnly[int] = ()
    join_clock: int = -1  # token clock of the group when it began to decode; -1: it does not
    offset: int = 0  # resident tokens - token clock, while decoding
    finish_step: int = -1
    first_decode_step: int = -1
    ledger: int = -1
    num_preemptions: int = 0
    prefill_target: int = -1
    decode_target: int = -1
    scheduled_s: float = NAN
    prefill_end_s: float = NAN
    barrier_wait_s: float = 0.0
    transfer_start_s: float = NAN
    transfer_end_s: float = NAN
    first_token_s: float = NAN
    tenant: int = 0
    priority: int = 0
    predicted_tokens: float = NAN
    max_tokens: int = 0  # that the client allows; 0: it says nothing
    ignores_eos: bool = False
    queued_s: float = NAN  # when it was last preempted; NaN: not yet
