"""Memory that exchanges pin: it is not there for the KV cache."""

from dataclasses import dataclass

XCCL_METADATA_BYTES = 4 * 2**20
"""xDeepServe 3.1: one 32-byte field a pair of vector cores, of each die."""

FIELD_BYTES = 32.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedBuffers:
    """Bytes of one die."""

    dispatch_bytes: float
    combine_bytes: float
    metadata_bytes: float = 0.0

    @property
    def total_bytes(self) -> float:
        """What the KV cache loses."""
        return self.dispatch_bytes + self.combine_bytes + self.metadata_bytes


def push_buffers(
    num_ranks: int,
    tokens_per_rank: int,
    slots_per_token: int,
    dispatch_message_bytes: float,
    combine_message_bytes: float,
) -> PinnedBuffers:
    """rank_num x max_tokens x message (CloudMatrix-Infer 4.2.1), for dispatch and for combine.

    slots_per_token = min(top_k, experts of a die): how many messages of one token may come to one
    die; max_tokens = tokens_per_rank x slots_per_token. 320 x 96 x (7.5 + 14) KiB = 645 MiB.
    """
    slots = float(num_ranks * tokens_per_rank * slots_per_token)
    return PinnedBuffers(
        dispatch_bytes=slots * dispatch_message_bytes, combine_bytes=slots * combine_message_bytes
    )


def pull_buffers(
    num_ranks: int,
    tokens_per_rank: int,
    top_k: int,
    dispatch_message_bytes: float,
    combine_message_bytes: float,
) -> PinnedBuffers:
    """The own managed area (all copies of the largest batch), one field a rank, and metadata."""
    slots = float(tokens_per_rank * top_k)
    return PinnedBuffers(
        dispatch_bytes=slots * dispatch_message_bytes,
        combine_bytes=slots * combine_message_bytes,
        metadata_bytes=XCCL_METADATA_BYTES + FIELD_BYTES * num_ranks,
    )


def low_latency_buffers(
    num_experts: int,
    tokens_per_rank: int,
    dispatch_message_bytes: float,
    combine_message_bytes: float,
) -> PinnedBuffers:
    """DeepEP low-latency: every expert may get every token of every rank, double-buffered.

    Receiving takes (experts of the rank) x ranks x tokens = experts x tokens messages, sending
    tokens messages in a dispatch and as many as it received in a combine.
    """
    received = 2.0 * num_experts * tokens_per_rank
    return PinnedBuffers(
        dispatch_bytes=(received + 2.0 * tokens_per_rank) * dispatch_message_bytes,
        combine_bytes=2.0 * received * combine_message_bytes,
    )


def split_buffers(
    num_dies: int,
    attention_slots: float,
    expert_slots: float,
    dispatch_message_bytes: float,
    combine_message_bytes: float,
) -> PinnedBuffers:
    """A2E and E2A: the fuller of both sides, as all dies reserve alike; a field a die, metadata.

    attention_slots, expert_slots: messages that one die of either side holds, of all domains.
    """
    slots = max(attention_slots, expert_slots)
    return PinnedBuffers(
        dispatch_bytes=slots * dispatch_message_bytes,
        combine_bytes=slots * combine_message_bytes,
        metadata_bytes=XCCL_METADATA_BYTES + FIELD_BYTES * num_dies,
    )


def ring_buffers(num_cores: int, slot_bytes: float) -> PinnedBuffers:
    """XCCL send and receive with one peer: a ring of slots a pair of cores, and metadata."""
    return PinnedBuffers(
        dispatch_bytes=num_cores * slot_bytes,
        combine_bytes=0.0,
        metadata_bytes=XCCL_METADATA_BYTES,
    )
