"""Blocks that the pool's DRAM gives up on their way to its SSD: over the links, as rows."""

from collections import defaultdict
from typing import TYPE_CHECKING

from simpod.cluster.shared_memory import Demotion, SharedMemory
from simpod.engine.network import Network, Operation
from simpod.engine.transfer_log import DEMOTION, NOWHERE
from simpod.hardware import TransferLaw

if TYPE_CHECKING:
    from simpod.engine.simulation import Simulation


class Demotions:
    """Writes what has been given up, one transfer an instant and socket."""

    def __init__(
        self, sim: "Simulation", memory: SharedMemory, law: TransferLaw, block_bytes: float
    ) -> None:
        self._sim = sim
        self._memory = memory
        self._law = law
        self._block_bytes = block_bytes

    def start(self, network: Network) -> None:
        """Send what has been given up since the last time."""
        by_socket: dict[int, list[Demotion]] = defaultdict(list)
        for demotion in self._memory.take_demotions():
            by_socket[demotion.socket].append(demotion)
        for socket, demotions in by_socket.items():
            self._send(network, socket, demotions)

    def _send(self, network: Network, socket: int, demotions: list[Demotion]) -> None:
        law, fabric = self._law, network.fabric
        host = socket // self._memory.spec.sockets_per_host
        size_bytes = len(demotions) * self._block_bytes
        most = law.bytes_per_s(same_node=False)
        part = network.part(fabric.cpu(socket), fabric.ssd(host), law.plane, size_bytes, most)

        def done(operation: Operation) -> None:
            where = (NOWHERE, NOWHERE, NOWHERE, NOWHERE, host)
            figures = (operation.start_s, operation.end_s, size_bytes, 0.0, operation.alone_s)
            self._sim.transfers.add(NOWHERE, DEMOTION, law.plane, where, figures)
            for demotion in demotions:
                self._memory.arrive(demotion)

        network.send([part], law.start_s(same_node=False), done)
