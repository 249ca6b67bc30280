"""The contract of a balancer of experts: what the engine insists on, tested on random views."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from simpod.errors import blaming
from simpod.policies.roles import ExpertSlotsView, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeExpertSlots:
    """An `ExpertSlotsView` out of thin air."""

    num_dies: int
    die_of_slot: Ints
    node_of_die: Ints
    experts: Ints
    resident_tokens: Floats


def expert_views(rng: np.random.Generator, count: int) -> Iterator[tuple[Floats, FakeExpertSlots]]:
    """Random loads [layers, experts] and slots: none redundant to many; some experts idle."""
    for _ in range(count):
        dies = int(rng.choice([1, 2, 4, 6, 16]))
        experts, layers = int(rng.choice([4, 8, 16])), int(rng.integers(1, 4))
        spare = int(rng.choice([0, 1, dies, 2 * dies]))
        die_of_slot = np.sort(np.arange(experts + spare) % dies)
        load = rng.lognormal(3.0, float(rng.uniform(0.0, 2.0)), (layers, experts))
        load *= rng.random((layers, experts)) < 0.9
        load.flags.writeable = False
        order = np.tile(np.arange(experts + spare) % experts, (layers, 1))
        resident = rng.uniform(0.0, 20.0, dies) * (rng.random(dies) < 0.2)
        yield (
            load,
            FakeExpertSlots(
                num_dies=dies,
                die_of_slot=die_of_slot,
                node_of_die=np.arange(dies) * 2 // dies,
                experts=rng.permuted(order, axis=1),
                resident_tokens=resident,
            ),
        )


def placement_problems(load: Floats, slots: ExpertSlotsView, experts: Any) -> Iterator[str]:
    """What is wrong with a balancer's decision; nothing if the contract holds."""
    layers, num_experts = load.shape
    wanted = (layers, len(slots.die_of_slot))
    if not isinstance(experts, np.ndarray) or experts.dtype.kind not in "iu":
        yield f"returned {type(experts).__name__}, not an array of integers {list(wanted)}"
        return
    if experts.shape != wanted:
        yield f"returned shape {list(experts.shape)}; allowed: {list(wanted)}, one expert a slot"
        return
    if experts.min() < 0 or experts.max() >= num_experts:
        yield f"names experts {experts.min()} to {experts.max()}; allowed: 0 to {num_experts - 1}"
        return
    for layer in range(layers):
        missing = np.setdiff1d(np.arange(num_experts), experts[layer])
        if len(missing):
            yield f"layer {layer}: no slot for expert {missing[0]} ({len(missing)} in all)"


def check_expert_balancer(make: Callable[[], Any], name: str, *, views: int = 500) -> list[str]:
    """Problems found on random views, none if the contract holds.

    Every slot of every layer names an expert, every expert has a slot, and two fresh policies that
    see the same loads decide alike. A balancer serves one group all its life.
    """
    problems: list[str] = []
    for index, (load, slots) in enumerate(expert_views(np.random.default_rng(7), views)):
        with blaming(name, " on a random view"):
            first, second = make(), make()
            experts, again = first(load, slots), second(load.copy(), slots)
        found = list(placement_problems(load, slots, experts))
        problems += [f"view {index}: {problem}" for problem in found]
        if not found and not np.array_equal(experts, again):
            problems.append(f"view {index}: two fresh policies, same loads, other placements")
    return problems
