"""KV from prefill to decode ranks: who pulls when, over which links.

A finished prompt is registered with the decode pool by its metadata alone: its router chooses a
rank by load. The rank pulls (RECV) as soon as it has a slot and blocks; until then the prompt's KV
stays pinned on the prefill die, whose blocks it takes from others: back-pressure. When all of it
has arrived, the prefill side frees its blocks and the sequence decodes from the next step on
(xDeepServe section 5, figure 17).

Layer-wise, a prompt is registered when the last of its chunks begins, and what has been computed
is sent meanwhile, paced evenly up to the end of the step: then only the last layer of that chunk
remains.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpod.cluster import KvRoutes, place_in_order
from simpod.engine.clock import DELIVER
from simpod.engine.network import Operation
from simpod.engine.sequence import Sequence
from simpod.engine.transfer_log import KV, NOWHERE
from simpod.errors import InvariantError
from simpod.hardware import TransferLaw

if TYPE_CHECKING:
    from simpod.engine.group import Group
    from simpod.engine.rank import Rank
    from simpod.engine.simulation import Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class KvPath:
    """How KV travels; without a `law` over links of its own (`KvTransfer.seconds`)."""

    plane: str
    routes: KvRoutes
    law: TransferLaw | None = None
    layerwise: bool = False
    num_layers: int = 1


@dataclass(slots=True, eq=False)
class _Early:
    """A prompt that is registered before it is complete."""

    end_s: float  # of the step that completes it
    tail_frac: float  # of its bytes: what can't be sent before that
    begin_s: float = 0.0  # when the pull began
    where: "tuple[Group, Rank] | None" = None  # the decode rank, once it pulls
    num_open: int = 0


class KvMover:
    """All transfers between the two pools of a run."""

    def __init__(self, sim: "Simulation") -> None:
        self._sim = sim
        self._clock = sim.clock
        self._law = sim.inputs.transfer
        self._network = sim.network
        self._early: dict[int, _Early] = {}
        path = sim.inputs.kv_path
        if path is None:
            specs = [pool.spec for pool in sim.pools]
            placements = place_in_order(specs)
            routes = KvRoutes(prefill=placements[0], decode=placements[-1])
            path = KvPath(plane="scale_up", routes=routes)
        self.path = path
        self.is_layerwise = path.layerwise and sim.decode is not None

    # --- registration ---------------------------------------------------------------------------

    def hand_over(self, seq: Sequence, rank: "Rank") -> None:
        """Register a finished prompt with the decode pool; its KV stays until it is pulled."""
        rank.pin(seq)
        early = self._early.pop(seq.seq_id, None)
        if early is None:
            self._register(seq)
        elif early.where is not None:
            early.where[1].keep_reserved(seq)
            seq.transfer_start_s = self._clock.now  # later than foreseen if the step was held up
            self._finish(seq, early)

    def announce(self, group: "Group", end_s: float) -> None:
        """Register the prompts that the step under way completes at `end_s`."""
        outputs = self._sim.output_tokens
        for rank in group.ranks:
            for seq, chunk in rank.chunks.values():
                is_whole = seq.resident_tokens + chunk == seq.goal_tokens
                goes_on = self._sim.inputs.first_token_from_decode or outputs[seq.seq_id] > 1
                if is_whole and goes_on:
                    tail_frac = chunk / seq.goal_tokens / self.path.num_layers
                    self._early[seq.seq_id] = _Early(end_s, tail_frac)
                    self._register(seq)

    def _register(self, seq: Sequence) -> None:
        pool = self._sim.decode
        if pool is None:
            raise InvariantError("no decode pool takes the prompt")
        seq.decode_target = pool.dispatch.choose(seq)
        group, rank = pool.rank_of(seq.decode_target)
        group.submit(seq, rank)

    # --- moving ---------------------------------------------------------------------------------

    def pull(self, seq: Sequence, group: "Group", rank: "Rank") -> None:
        """Pull a prompt's KV into `rank`; both sides hold it until it is there."""
        now_s = self._clock.now
        early = self._early.get(seq.seq_id)
        if early is not None:
            early.where, early.begin_s = (group, rank), now_s
            seq.transfer_start_s = early.end_s  # what lies before costs nobody time
            if self._network is not None:
                self._share(seq, 1.0 - early.tail_frac, early, pace_s=early.end_s - now_s)
            return
        early = _Early(end_s=now_s, tail_frac=1.0, begin_s=now_s, where=(group, rank))
        seq.transfer_start_s = now_s
        self._finish(seq, early, wait_s=now_s - seq.prefill_end_s)

    def _finish(self, seq: Sequence, early: _Early, wait_s: float = 0.0) -> None:
        """The prompt is complete: send what is left of it, all or the tail."""
        if self._network is not None:
            self._share(seq, early.tail_frac, early, wait_s=wait_s)
            return
        law, tokens = self._law, seq.goal_tokens
        if law is None:
            raise InvariantError("no link for the KV transfer")
        tail_s = law.seconds(tokens) - (1.0 - early.tail_frac) * law.moving_s(tokens)
        whole_s = law.seconds(tokens)
        end_s = max(early.begin_s + whole_s, self._clock.now + tail_s)
        early.num_open += 1
        times_s = (early.begin_s, end_s, wait_s, whole_s)
        self._clock.call_at(end_s, DELIVER, lambda: self._alone_done(seq, early, times_s))

    def _alone_done(
        self, seq: Sequence, early: _Early, times_s: tuple[float, float, float, float]
    ) -> None:
        """A transfer over links of its own has ended."""
        size_bytes = self._size_bytes(seq)
        for source, destination, share, _ in self.path.routes.parts(
            seq.prefill_target, seq.decode_target
        ):
            self._note(seq, (source, destination), times_s, share * size_bytes)
        self._close(seq, early)

    def _share(
        self, seq: Sequence, frac: float, early: _Early, *, pace_s: float = 0.0, wait_s: float = 0.0
    ) -> None:
        """Send a share of a prompt's KV over the fabric, in no less than `pace_s`."""
        network, law = self._network, self.path.law
        if network is None or law is None:
            raise InvariantError("no fabric for the KV transfer")
        size_bytes, start_up_s, parts = frac * self._size_bytes(seq), 0.0, []
        node_of = network.fabric.node_of
        for source, destination, share, of_die in self.path.routes.parts(
            seq.prefill_target, seq.decode_target
        ):
            same_node = node_of[source] == node_of[destination]
            part_bytes = share * size_bytes
            most = of_die * law.bytes_per_s(same_node=same_node)
            if pace_s > 0 and part_bytes > 0:
                most = min(most, part_bytes / pace_s)
            start_up_s = max(start_up_s, law.start_s(same_node=same_node))
            parts.append(network.part(source, destination, self.path.plane, part_bytes, most))
        early.num_open += 1

        def done(operation: Operation) -> None:
            for part in operation.parts:
                ends_s = (operation.start_s, min(part.end_s, operation.end_s))
                times_s = (*ends_s, wait_s, operation.alone_s)
                self._note(seq, (part.source, part.destination), times_s, part.size_bytes)
            self._close(seq, early)

        network.send(parts, start_up_s, done)

    def _size_bytes(self, seq: Sequence) -> float:
        if self._law is None:
            raise InvariantError("no link for the KV transfer")
        return self._law.size_bytes(seq.goal_tokens)

    def _note(
        self,
        seq: Sequence,
        ends: tuple[int, int],
        times_s: tuple[float, float, float, float],
        size_bytes: float,
    ) -> None:
        start_s, end_s, wait_s, alone_s = times_s
        self._sim.transfers.add(
            seq.seq_id,
            KV,
            self.path.plane,
            (seq.prefill_target, seq.decode_target, *ends, NOWHERE),
            (start_s, end_s, size_bytes, wait_s, alone_s),
        )

    def _close(self, seq: Sequence, early: _Early) -> None:
        """One operation has ended; with the last one all is there."""
        early.num_open -= 1
        if early.num_open or seq.seq_id in self._early or early.where is None:
            return
        seq.transfer_end_s = self._clock.now
        source, source_rank = self._sim.entry.rank_of(seq.prefill_target)
        source.let_go(seq, source_rank)
        group, rank = early.where
        group.deliver(seq, rank)
