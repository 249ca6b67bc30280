"""Which experts are popular: the share of a layer's tokens that chooses each.

A popularity [num_layers, num_experts] holds inclusion probabilities: each is at most 1, because a
token chooses an expert once, and those of a layer add up to the number of experts a token chooses.
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from simpod.cost.kernels.expert_load import power_law
from simpod.errors import ConfigError
from simpod.fields import STRICT, Count, Frac, NonNegative, Positive, TaggedBy

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How the tokens of a step find their experts, whoever is popular."""

    sampling: Literal["moments", "exact"] = "moments"
    """moments: loads of four steps stand for all, prices are kept; exact: each step draws the
    top-k choices of its tokens in every sparse layer, and is priced from what each die got."""
    step_log_scale: Annotated[float, Ge(0), Le(3)] = 0.0
    """Standard deviation of the logarithm of what an expert's popularity in one step is over that
    of all steps, which balancers know: each step has other requests. 0.1: DeepSeek-R1 decoding,
    4,096 tokens a step (TensorRT-LLM's blog 4, table 1, beyond what drawing tokens gives)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedRouting(Sampled):
    """All experts are alike."""

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: Literal["balanced"] = "balanced"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipfRouting(Sampled):
    """The r-th most popular expert of a layer is chosen r^-exponent as often as the first."""

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: Literal["zipf"] = "zipf"
    exponent: NonNegative = 1.0
    """0: all alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLawRouting(Sampled):
    """AIConfigurator's `power_law_<alpha>`: weights of density x^-alpha on [1, 0.8 tokens]."""

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: Literal["power_law"] = "power_law"
    alpha: NonNegative
    """1.01 for DeepSeek, 1.2 for most others, 0.6 under EPLB (AIConfigurator's defaults)."""
    tokens: Count = 4096
    """Tokens of the group that the recipe's upper end is taken of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrelatedRouting(Sampled):
    """Log-normal popularity that differs from layer to layer and may drift.

    Logarithms are normal; with `drift_s` each wanders as an Ornstein-Uhlenbeck process, whose
    correlation over a time t is exp(-t / drift_s), in steps of `epoch_s`.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: Literal["correlated"] = "correlated"
    log_scale: NonNegative = 0.5
    """Standard deviation of the logarithm of popularity."""
    layer_correlation_frac: Frac = 0.0
    """Share of the variance that an expert of one number has in common in all layers."""
    drift_s: Positive | None = None
    """Time in which the correlation falls to 1/e; null: popularity stays as it is."""
    epoch_s: Positive = 30.0
    """How often popularity changes; each change is priced anew, which takes part of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedRouting(Sampled):
    """Loads that were recorded, and after the last record again from the first.

    A JSON or .npy file of token counts by layer and expert, or by time, layer and expert, in any
    unit: only shares count. MTP layers that it lacks have the loads of the last layer, those that a
    pool lacks are left out.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    kind: Literal["replay"] = "replay"
    path: str
    every_s: Positive = 60.0
    """Time from one record to the next."""


RoutingSpec = Annotated[
    BalancedRouting | ZipfRouting | PowerLawRouting | CorrelatedRouting | ReplayedRouting,
    TaggedBy("kind"),
]


def routing_named(name: str) -> RoutingSpec:
    """`balanced`, `zipf`, `correlated`, `power_law_<alpha>`."""
    plain: dict[str, RoutingSpec] = {
        "balanced": BalancedRouting(),
        "zipf": ZipfRouting(),
        "correlated": CorrelatedRouting(),
    }
    if name in plain:
        return plain[name]
    law, _, alpha = name.rpartition("_")
    try:
        if law == "power_law" and float(alpha) >= 0.0:
            return PowerLawRouting(alpha=float(alpha))
    except ValueError:
        pass
    raise ConfigError(
        f'unknown routing "{name}"; allowed: {", ".join(plain)}, power_law_<alpha> as in'
        " power_law_1.01, or a mapping with `kind: replay` and its path"
    )


def may_change(spec: RoutingSpec | None) -> bool:
    """Whether popularity is not the same all the time."""
    return isinstance(spec, ReplayedRouting) or (
        isinstance(spec, CorrelatedRouting) and spec.drift_s is not None
    )


class Popularity(Protocol):
    """Popularity over time."""

    def until_s(self, now_s: float) -> float:
        """When it changes next; infinity for never."""

    def at(self, now_s: float) -> Floats:
        """[num_layers, num_experts]; times must not go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterDims:
    """Of the gate of a model."""

    num_layers: int
    """Sparse layers, those of MTP last."""
    num_experts: int
    top_k: int
    mtp_layers: int = 0
    """Of `num_layers`."""
    model_mtp_layers: int = 0
    """That recordings may have."""


def after(now_s: float, every_s: float) -> float:
    """The first multiple of `every_s` after now."""
    count = now_s // every_s + 1.0
    if count * every_s <= now_s:  # rounding: 0.9 // 0.3 is 2
        count += 1.0
    return count * every_s


def inclusion(weights: Floats, top_k: int) -> Floats:
    """Shares [..., experts] in proportion to weights, none above 1, that add up to `top_k`.

    Where a share would exceed 1 it is 1, and the others share what is left.
    """
    sure = np.zeros(weights.shape, dtype=bool)
    while True:
        left = top_k - sure.sum(axis=-1, keepdims=True)
        rest = np.where(sure, 0.0, weights)
        total = rest.sum(axis=-1, keepdims=True)
        shares = np.where(sure, 1.0, rest * left / np.where(total > 0.0, total, 1.0))
        if not (shares > 1.0).any():
            return shares
        sure |= shares > 1.0


def of_step(shares: Floats, deviations: Floats) -> Floats:
    """Popularity [num_layers, num_experts] of one step, whose logarithms deviate so much from those
    of all steps (`Sampled.step_log_scale`). Experts that every token chooses stay so.
    """
    if not deviations.any():
        return shares
    top_k = round(float(shares[0].sum()))
    weights = shares * np.exp(deviations)
    certain = top_k * weights.sum(axis=-1, keepdims=True)
    return inclusion(np.where(shares < 1.0, weights, certain), top_k)


class FixedPopularity:
    """The same all the time."""

    def __init__(self, shares: Floats) -> None:
        self._shares = shares

    def until_s(self, now_s: float) -> float:
        """Never."""
        return inf

    def at(self, now_s: float) -> Floats:
        """[num_layers, num_experts]."""
        return self._shares


class ReplayedPopularity:
    """One record after the other, round and round."""

    def __init__(self, records: Floats, every_s: float) -> None:
        self._records: list[Floats] = list(records)
        self._every_s = every_s

    def until_s(self, now_s: float) -> float:
        """End of the record; never with one."""
        return after(now_s, self._every_s) if len(self._records) > 1 else inf

    def at(self, now_s: float) -> Floats:
        """[num_layers, num_experts]."""
        record: Floats = self._records[int(now_s // self._every_s) % len(self._records)]
        return record


class DriftingPopularity:
    """See `CorrelatedRouting`; the same numbers whenever it is asked."""

    def __init__(self, spec: CorrelatedRouting, dims: RouterDims, rng: np.random.Generator) -> None:
        self._spec, self._dims, self._rng = spec, dims, rng
        self._mtp_rng = rng.spawn(1)[0]  # pools without MTP have the same popularity
        self._epoch = 0
        self._keep = float(np.exp(-spec.epoch_s / spec.drift_s)) if spec.drift_s else 1.0
        self._common, self._own = self._normals()
        self._shares = self._to_shares()

    def until_s(self, now_s: float) -> float:
        """End of the epoch."""
        if self._spec.drift_s is None:
            return inf
        return after(now_s, self._spec.epoch_s)

    def at(self, now_s: float) -> Floats:
        """[num_layers, num_experts]."""
        behind = int(now_s // self._spec.epoch_s) - self._epoch if self._spec.drift_s else 0
        if behind < 0:
            raise ConfigError(f"routing: time goes back to {now_s} s")
        if behind:
            for _ in range(behind):
                self._drift()
            self._epoch += behind
            self._shares = self._to_shares()
        return self._shares

    def _normals(self) -> tuple[Floats, Floats]:
        dims = self._dims
        common = self._rng.standard_normal(dims.num_experts)
        own = self._rng.standard_normal((dims.num_layers - dims.mtp_layers, dims.num_experts))
        mtp = self._mtp_rng.standard_normal((dims.mtp_layers, dims.num_experts))
        return common, np.concatenate([own, mtp])

    def _drift(self) -> None:
        common, own = self._normals()
        fresh = float(np.sqrt(1.0 - self._keep**2))
        self._common = self._keep * self._common + fresh * common
        self._own = self._keep * self._own + fresh * own

    def _to_shares(self) -> Floats:
        common = self._spec.layer_correlation_frac
        mixed = np.sqrt(common) * self._common + np.sqrt(1.0 - common) * self._own
        return inclusion(np.exp(self._spec.log_scale * mixed), self._dims.top_k)


def popularity(spec: RoutingSpec, dims: RouterDims, rng: np.random.Generator) -> Popularity:
    """Popularity over time; which experts are the popular ones differs from layer to layer."""
    shape = (dims.num_layers, dims.num_experts)
    if isinstance(spec, CorrelatedRouting):
        return DriftingPopularity(spec, dims, rng)
    if isinstance(spec, ReplayedRouting):
        records = inclusion(_records(spec, dims), dims.top_k)
        return ReplayedPopularity(records, spec.every_s)
    if isinstance(spec, ZipfRouting):
        ranked = np.arange(1.0, dims.num_experts + 1.0) ** -spec.exponent
        weights = rng.permuted(np.tile(ranked, (dims.num_layers, 1)), axis=1)
    elif isinstance(spec, PowerLawRouting):
        weights = power_law(rng.random(shape), low=1.0, high=0.8 * spec.tokens, alpha=spec.alpha)
    else:
        weights = np.ones(shape)
    return FixedPopularity(inclusion(weights, dims.top_k))


def _records(spec: ReplayedRouting, dims: RouterDims) -> Floats:
    """[times, layers, experts] of a file."""
    import json

    path = Path(spec.path)
    try:
        raw = np.load(path) if path.suffix == ".npy" else json.loads(path.read_text("utf-8"))
        loads = np.asarray(raw, dtype=np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"routing: can't read expert loads from {path}: {error}") from error
    if loads.ndim == 2:
        loads = loads[np.newaxis]
    own = dims.num_layers - dims.mtp_layers
    most = own + max(dims.mtp_layers, dims.model_mtp_layers)
    is_known = loads.ndim == 3 and own <= loads.shape[1] <= most
    if not is_known or loads.shape[2] != dims.num_experts:
        mtp = f" (to {most} with those of MTP)" if most > own else ""
        raise ConfigError(
            f"routing: {path} has shape {list(loads.shape)}, the model needs [times],"
            f" {own} sparse layers{mtp}, {dims.num_experts} experts"
        )
    missing = max(0, dims.num_layers - loads.shape[1])
    loads = np.concatenate([loads, *[loads[:, -1:]] * missing], axis=1)[:, : dims.num_layers]
    if not (loads >= 0.0).all() or ((loads > 0.0).sum(axis=-1) < dims.top_k).any():
        raise ConfigError(
            f"routing: {path}: loads must be >= 0, and at least {dims.top_k} of each layer above 0"
        )
    return loads
