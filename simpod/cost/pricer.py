"""Which pricer a layout needs."""

from typing import Protocol

from simpod.cost.expert_imbalance import LoadModel
from simpod.cost.layout import Layout
from simpod.cost.semantics import Semantics
from simpod.cost.split_step import SplitStepPricer
from simpod.cost.step import Batch, StepPricer, StepPrices
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


def step_pricer(
    model: ModelSpec,
    hardware: HardwareProfile,
    layout: Layout,
    semantics: Semantics | str | None = None,
    loads: LoadModel | None = None,
) -> Pricer:
    """Experts on dies of their own, micro-batches on two streams, or one batch on all cores."""
    if layout.expert_dies:
        return SplitStepPricer(model, hardware, layout, semantics, loads)
    if layout.micro_batches > 1:
        return StreamStepPricer(model, hardware, layout, semantics, loads)
    return StepPricer(model, hardware, layout, semantics, loads)
