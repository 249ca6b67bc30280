"""Attention and experts on different dies: one step as a max-plus recurrence (xDeepServe 5.2, 7.1).

Attention dies form DP domains. Each domain cuts its batch into micro-batches, and works on one
while the others are away. The expert dies run three persistent kernels, A2E receive, experts, E2A
send, each on one micro-batch of one domain at a time: one domain talks to the experts at a time.
Layer by layer, micro-batch by micro-batch, the domains take their turns in order.

A step of layer l, micro-batch m, domain d:

    attention end  T(d, m, l) = max(R(d, m, l - 1), attention dies of d free) + attention
    sent           S = T + sending: the first stage of A2E, which the attention dies do
    A2E end        A = max(S, receive kernel free) + a2e
    experts end    E = max(A, expert kernel free) + experts
    E2A end        R(d, m, l) = max(E, send kernel free) + e2a

The attention dies are free again at S. Dense layers come first and never leave them: R = T.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

Table = list[list[float]]

SAME: Final = 1e-14
"""Relative difference of shifts that are rounding alone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitStages:
    """Seconds of each stage, [domains, micro_batches, layers] or what broadcasts to it.

    Of attention: the slowest die of the domain, dense feed-forwards included. Of the others: the
    slowest die of both sides.
    """

    attention_s: ArrayLike
    sending_s: ArrayLike = 0.0
    a2e_s: ArrayLike
    experts_s: ArrayLike
    e2a_s: ArrayLike
    num_domains: int
    micro_batches: int
    num_layers: int
    dense_layers: int = 0

    def arrays(self) -> tuple[Floats, ...]:
        """The five stages, whole."""
        shape = (self.num_domains, self.micro_batches, self.num_layers)

        def whole(stage: ArrayLike) -> Floats:
            return np.broadcast_to(np.asarray(stage, dtype=np.float64), shape)

        stages = (self.attention_s, self.sending_s, self.a2e_s, self.experts_s, self.e2a_s)
        return tuple(whole(stage) for stage in stages)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitTimes:
    """What became of a step; ends are [domains, micro_batches, layers]."""

    attention_end_s: Floats
    returned_s: Floats
    """Results of the experts are back at the attention dies."""
    attention_busy_s: Floats
    """[domains]: attention and sending."""
    kernels_busy_s: Floats
    """[3]: kernels of the expert dies that receive, compute and send, for all domains."""

    @property
    def domain_s(self) -> Floats:
        """[domains]: until its last micro-batch is back."""
        return np.asarray(self.returned_s[:, :, -1].max(axis=1))

    @property
    def total_s(self) -> float:
        """Until the last domain is done."""
        return float(self.domain_s.max())


class _Clocks:
    """When everything is free or back, at one layer."""

    def __init__(self, num_domains: int, micro_batches: int) -> None:
        self.attention_end = [[0.0] * micro_batches for _ in range(num_domains)]
        self.back = [[0.0] * micro_batches for _ in range(num_domains)]
        self.free = [0.0] * num_domains
        self.receive = self.expert = self.send = 0.0

    def sparse(
        self, attention: Table, sending: Table, a2e: Table, experts: Table, e2a: Table
    ) -> None:
        """One layer with experts; seconds [domains][micro_batches]."""
        for micro in range(len(attention[0])):
            for domain in range(len(attention)):
                end = max(self.back[domain][micro], self.free[domain]) + attention[domain][micro]
                self.attention_end[domain][micro] = end
                self.free[domain] = sent = end + sending[domain][micro]
                self.receive = max(sent, self.receive) + a2e[domain][micro]
                self.expert = max(self.receive, self.expert) + experts[domain][micro]
                self.send = max(self.expert, self.send) + e2a[domain][micro]
                self.back[domain][micro] = self.send

    def dense(self, attention: Table) -> None:
        """One layer that stays on the attention dies."""
        for domain, micros in enumerate(attention):
            for micro, seconds in enumerate(micros):
                end = max(self.back[domain][micro], self.free[domain]) + seconds
                self.free[domain] = self.attention_end[domain][micro] = end
                self.back[domain][micro] = end

    def shift(self, seconds: float) -> None:
        """Everything happens so much later."""
        self.back = [[end + seconds for end in micros] for micros in self.back]
        self.attention_end = [[end + seconds for end in micros] for micros in self.attention_end]
        self.free = [free + seconds for free in self.free]
        self.receive, self.expert, self.send = (
            kernel + seconds for kernel in (self.receive, self.expert, self.send)
        )

    def now(self) -> Floats:
        """All of them, [n]."""
        kernels = np.array([self.receive, self.expert, self.send])
        return np.concatenate([np.ravel(self.back), np.array(self.free), kernels])


def split_times(stages: SplitStages) -> SplitTimes:
    """The recurrence, layer by layer."""
    arrays = stages.arrays()
    by_layer = [np.moveaxis(stage, 2, 0).tolist() for stage in arrays]
    clocks = _Clocks(stages.num_domains, stages.micro_batches)
    sparse = slice(stages.dense_layers, None)
    attention_end, returned = np.zeros((2, *arrays[0].shape))
    for layer in range(stages.num_layers):
        if layer < stages.dense_layers:
            clocks.dense(by_layer[0][layer])
        else:
            clocks.sparse(*(stage[layer] for stage in by_layer))
        attention_end[:, :, layer] = clocks.attention_end
        returned[:, :, layer] = clocks.back
    return SplitTimes(
        attention_end_s=attention_end,
        returned_s=returned,
        attention_busy_s=arrays[0].sum(axis=(1, 2)) + arrays[1][:, :, sparse].sum(axis=(1, 2)),
        kernels_busy_s=np.array([stage[:, :, sparse].sum() for stage in arrays[2:]]),
    )


def alike_domain_s(stages: SplitStages, last: SplitStages | None = None) -> Floats:
    """[domains]: `split_times(stages).domain_s` for sparse layers that are all alike, sooner.

    Stages are those of the last layer, but for attention of the dense layers: that of the first.
    The recurrence commutes with a shift of all clocks: as soon as a layer moves them all by the
    same, so does every layer after it. `last`: layers that come then, alike among themselves.
    """
    arrays = stages.arrays()
    one = [stage[:, :, -1].tolist() for stage in arrays]
    clocks = _Clocks(stages.num_domains, stages.micro_batches)
    for _ in range(stages.dense_layers):
        clocks.dense(arrays[0][:, :, 0].tolist())
    before = clocks.now()
    left = stages.num_layers - stages.dense_layers
    while left:
        clocks.sparse(*one)
        left -= 1
        after = clocks.now()
        moved = after - before
        before = after
        if float(np.ptp(moved)) <= SAME * float(moved.max()):
            break
    if left:
        clocks.shift(left * float(moved.max()))
    if last is not None:
        own = [stage[:, :, -1].tolist() for stage in last.arrays()]
        for _ in range(last.num_layers):
            clocks.sparse(*own)
    return np.array([max(micros) for micros in clocks.back])


def period_s(
    attention_s: ArrayLike, a2e_s: float, experts_s: float, e2a_s: float, micro_batches: int
) -> float:
    """Seconds of a layer when it goes round for ever: of all cycles of the recurrence the longest.

    attention_s [domains] of one micro-batch, sending included. A domain's dies do all its
    micro-batches in turn; a micro-batch goes through all four stages; each kernel serves every
    micro-batch of all domains.
    """
    attention = np.atleast_1d(np.asarray(attention_s, dtype=np.float64))
    through = attention.max() + a2e_s + experts_s + e2a_s
    served = len(attention) * micro_batches * max(a2e_s, experts_s, e2a_s)
    return float(max(micro_batches * attention.max(), through, served))
