"""xDeepServe's balancer of experts."""

from dataclasses import dataclass, field

import numpy as np

from simpod.policies.expert_packing import copies_by_slices, placed
from simpod.policies.roles import ExpertSlotsView, Floats, Ints


@dataclass(slots=True)
class Eplb:
    """Copies where they lower the hottest copy of each slice of time; placed heaviest first.

    Each call brings the loads of one slice. The copies of an expert go to different dies.

    Source: xDeepServe (arXiv:2508.02520), section 4.5.
    Sees: tokens of each expert in each layer, slice by slice, once collected.
    """

    num_slices: int = 10
    """Latest slices that count; at least 1."""

    _slices: list[Floats] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.num_slices < 1:
            raise ValueError(f"num_slices: must be >= 1, got {self.num_slices}")

    def __call__(self, load: Floats, slots: ExpertSlotsView) -> Ints:
        self._slices = [*self._slices, np.array(load, dtype=np.float64)][-self.num_slices :]
        history = np.stack(self._slices)
        held = copies_by_slices(history, len(slots.die_of_slot), slots.num_dies)
        return placed(history.mean(axis=0), held, slots)
