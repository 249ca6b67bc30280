"""Live migration by virtual usage."""

from dataclasses import dataclass

import numpy as np

from simpod.policies.roles import Floats, MigrationView, Move, RouterView, SequenceView


@dataclass(frozen=True, slots=True)
class LlumnixMigration:
    """From targets that are nearly full to the freest, one request a pair: levels and defragments.

    Freeness is (KV capacity - virtual usage) / requests, as in the router of this name: prompts
    that wait count as usage, so a target whose head of the queue finds no room is a source even if
    others have room for it. The least free source is paired with the freest destination, and so
    on. The request that moves is that of the lowest priority, of these the one with the least KV;
    it must leave its destination freer than its source.

    Source: Sun et al., Llumnix, OSDI 2024 (arXiv:2406.03243), algorithm 1 and section 4.4.
    Sees: KV usage as last reported, requests at every target; of running ones priority and KV.
    """

    period_s: float = 1.0
    """Time between two decisions; above 0."""

    low_tokens: float = 32.0
    """Freeness below which a target gives requests up, tokens a request."""

    high_tokens: float = 256.0
    """Freeness above which a target takes them; at least `low_tokens`."""

    def __post_init__(self) -> None:
        if not 0 < self.period_s < float("inf"):
            raise ValueError(f"period_s: must be > 0 and finite, got {self.period_s}")
        if not self.high_tokens >= self.low_tokens:
            raise ValueError(f"high_tokens: must be >= {self.low_tokens}, got {self.high_tokens}")

    def __call__(self, view: MigrationView) -> list[Move]:
        free = _freeness(view.targets)
        order = np.argsort(free, kind="stable").tolist()
        moves = []
        for source, destination in zip(order, reversed(order), strict=True):
            is_pair = free[source] < self.low_tokens and free[destination] > self.high_tokens
            if not is_pair:
                break
            chosen = min(view.decoding(source), key=_cost, default=None)
            if chosen is not None and _fits(view.targets, destination, chosen, free[source]):
                moves.append(Move(chosen.seq_id, source, destination))
        return moves


def _freeness(targets: RouterView) -> Floats:
    free = targets.kv_capacity_tokens - targets.kv_tokens - targets.queued_tokens
    spread: Floats = np.where(free > 0, free / np.maximum(1, targets.held_seqs), free)
    return spread


def _cost(seq: SequenceView) -> tuple[int, int, int]:
    return seq.priority, seq.context_tokens, seq.seq_id


def _fits(targets: RouterView, target: int, seq: SequenceView, freeness: float) -> bool:
    """With the request the destination has a slot, and is still freer than the source is now."""
    held = int(targets.held_seqs[target])
    used = int(targets.kv_tokens[target] + targets.queued_tokens[target])
    left = targets.kv_capacity_tokens - used - seq.context_tokens
    return held < targets.max_num_seqs and left / (held + 1) > freeness
