"""Prompts of one rank whose prefix is on its way from the shared memory."""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from simpod.cluster.shared_memory import SSD
from simpod.engine.context_cache import ContextCache
from simpod.engine.layer_streams import Stream
from simpod.engine.sequence import Sequence

if TYPE_CHECKING:
    from simpod.engine.rank import Rank


class PrefixReads:
    """Looks waiting prompts up as slots and blocks come free for them; holds those being read.

    They have blocks and a slot, take part in no step, and can't be preempted until they are there.
    """

    def __init__(self, rank: "Rank", cache: ContextCache) -> None:
        self._rank = rank
        self._cache = cache
        self._missed: set[int] = set()  # waiting; the pool had nothing for them
        self.under_way: dict[int, Sequence] = {}
        self.streams: dict[int, Stream] = {}  # layer by layer: prompts that have begun

    def start(self) -> None:
        """Look prompts up in order of arrival; stop at the first that finds no room."""
        rank = self._rank
        slots = rank.free_slots - len(rank.partial) - len(self.under_way)
        seqs = (seq for seq in rank.waiting.values() if seq.seq_id not in rank.held)
        for seq in list(islice(seqs, max(0, slots))):
            if seq.seq_id not in self._missed and not self._start(seq):
                return

    def forget(self, seq: Sequence) -> None:
        """A prompt has left the queue: look it up anew should it come back."""
        self._missed.discard(seq.seq_id)
        self.streams.pop(seq.seq_id, None)  # it made way before all layers were here

    def _start(self, seq: Sequence) -> bool:
        """Begin to read a prefix, if one is there; False if there is no room for it."""
        rank, cache = self._rank, self._cache
        hit = rank.hit_units(seq.prefix_hashes, seq.goal_tokens)
        local = hit * rank.group.kv.unit_tokens
        found = cache.find(seq, rank, local)
        tokens = cache.hit_tokens(found, local)
        if not found or tokens <= local:
            self._missed.add(seq.seq_id)
            return True
        if not rank.admit(seq, hit, tokens, tokens, whole=True):
            return False
        if seq.scheduled_s != seq.scheduled_s:
            on_ssd = sum(block.tier == SSD for block in found) * cache.unit_tokens
            seq.cached_tokens = tokens
            seq.ssd_tokens = min(on_ssd, tokens - local)
            seq.dram_tokens = tokens - local - seq.ssd_tokens
        self.under_way[seq.seq_id] = seq
        rank.report_kv()
        stream = Stream()
        on_begun, on_done = partial(self._begun, seq, stream), partial(self._done, seq, stream)
        cache.read(seq, rank, found, on_begun, on_done)
        return True

    def _begun(self, seq: Sequence, stream: Stream) -> None:
        """The prefix, or its first layer, is here: the prompt can take part in steps."""
        rank = self._rank
        del self.under_way[seq.seq_id]
        rank.partial[seq.seq_id] = rank.running[seq.seq_id] = seq
        if self._cache.layers is not None:
            self.streams[seq.seq_id] = stream
        elif seq.prefix_hashes:
            rank.publish(seq)
        rank.touch()
        rank.group.poke()

    def _done(self, seq: Sequence, stream: Stream) -> None:
        """The last layer is here: others can use the prefix, and a step that waits goes on."""
        rank, layers = self._rank, self._cache.layers
        if layers is not None:
            layers.done(rank.group, stream)
        if self.streams.get(seq.seq_id) is stream and seq.seq_id in rank.running:
            rank.publish(seq)


def must_wait(changed: "Iterable[Rank]", ranks: "Iterable[Rank]", cache: ContextCache) -> bool:
    """Begin the reads that the `changed` ranks have room for.

    True if the next step of all `ranks` is to wait for reads under way.
    """
    for rank in changed:
        if rank.reads is not None:
            rank.reads.start()
    return cache.waits_for_reads and any(
        rank.reads is not None and rank.reads.under_way for rank in ranks
    )
