"""What was moved, in rows: one a pair of endpoints."""

from collections.abc import Iterable, Sequence
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from simpod.records.columns import TRANSFER_KINDS, TransferRecords

KV, CACHE_READ, WRITE_BACK, EXPERT_WEIGHTS, MIGRATION, DEMOTION = range(len(TRANSFER_KINDS))

NOWHERE = -1
"""No request, no rank, no die, no host."""

ROW = (
    "request_id",
    "kind",
    "plane",
    "source",
    "destination",
    "source_die",
    "destination_die",
    "host",
    "start_s",
    "end_s",
    "size_bytes",
    "wait_s",
    "alone_s",
)


PACK_ROW = Struct(f"{len(ROW)}d").pack  # three times as fast as array.extend


class TransferLog:
    """Rows of transfers that have ended, in the order of their ends."""

    def __init__(self, plane_names: Sequence[str]) -> None:
        self.plane_names = tuple(plane_names)
        self._codes = {name: code for code, name in enumerate(self.plane_names)}
        self._rows = bytearray()

    def add(
        self,
        request_id: int,
        kind: int,
        plane: str,
        where: tuple[int, ...],
        figures: Iterable[float],
    ) -> None:
        """Note a transfer: columns `source` to `host`, columns `start_s` to `alone_s`."""
        self._rows += PACK_ROW(request_id, kind, self._codes[plane], *where, *figures)

    def records(self) -> TransferRecords:
        """All rows by their starts."""
        table = np.frombuffer(bytes(self._rows)).reshape(-1, len(ROW))
        table = table[np.argsort(table[:, ROW.index("start_s")], kind="stable")]
        columns: dict[str, NDArray[np.generic]] = {
            name: values if name.endswith(("_s", "_bytes")) else values.astype(np.int64)
            for name, values in zip(ROW, table.T, strict=True)
        }
        return TransferRecords(**columns, plane_names=self.plane_names)  # type: ignore[arg-type]
