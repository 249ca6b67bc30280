"""Operators to work, work and hardware to seconds: steps, collectives, transfers, memory."""

from simpod.cost.collectives import KvTransfer, kv_bytes_per_token, kv_transfer
from simpod.cost.drafts import kept_of_chain, mean_tokens
from simpod.cost.launches import PromptLaunches
from simpod.cost.layout import Layout
from simpod.cost.memory import MemoryPlan, plan_memory
from simpod.cost.pricer import Pricer, step_pricer
from simpod.cost.step import StepPricer
from simpod.cost.step_prices import Batch, StepPrices, complete_breakdown
from simpod.cost.step_traffic import StepTraffic
from simpod.cost.traffic import ExchangeTraffic, MovingPricer
from simpod.cost.work import Pass, Product

__all__ = [
    "Batch",
    "ExchangeTraffic",
    "KvTransfer",
    "Layout",
    "MemoryPlan",
    "MovingPricer",
    "Pass",
    "Pricer",
    "Product",
    "PromptLaunches",
    "StepPricer",
    "StepPrices",
    "StepTraffic",
    "complete_breakdown",
    "kept_of_chain",
    "kv_bytes_per_token",
    "kv_transfer",
    "mean_tokens",
    "plan_memory",
    "step_pricer",
]
