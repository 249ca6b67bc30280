"""The best placement of experts that there is, where the size allows, and a bound where not."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

from simpod.policies.expert_packing import (
    copies_by_hottest,
    fullest_die,
    placed,
    slots_of_die,
    tokens_per_copy,
)
from simpod.policies.experts.deepseek_eplb import DeepSeekEplb
from simpod.policies.roles import ExpertSlotsView, Floats, Ints

ROUNDING = 1e-9
"""Of a bound, that a solver's tokens may be above what is best."""


def load_bound(load: Floats, slots: ExpertSlotsView) -> Floats:
    """[layers]: tokens that the fullest die has at least, whatever the placement.

    The mean over dies (tokens of shared copies included), or the hottest copy when copies are
    given where they help most. Reached if each die has one slot for a routed expert and no other.
    """
    held = copies_by_hottest(load, len(slots.die_of_slot))
    mean = (load.sum(axis=1) + float(np.sum(slots.resident_tokens))) / slots.num_dies
    return np.asarray(np.maximum(mean, tokens_per_copy(load, held).max(axis=1)))


@dataclass(slots=True)
class Optimum:
    """The least tokens of the fullest die, by a mixed-integer linear program (needs scipy).

    To compare others with; it takes seconds a layer.

    minimise M; y[e, c] = 1: expert e has c copies, x[e, c, d] of them on die d;
    sum over c of y = 1, sum over d of x = c y, sum of x on d = slots of d,
    M >= resident tokens + sum of load / c x on d.
    A layer of more than `max_variables` gets the better of two heuristics instead. A run says where
    what was found is not shown to be within `gap_frac` of the best.

    Source: the problem of EPLB (xDeepServe, arXiv:2508.02520, 4.5) as a linear program; HiGHS.
    Sees: tokens of each expert in each layer since the last decision.
    """

    node_limit: int = 20
    """Of the search in one layer, at least 1: the best placement found by then counts. Not a limit
    of time, which would make the answer depend on the machine."""

    gap_frac: float = 0.01
    """How far from the optimum is near enough; at least 0."""

    max_variables: int = 600
    """Of one layer; at least 1."""

    note: str = field(default="", init=False)
    """Layers of the last decision for which a better one may exist."""

    def __post_init__(self) -> None:
        if find_spec("scipy") is None:
            raise ValueError("it needs scipy: pip install 'simpod[fit]'")
        if self.node_limit < 1:
            raise ValueError(f"node_limit: must be >= 1, got {self.node_limit}")
        if not self.gap_frac >= 0:
            raise ValueError(f"gap_frac: must be >= 0, got {self.gap_frac}")
        if self.max_variables < 1:
            raise ValueError(f"max_variables: must be >= 1, got {self.max_variables}")

    def __call__(self, load: Floats, slots: ExpertSlotsView) -> Ints:
        load = np.asarray(load, dtype=np.float64)
        found = _better(load, slots)
        most = _most_copies(load, slots)
        bound = load_bound(load, slots)
        size = load.shape[1] * most * (slots.num_dies + 1)
        open_layers = self._open(load, found, slots, bound)
        for layer in open_layers if size <= self.max_variables else ():
            solved, least = self._solve(load[layer], slots, most)
            bound[layer] = max(bound[layer], least)
            if solved is not None:
                both = np.stack([found[layer], solved])
                pair = np.stack([load[layer], load[layer]])
                found[layer] = both[fullest_die(pair, both, slots).argmin()]
        open_layers = self._open(load, found, slots, bound)
        self.note = ""
        if len(open_layers):
            over = fullest_die(load, found, slots)[open_layers] / bound[open_layers]
            self.note = (
                f"{len(open_layers)} of {len(load)} layers may have a better placement: their"
                f" fullest die is up to {over.max():.3g} times a lower bound (a layer's program has"
                f" {size:,} variables; max_variables {self.max_variables:,}, node_limit"
                f" {self.node_limit})"
            )
        return found

    def _open(self, load: Floats, found: Ints, slots: ExpertSlotsView, bound: Floats) -> Ints:
        """Layers whose placement may not be the best."""
        enough = bound * (1.0 + self.gap_frac + ROUNDING)
        return np.flatnonzero(fullest_die(load, found, slots) > enough)

    def _solve(self, load: Floats, slots: ExpertSlotsView, most: int) -> tuple[Ints | None, float]:
        """[num_slots] of one layer, None if nothing was found in time; a bound from below."""
        from scipy.optimize import milp

        experts, dies = len(load), slots.num_dies
        result = milp(
            **_program(load, slots, most),
            options={"node_limit": self.node_limit, "mip_rel_gap": self.gap_frac},
        )
        least = float(result.mip_dual_bound or 0.0)
        if result.x is None:
            return None, least
        x = np.asarray(result.x)[1 + experts * most :].reshape(experts, most, dies)
        on_die = np.rint(x.sum(axis=1)).astype(np.int64)  # [experts, dies]
        held = [np.repeat(np.arange(experts), on_die[:, die]) for die in range(dies)]
        return np.concatenate(held), least


def _most_copies(load: Floats, slots: ExpertSlotsView) -> int:
    """Copies of one expert that are thought of: not two on a die, unless slots are too many."""
    num_slots, experts = len(slots.die_of_slot), load.shape[1]
    return int(min(max(slots.num_dies, -(-num_slots // experts)), num_slots - experts + 1))


def _better(load: Floats, slots: ExpertSlotsView) -> Ints:
    """Of each layer, the better of global balancing and packing with copies apart."""
    held = copies_by_hottest(load, len(slots.die_of_slot))
    first, second = placed(load, held, slots), DeepSeekEplb()(load, slots)
    is_first = fullest_die(load, first, slots) <= fullest_die(load, second, slots)
    return np.where(is_first[:, np.newaxis], first, second)


def _program(load: Floats, slots: ExpertSlotsView, most: int) -> dict[str, Any]:
    """Arguments of `milp`; variables M, y [experts, most], x [experts, most, dies]."""
    from scipy.optimize import Bounds, LinearConstraint
    from scipy.sparse import csr_array, eye_array, hstack, kron, vstack

    experts, dies = len(load), slots.num_dies
    pairs, count = experts * most, np.arange(1, most + 1)
    nothing = csr_array((experts + pairs, 1))
    one_each = kron(eye_array(experts), np.ones((1, most)))
    spread = kron(eye_array(pairs), np.ones((1, dies)))
    counts = -np.tile(count, experts)
    equal = hstack(
        [
            nothing,
            vstack([one_each, eye_array(pairs) * counts]),
            vstack([csr_array((experts, pairs * dies)), spread]),
        ]
    )
    tokens = np.repeat(load, most) / np.tile(count, experts)
    per_die = kron(tokens[np.newaxis], eye_array(dies))
    filled = kron(np.ones((1, pairs)), eye_array(dies))
    below = hstack([-np.ones((dies, 1)), csr_array((dies, pairs)), per_die])
    room = hstack([csr_array((dies, 1 + pairs)), filled])
    required = np.concatenate([np.ones(experts), np.zeros(pairs)])
    capacity = slots_of_die(slots).astype(np.float64)
    size = 1 + pairs + pairs * dies
    upper = np.concatenate([[np.inf], np.ones(pairs), np.repeat(np.tile(count, experts), dies)])
    return {
        "c": np.eye(1, size)[0],
        "integrality": np.concatenate([[0], np.ones(size - 1)]),
        "bounds": Bounds(np.zeros(size), upper),
        "constraints": [
            LinearConstraint(csr_array(equal), required, required),
            LinearConstraint(
                csr_array(below), -np.inf, -np.asarray(slots.resident_tokens, dtype=np.float64)
            ),
            LinearConstraint(csr_array(room), capacity, capacity),
        ],
    }
