"""Micro-batches on two streams of one die that split its cores (CloudMatrix-Infer 4.2.3).

Stream 0 runs attention (projections, attention over the cache) of one micro-batch while stream 1
runs the feed-forward half (gate, dispatch, experts, combine) of another: 16 + 8 of the 24 matrix
cores of a 910C die. A layer then takes about as long as the busier stream, not as both together;
but each stage owns fewer cores, so the part of it that cores bind takes longer.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """Seconds of one stage of one micro-batch with all cores of a die; arrays broadcast.

    core_s is in inverse proportion to the cores (compute, handling of messages by vector cores);
    other_s is not (bytes over links, latencies, launches, waiting).
    """

    core_s: ArrayLike
    other_s: ArrayLike = 0.0

    def on(self, cores_frac: float) -> Floats:
        """Seconds with a share of the cores."""
        core = np.asarray(self.core_s, dtype=np.float64)
        return np.asarray(core / cores_frac + np.asarray(self.other_s, dtype=np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSplit:
    """Matrix cores of the attention stream and of the expert stream."""

    attention_cores: int = 16
    expert_cores: int = 8

    @classmethod
    def of(cls, num_cores: int, attention_cores: int) -> Self:
        """Of a die with `num_cores`; attention_cores 0: two thirds, of whatever the die has.

        Raises ValueError where a stream has none.
        """
        if not attention_cores:
            return cls()
        return cls(attention_cores=attention_cores, expert_cores=num_cores - attention_cores)

    def __post_init__(self) -> None:
        if min(self.attention_cores, self.expert_cores) < 1:
            raise ValueError(
                f"each stream needs a core, got {self.attention_cores} + {self.expert_cores}"
            )

    @property
    def attention_frac(self) -> float:
        """Share of the first stream."""
        return self.attention_cores / (self.attention_cores + self.expert_cores)

    @property
    def expert_frac(self) -> float:
        """Share of the second."""
        return 1.0 - self.attention_frac


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamTimes:
    """When stages of all layers end; arrays [..., micro_batches, layers]."""

    attention_end_s: Floats
    expert_end_s: Floats

    @property
    def total_s(self) -> Floats:
        """[...]: all micro-batches through all layers."""
        return np.asarray(self.expert_end_s[..., -1].max(axis=-1))

    @classmethod
    def of(cls, attention_s: Floats, expert_s: Floats) -> Self:
        """For durations [..., micro_batches, layers] of both stages.

        Each stream takes micro-batch 0, 1, ... of layer 0, then of layer 1, ...:
        A(l, m) = max(E(l - 1, m), stream 0 free) + attention,
        E(l, m) = max(A(l, m), stream 1 free) + expert.
        """
        shape = np.broadcast_shapes(attention_s.shape, expert_s.shape)
        attention, expert = (np.broadcast_to(x, shape) for x in (attention_s, expert_s))
        attention_end, expert_end = np.zeros(shape), np.zeros(shape)
        first_free, second_free = np.zeros(shape[:-2]), np.zeros(shape[:-2])
        for layer in range(shape[-1]):
            for micro in range(shape[-2]):
                ready = expert_end[..., micro, layer - 1] if layer else np.zeros(shape[:-2])
                first_free = np.maximum(ready, first_free) + attention[..., micro, layer]
                second_free = np.maximum(first_free, second_free) + expert[..., micro, layer]
                attention_end[..., micro, layer] = first_free
                expert_end[..., micro, layer] = second_free
        return cls(attention_end_s=attention_end, expert_end_s=expert_end)


def period_s(attention_s: ArrayLike, expert_s: ArrayLike, *, micro_batches: int) -> Floats:
    """Of a layer of many: as long as the busier stream's stages, or as one micro-batch's way
    through both.
    """
    a, e = np.asarray(attention_s, dtype=np.float64), np.asarray(expert_s, dtype=np.float64)
    return np.asarray(np.maximum(micro_batches * np.maximum(a, e), a + e))


def alike_s(
    attention_s: ArrayLike, expert_s: ArrayLike, *, micro_batches: int, layers: int
) -> Floats:
    """The same for stages that are alike in all layers and micro-batches, in closed form.

    One micro-batch: L (a + e). With m of them each layer but the last lasts a period p, and that
    ends m - 1 stages of the busier stream after its first micro-batch:
    (L - 1) p + a + e + (m - 1) max(a, e).
    """
    a, e = np.asarray(attention_s, dtype=np.float64), np.asarray(expert_s, dtype=np.float64)
    period = period_s(a, e, micro_batches=micro_batches)
    return np.asarray((layers - 1) * period + a + e + (micro_batches - 1) * np.maximum(a, e))
