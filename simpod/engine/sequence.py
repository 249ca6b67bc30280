"""A request's progress through the engine. What it does not hold: how long its output will be."""

from collections.abc import Sequence as ReadOnly

NAN = float("nan")


class Sequence:
    """Mutable state of one request; the engine's own, policies see a `SequenceFacade`."""

    ttft_deadline_s = float("inf")
    resident_tokens = 0  # tokens with KV; while decoding, as of the join
    cached_tokens = 0
    emitted_tokens = 0
    own_blocks = 0  # KV blocks held alone; shared prefix units are in `units`
    units: ReadOnly[int] = ()
    join_clock = -1  # token clock of the group when it began to decode; -1: it does not
    offset = 0  # resident tokens - token clock, while decoding
    finish_step = -1
    first_decode_step = -1
    ledger = -1
    num_preemptions = 0
    prefill_target = -1
    decode_target = -1
    scheduled_s = NAN
    prefill_end_s = NAN
    barrier_wait_s = 0.0
    transfer_start_s = NAN
    transfer_end_s = NAN
    first_token_s = NAN

    def __init__(
        self,
        seq_id: int,
        arrival_s: float,
        prompt_tokens: int,
        session_id: int,
        prefix_hashes: ReadOnly[int],
    ) -> None:
        self.seq_id = seq_id
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.session_id = session_id
        self.prefix_hashes = prefix_hashes
        self.goal_tokens = prompt_tokens  # resident before the next token; grows by preemption


class SequenceFacade:
    """Read-only view of a sequence: `policies.SequenceView` and `policies.RouteRequest`."""

    __slots__ = ("_hit_tokens", "_seq")

    def __init__(self, seq: Sequence, hit_tokens: int = 0) -> None:
        self._seq = seq
        self._hit_tokens = hit_tokens

    @property
    def seq_id(self) -> int:
        """Identity within the run."""
        return self._seq.seq_id

    @property
    def arrival_s(self) -> float:
        """When the client sent it."""
        return self._seq.arrival_s

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return self._seq.prompt_tokens

    @property
    def session_id(self) -> int:
        """Conversation that it belongs to, or -1."""
        return self._seq.session_id

    @property
    def prefix_hashes(self) -> ReadOnly[int]:
        """Ids of the prompt's prefix blocks."""
        return self._seq.prefix_hashes

    @property
    def uncached_tokens(self) -> int:
        """Tokens to compute before the next output token."""
        return self._seq.goal_tokens - self._seq.resident_tokens - self._hit_tokens

    @property
    def is_running(self) -> bool:
        """Has KV blocks already."""
        return self._seq.own_blocks > 0 or bool(self._seq.units)

    @property
    def ttft_deadline_s(self) -> float:
        """Arrival plus the TTFT target."""
        return self._seq.ttft_deadline_s
