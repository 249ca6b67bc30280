"""Which pricer a layout needs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from simpod.cost.die_waits import Meetings, die_exchanges
from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.layer_times import LayerTimes, of_dies
from simpod.cost.layout import Layout
from simpod.cost.pipeline.disaggregated import SplitTimes
from simpod.cost.semantics import Semantics
from simpod.cost.split_step import SplitStepPricer
from simpod.cost.step import StepPricer
from simpod.cost.step_prices import Batch, StepPrices
from simpod.cost.stream_step import StreamStepPricer
from simpod.hardware.spec import HardwareProfile
from simpod.model.spec import ModelSpec


class Pricer(Protocol):
    """Prices the steps of one lock-step group."""

    mtp_share: float
    """Of attention: what MTP layers take."""

    def price(self, batch: Batch, /) -> StepPrices:
        """The next step, and those after it while nothing joins, leaves or sends a prompt."""

    def renew(self, loads: LoadModel, /) -> None:
        """From now on experts have these loads."""


class SmallBatchPricer:
    """Micro-batches where they pay: a small step goes through the layers as one batch.

    Two micro-batches read all weights twice. An engine with both graphs picks by the tokens of a
    step, as vLLM does (dbo_decode_token_threshold); here of the fullest rank, which is waited for.
    """

    def __init__(self, split: Pricer, make_whole: Callable[[], Pricer], layout: Layout) -> None:
        """make_whole: called with the first small step; most groups never have one."""
        self.mtp_share = split.mtp_share
        self._split, self._make_whole = split, make_whole
        self._whole: Pricer | None = None
        self._loads: LoadModel | None = None
        self._tokens_per_decode = layout.tokens_per_decode
        self._most_tokens = layout.micro_batch_tokens

    def price(self, batch: Batch) -> StepPrices:
        """The next step."""
        return self.of(batch).price(batch)

    def of(self, batch: Batch) -> Pricer:
        """Who prices this step."""
        tokens = batch.decode_seqs * self._tokens_per_decode + batch.prefill_tokens
        if tokens.max() > self._most_tokens:
            return self._split
        if self._whole is None:
            self._whole = self._make_whole()
            if self._loads is not None:
                self._whole.renew(self._loads)
        return self._whole

    def renew(self, loads: LoadModel) -> None:
        """From now on experts have these loads."""
        self._loads = loads
        self._split.renew(loads)
        if self._whole is not None:
            self._whole.renew(loads)


def step_pricer(
    model: ModelSpec,
    hardware: HardwareProfile,
    layout: Layout,
    semantics: Semantics | str | None = None,
    loads: LoadModel | None = None,
) -> Pricer:
    """Experts on dies of their own, micro-batches on two streams, or one batch on all cores."""

    def pricer(of: Layout) -> Pricer:
        if of.expert_dies:
            return SplitStepPricer(model, hardware, of, semantics, loads)
        if of.micro_batches > 1:
            return StreamStepPricer(model, hardware, of, semantics, loads)
        return StepPricer(model, hardware, of, semantics, loads)

    if layout.micro_batches > 1 and layout.micro_batch_tokens:
        seqs = max(1, layout.micro_batch_tokens // layout.tokens_per_decode)
        whole = replace(layout, micro_batches=1, max_num_seqs=min(layout.max_num_seqs, seqs))
        return SmallBatchPricer(pricer(layout), lambda: pricer(whole), layout)
    return pricer(layout)


def meetings_of(pricer: Pricer, batch: Batch) -> Meetings | None:
    """What dies bring to the sparse layers of a step; None where nobody waits for one batch of all.

    So with micro-batches, with experts on dies of their own, and where `StepPricer.meetings` is.
    """
    own = _own(pricer, batch)
    return own.meetings(batch) if isinstance(own, StepPricer) else None


def layer_times_of(pricer: Pricer, batch: Batch) -> LayerTimes | None:
    """Where the time of each sparse layer and die goes; of one batch of all, as one step is drawn.

    None where dies send nothing to each other or gather all tokens, and for prompts alone on the
    three engines of a die.
    """
    own = _own(pricer, batch)
    if isinstance(own, SplitStepPricer | StreamStepPricer):
        return own.layer_times(batch)
    meetings = meetings_of(own, batch)
    return None if meetings is None else of_dies(die_exchanges(meetings))


def halves_of(pricer: Pricer, batch: Batch) -> SplitTimes | None:
    """What attention dies and expert dies do in the layers of a step; None where dies do both."""
    own = _own(pricer, batch)
    return own.halves(batch) if isinstance(own, SplitStepPricer) else None


def _own(pricer: Pricer, batch: Batch) -> Pricer:
    return pricer.of(batch) if isinstance(pricer, SmallBatchPricer) else pricer
