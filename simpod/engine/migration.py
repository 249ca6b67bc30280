"""Live migration: a sequence decodes on while its KV is copied, then follows it.

At the destination's next step boundary room is taken, for the KV and for what the sequence will
gain while it is copied, and the copy begins. When it is there, the sequence leaves its source at
the next step boundary; what it has gained is copied then, and it decodes at the destination from
the next step on. A sequence that ends or is preempted on the way, or has gained more than there is
room for, stays, and its room is given back: no token, block or request is lost (Llumnix, 4.2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simpod.engine.clock import DELIVER
from simpod.engine.facades import DecodingFacade
from simpod.engine.network import Operation
from simpod.engine.sequence import Sequence
from simpod.engine.transfer_log import MIGRATION, NOWHERE
from simpod.errors import PolicyError, blaming
from simpod.policies import Migration, Move, RouterView

if TYPE_CHECKING:
    from simpod.cost import KvTransfer
    from simpod.engine.pool import Pool
    from simpod.engine.rank import Rank
    from simpod.engine.simulation import Simulation


@dataclass(frozen=True, slots=True, eq=False)
class Flight:
    """One migration under way."""

    seq: Sequence
    source: "Rank"
    destination: "Rank"
    join_clock: int  # of the sequence at the source: another one means that it was preempted
    blocks: int  # at the destination
    copied_tokens: int

    @property
    def is_on(self) -> bool:
        """The sequence still decodes where it did when the copy began."""
        running = self.source.running.get(self.seq.seq_id)
        return running is self.seq and self.seq.join_clock == self.join_clock


@dataclass(frozen=True, slots=True)
class MigrationFacade:
    """Read-only view of the pool that decodes: `policies.MigrationView`."""

    _migrator: "Migrator"
    targets: RouterView

    @property
    def now_s(self) -> float:
        """The moment of the decision."""
        return self.targets.now_s

    def decoding(self, target: int, /) -> Iterator[DecodingFacade]:
        """Sequences that decode on a rank and are not on the move."""
        return self._migrator.decoding(target)


class Migrator:
    """Asks the policy every so often and carries its moves out."""

    def __init__(
        self, sim: "Simulation", pool: "Pool", law: "KvTransfer", policy: Migration
    ) -> None:
        self._sim = sim
        self._dispatch = pool.dispatch
        self._clock = clock = sim.clock
        self._law = law  # on idle links
        self._policy = policy
        self._name = sim.inputs.migration_name
        self._flights: dict[int, Flight] = {}
        self._view = MigrationFacade(self, pool.dispatch.view)
        self.num_done = 0
        clock.tick_at(clock.now + policy.period_s, self._tick)

    def decoding(self, target: int) -> Iterator[DecodingFacade]:
        """Sequences that decode on a rank and are not on the move."""
        rank = self._dispatch.ranks[target]
        clock, block_tokens = rank.group.kv.clock, rank.group.spec.block_tokens
        for seq in rank.running.values():
            if seq.join_clock >= 0 and seq.seq_id not in self._flights:
                yield DecodingFacade(seq, block_tokens, clock - seq.join_clock)

    def _tick(self) -> None:
        with blaming(self._name):
            moves = list(self._policy(self._view))
        for move in moves:
            self._ask_for_room(move)
        if self._clock.is_busy:  # else nothing would ever happen again
            self._clock.tick_at(self._clock.now + self._policy.period_s, self._tick)

    def _ask_for_room(self, move: Move) -> None:
        """Begin at the destination's next step boundary, with room for a copy that begins now."""
        seq = self._checked(move)
        source, destination = (self._dispatch.ranks[t] for t in (move.source, move.destination))
        group = source.group
        tokens = seq.resident_tokens + group.clock_tokens() - seq.join_clock
        wait_s = destination.group.step_s + self._law.seconds(tokens)
        steps = 2 + int(wait_s / group.step_s) if group.step_s else 2
        blocks = destination.group.kv.blocks_for(tokens + group.tokens_after(steps))
        flight = Flight(seq, source, destination, seq.join_clock, blocks, tokens)
        self._flights[seq.seq_id] = flight
        destination.at_boundary.append(lambda: self._begin(flight))
        destination.touch()
        destination.group.poke()

    def _begin(self, flight: Flight) -> None:
        """Take room and a slot at the destination and start to copy, or do nothing without room."""
        destination, kv = flight.destination, flight.destination.group.kv
        has_slot = destination.free_slots > len(destination.partial)
        ahead = destination.group.next_tokens
        if not has_slot or not kv.fits(destination.index, flight.blocks, ahead):
            del self._flights[flight.seq.seq_id]
            return
        kv.take(destination.index, flight.blocks)
        destination.num_pulling += 1
        destination.group.num_pulling += 1
        destination.report_kv()
        self._send(flight, flight.copied_tokens, lambda: self._copied(flight))

    def _checked(self, move: Move) -> Sequence:
        ranks = self._dispatch.ranks
        ends = (move.source, move.destination)
        if not all(0 <= end < len(ranks) for end in ends) or move.source == move.destination:
            raise PolicyError(self._name, f"moves from {move.source} to {move.destination}")
        seq = ranks[move.source].running.get(move.seq_id)
        if seq is None or seq.join_clock < 0 or move.seq_id in self._flights:
            raise PolicyError(
                self._name, f"moves sequence {move.seq_id}, which does not decode on {move.source}"
            )
        return seq

    def _copied(self, flight: Flight) -> None:
        """What there was is at the destination: the sequence leaves at the next step boundary."""
        seq, source, group = flight.seq, flight.source, flight.source.group
        if not flight.is_on:
            self._give_back(flight)
            return
        step = group.tokens_after(1) + 1  # at most, of the step under way
        tokens = seq.resident_tokens + group.clock_tokens() + step - seq.join_clock
        if flight.destination.group.kv.blocks_for(tokens) > flight.blocks:
            self._give_back(flight)
            return
        source.at_boundary.append(lambda: self._depart(flight))
        source.touch()
        group.poke()

    def _depart(self, flight: Flight) -> None:
        """At a step boundary of the source: stop decoding there, copy the rest.

        The destination may be planning at this very instant, so its blocks are left alone.
        """
        seq, source, destination = flight.seq, flight.source, flight.destination
        now_s = self._clock.now
        if not flight.is_on:
            end_s = now_s + self._law.seconds(0)
            self._clock.call_at(end_s, DELIVER, lambda: self._give_back(flight))
            return
        source.group.close_segment(seq)
        source.end_decode(seq)
        tokens = seq.resident_tokens
        source.pin(seq)
        seq.own_blocks = destination.group.kv.blocks_for(tokens)
        seq.decode_target = destination.target
        self._dispatch.running_seqs[destination.target] += 1
        self._dispatch.held_seqs[destination.target] += 1
        self._send(flight, tokens - flight.copied_tokens, lambda: self._arrive(flight))

    def _send(self, flight: Flight, tokens: int, then: Callable[[], None]) -> None:
        """Copy the KV of so many tokens, die to die: over the fabric, or over links of its own."""
        network, law = self._sim.network, self._sim.inputs.migration_over
        start_s, alone_s = self._clock.now, self._law.seconds(tokens)
        size_bytes = self._law.size_bytes(tokens)
        placement = self._sim.kv.path.routes.decode
        ends = [placement.dies(rank.target) for rank in (flight.source, flight.destination)]
        pairs = list(zip(*ends, strict=True))
        if network is None or law is None:

            def arrived() -> None:
                for pair in pairs:
                    figures = (start_s, self._clock.now, size_bytes / len(pairs), 0.0, alone_s)
                    self._note(flight, self._sim.inputs.migration_plane, pair, figures)
                then()

            self._clock.call_at(start_s + alone_s, DELIVER, arrived)
            return
        moves = ((*pair, size_bytes / len(pairs)) for pair in pairs)
        parts, start_up_s = network.parts_under(law, moves)

        def done(operation: Operation) -> None:
            for part in operation.parts:
                end_s = min(part.end_s, operation.end_s)
                figures = (start_s, end_s, part.size_bytes, 0.0, operation.alone_s)
                self._note(flight, part.plane, (part.source, part.destination), figures)
            then()

        network.send(parts, start_up_s, done)

    def _note(
        self, flight: Flight, plane: str, dies: tuple[int, int], figures: tuple[float, ...]
    ) -> None:
        where = (flight.source.target, flight.destination.target, *dies, NOWHERE)
        self._sim.transfers.add(flight.seq.seq_id, MIGRATION, plane, where, figures)

    def _arrive(self, flight: Flight) -> None:
        seq, source, destination = flight.seq, flight.source, flight.destination
        source.group.let_go(seq, source)
        del self._flights[seq.seq_id]
        self.num_done += 1
        destination.group.kv.release(destination.index, flight.blocks - seq.own_blocks)
        destination.report_kv()
        destination.group.deliver(seq, destination)

    def _give_back(self, flight: Flight) -> None:
        """The move is off: free the room and the slot at the destination."""
        destination = flight.destination
        del self._flights[flight.seq.seq_id]
        destination.group.kv.release(destination.index, flight.blocks)
        destination.num_pulling -= 1
        destination.group.num_pulling -= 1
        destination.report_kv()
        destination.touch()
        destination.group.poke()
