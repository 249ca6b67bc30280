"""TensorRT-LLM's capacity scheduler: whom the cache holds to the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from simpod.policies.roles import BatchView, SequenceView


@dataclass(slots=True)
class NoEvict:
    """A request starts only if blocks for its prompt and all of its allowed answer are free.

    Those that requests under way may still take are set aside first, so nobody is ever preempted.
    The first that finds no room ends the admission. A request that names no limit takes the blocks
    of its prompt alone.
    Source: TensorRT-LLM, batch_manager/capacityScheduler.cpp (`GuaranteedNoEvictScheduler`),
    scheduledBlocksManager.h, kvCacheManager.cpp (`getRemainingBlocksToCompletion`).
    """

    _longest: int = field(default=0, init=False)

    def admitted(self, view: BatchView, chunks: Mapping[int, int]) -> dict[int, int]:
        """The chunks of prompts under way, and of new ones as long as they find room."""
        prompts = [seq for seq in view.prefilling if seq.is_running or seq.seq_id in chunks]
        allowed_tokens = max((_most(seq) for seq in prompts if seq.max_tokens), default=0)
        self._longest = max(self._longest, allowed_tokens)
        if not self._longest:
            return dict(chunks)
        running = view.num_decoding + sum(seq.is_running for seq in prompts)
        if (view.num_decoding + len(prompts)) * (
            self._longest // view.block_tokens + 2
        ) <= view.free_blocks:
            return dict(chunks)
        free = view.free_blocks - sum(_blocks_left(view, seq) for seq in view.decoding)
        allowed: dict[int, int] = {}
        for seq in prompts:
            free -= _blocks_left(view, seq)
            if free < 0 and not seq.is_running and (running or allowed):
                break
            if seq.seq_id in chunks:
                allowed[seq.seq_id] = chunks[seq.seq_id]
        return allowed

    def may_pull(self, view: BatchView, coming: Sequence[SequenceView], seq: SequenceView) -> bool:
        """The same for a prompt computed elsewhere (`is_disagg_generation_init_state`)."""
        self._longest = max(self._longest, _most(seq) if seq.max_tokens else 0)
        under_way = view.num_decoding + len(coming)
        each = self._longest // view.block_tokens + 2
        if not self._longest or not under_way or (under_way + 1) * each <= view.free_blocks:
            return True
        free = view.free_blocks - sum(_blocks_left(view, other) for other in view.decoding)
        free -= sum(_blocks_left(view, other) for other in coming)
        return _blocks_left(view, seq) <= free


def _most(seq: SequenceView) -> int:
    """Tokens that a request may come to hold."""
    return seq.prompt_tokens + max(seq.max_tokens, seq.emitted_tokens)


def _blocks_left(view: BatchView, seq: SequenceView) -> int:
    """Blocks that a request may still take, its last step's drafts included."""
    most = _most(seq) + view.tokens_per_decode - 1
    return -(-most // view.block_tokens) - -(-seq.context_tokens // view.block_tokens)
