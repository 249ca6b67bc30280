"""Where the time of each sparse layer of one step goes, and that of each die.

Where stages overlap, work of the experts and the wait for them may be hidden behind attention of
other micro-batches; `idle_s` is what is not. So attention of the mean die, `dispatch_wait_s` and
`idle_s` of all layers add up to the step's time in layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simpod.cost.die_waits import DieExchanges
from simpod.cost.expert_imbalance import DieTimes
from simpod.cost.pipeline.disaggregated import SplitStages, SplitTimes
from simpod.cost.pipeline.streams import StreamTimes
from simpod.cost.work import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerTimes:
    """Sparse layers, MTP ones last [layers]: means over dies, all micro-batches together."""

    dispatch_s: Floats
    """A2E, its first stage included, where experts have dies of their own; `combine_s`: E2A."""
    dispatch_wait_s: Floats
    """For the slowest rank."""
    experts_s: Floats
    combine_s: Floats
    combine_wait_s: Floats
    """For the die that takes longest from dispatch to combine."""
    idle_s: Floats
    """Of dies with attention: what is not hidden of the experts, and the wait for their turn."""
    die_experts_s: Floats
    """[dies with experts], all sparse layers."""
    die_combine_wait_s: Floats
    """[dies with experts], all sparse layers."""
    die_dispatch_wait_s: Floats
    """[dies with attention], all sparse layers."""


def of_dies(drawn: DieExchanges) -> LayerTimes:
    """Of one batch of all, which hides nothing."""
    dispatch_s = (drawn.dispatch_s - drawn.dispatch_wait_s).mean(axis=1)
    experts_s = drawn.experts_s.mean(axis=1)
    combine_s = drawn.combine_s.mean(axis=1)
    combine_wait_s = drawn.combine_wait_s.mean(axis=1)
    return LayerTimes(
        dispatch_s=dispatch_s,
        dispatch_wait_s=drawn.dispatch_wait_s.mean(axis=1),
        experts_s=experts_s,
        combine_s=combine_s - combine_wait_s,
        combine_wait_s=combine_wait_s,
        idle_s=dispatch_s + experts_s + combine_s,
        die_experts_s=drawn.experts_s.sum(axis=0),
        die_combine_wait_s=drawn.combine_wait_s.sum(axis=0),
        die_dispatch_wait_s=drawn.dispatch_wait_s.sum(axis=0),
    )


def of_streams(
    first_s: Floats, rank_s: Floats, gate_s: Floats, micro_dies: Sequence[DieTimes]
) -> LayerTimes:
    """Of two streams of a die.

    first_s [num_layers]: attention, as priced for every micro-batch. rank_s [micro_batches, ranks]:
    what ranks take for a sparse layer. gate_s [micro_batches]: on the second stream, of one layer.
    micro_dies: work of the dies for each micro-batch.
    """
    dispatch_s, experts_s, combine_s = (
        np.stack([getattr(dies, name) for dies in micro_dies])
        for name in ("dispatch_s", "experts_s", "combine_s")
    )
    through_s = dispatch_s + experts_s + combine_s
    last_s = through_s.max(axis=2)
    num_micro, num_sparse, num_dies = through_s.shape
    second_s = np.zeros((num_micro, len(first_s)))
    second_s[:, -num_sparse:] = last_s + gate_s[:, np.newaxis]
    times = StreamTimes.of(np.broadcast_to(first_s, second_s.shape), second_s)
    idle_s = _idle_s(times.attention_end_s - first_s, times.attention_end_s, float(times.total_s))
    waits_s, late_s = last_s[..., np.newaxis] - through_s, first_s[-1] - rank_s
    return LayerTimes(
        dispatch_s=dispatch_s.mean(axis=2).sum(axis=0),
        dispatch_wait_s=np.full(num_sparse, late_s.mean(axis=1).sum()),
        experts_s=experts_s.mean(axis=2).sum(axis=0),
        combine_s=combine_s.mean(axis=2).sum(axis=0),
        combine_wait_s=waits_s.mean(axis=2).sum(axis=0),
        idle_s=idle_s[-num_sparse:],
        die_experts_s=experts_s.sum(axis=(0, 1)),
        die_combine_wait_s=waits_s.sum(axis=(0, 1)),
        die_dispatch_wait_s=np.repeat(num_sparse * late_s.sum(axis=0), num_dies // late_s.shape[1]),
    )


def of_halves(
    stages: SplitStages, times: SplitTimes, rank_s: Floats, die_s: Floats, dies_per_rank: int
) -> LayerTimes:
    """Of attention dies and expert dies.

    rank_s [domains, micro_batches, ranks of a domain]: what ranks take for a sparse layer, without
    sending. die_s [domains, micro_batches, sparse layers, expert dies]: their experts.
    As in the parts of a step, what slower domains take longer is waited for first (`exposed`).
    """
    attention_s, sending_s, a2e_s, _, e2a_s = stages.arrays()
    sparse = slice(stages.dense_layers, None)
    sent_s = times.attention_end_s.copy()
    sent_s[..., sparse] += sending_s[..., sparse]
    began_s = times.attention_end_s - attention_s
    gaps_s = [_idle_s(*each, times.total_s) for each in zip(began_s, sent_s, strict=True)]
    idle_s = np.mean(gaps_s, axis=0)[sparse]
    domain_s = (attention_s + sending_s)[..., -1].sum(axis=1)
    late_s = domain_s.max() - (rank_s + sending_s[..., -1:]).sum(axis=1)  # [domains, ranks]
    behind_s = len(idle_s) * float(domain_s.max() - domain_s.mean())
    frac = behind_s / max(behind_s, float(idle_s.sum())) if behind_s > 0.0 else 0.0
    own_s = float((attention_s[..., -1].sum(axis=1) - rank_s.sum(axis=1).mean(axis=1)).mean())
    slowest_s = die_s.max(axis=3)

    def mean(seconds: Floats) -> Floats:
        return np.asarray(seconds.sum(axis=1).mean(axis=0))

    return LayerTimes(
        dispatch_s=mean((sending_s + a2e_s)[..., sparse]),
        dispatch_wait_s=own_s + frac * idle_s,
        experts_s=mean(die_s.mean(axis=3)),
        combine_s=mean(e2a_s[..., sparse]),
        combine_wait_s=mean(slowest_s - die_s.mean(axis=3)),
        idle_s=(1.0 - frac) * idle_s,
        die_experts_s=die_s.sum(axis=(0, 1, 2)),
        die_combine_wait_s=(slowest_s[..., np.newaxis] - die_s).sum(axis=(0, 1, 2)),
        die_dispatch_wait_s=np.repeat(len(idle_s) * late_s.ravel(), dies_per_rank),
    )


def _idle_s(begin_s: Floats, end_s: Floats, total_s: float) -> Floats:
    """[layers]: of dies that take micro-batch 0, 1, ... of layer 0, then of layer 1, ...

    From begin_s to end_s [micro_batches, layers]; what comes before a layer is the wait for the
    experts of the one before, and after the last layer for all.
    """
    began, ended = begin_s.T.ravel(), end_s.T.ravel()
    gaps = np.append(began[1:], total_s) - ended
    before_s = np.append(0.0, gaps).clip(0.0)[:-1].reshape(begin_s.T.shape).sum(axis=1)
    return np.append(before_s[1:], max(float(gaps[-1]), 0.0))
