"""What a batch scheduler sees of a rank."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpod.engine.sequence import SequenceFacade

if TYPE_CHECKING:
    from simpod.engine.rank import Rank


@dataclass(frozen=True, slots=True)
class RankFacade:
    """Read-only view of a rank before a step: `policies.BatchView`."""

    _rank: "Rank"
    block_tokens: int

    @property
    def now_s(self) -> float:
        """Start of the step."""
        return self._rank.group.clock.now

    @property
    def max_step_tokens(self) -> int:
        """Token budget of the step, less the draft tokens that running decodes bring."""
        return self._rank.group.spec.max_step_tokens - self._rank.draft_tokens

    @property
    def num_decoding(self) -> int:
        """Sequences that decode in this step."""
        return self._rank.num_decoding

    @property
    def prefilling(self) -> Iterator[SequenceFacade]:
        """Prompts computed in part, then waiting ones."""
        rank = self._rank
        for seq in rank.partial.values():
            yield SequenceFacade(seq)
        for seq in rank.waiting.values():
            hit = rank.hit_units(seq) * rank.group.kv.unit_tokens if seq.prefix_hashes else 0
            yield SequenceFacade(seq, hit)

    @property
    def free_seq_slots(self) -> int:
        """How many prompts may take part in this step."""
        return self._rank.free_slots

    @property
    def free_blocks(self) -> int:
        """KV blocks that could be given out."""
        return self._rank.free_blocks
