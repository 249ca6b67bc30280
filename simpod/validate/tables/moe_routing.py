"""The routing that the measured MoE tables were collected with, as expert loads of their die.

AIConfigurator times rank 0 of an expert group. Its `balanced` tokens take experts at a fixed
stride, from the first one on; under `power_law_<alpha>` rank 0 is the hottest rank. The time is of
one die that sees the tokens of the whole group and drops the pairs of other dies, with two
exceptions, which are properties of the benchmark and not of a deployment:

* local: SGLang's collector passes the tokens that touch rank 0 with all their pairs, those of
  other ranks redirected to its first expert with weight 0, and the kernels multiply them;
* limited: the min-latency kernels route through DeepSeek's gate, which keeps 4 of 8 groups of
  experts. With scores of two values it breaks ties towards the lowest index, so that tokens whose
  experts lie in more groups crowd into the first ones.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simpod.cost.kernels.expert_load import filled, hottest_loads, popular_loads

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Router = Literal["all", "local", "limited"]

GROUPS = 8
KEPT_GROUPS = 4
LIMITED_DRAWS = 4
LIMITED_TOKENS = 128


def balanced_choices(num_tokens: int, num_experts: int, topk: int) -> Ints:
    """Experts [tokens, topk]: token t takes t + i ceil(E / k), fewer are spread over it."""
    stride = -(-num_experts // topk)
    token, choice = np.arange(num_tokens)[:, None], np.arange(topk)[None, :]
    if num_tokens >= stride:
        return (token + choice * stride) % num_experts
    return ((token * stride / num_tokens + choice * stride) % num_experts).astype(np.int64)


def limited(choices: Ints, num_experts: int) -> Ints:
    """Experts [tokens, topk] after DeepSeek's gate has kept 4 of 8 groups.

    A group's score is the sum of its two best experts, so the number of the token's own experts
    there, at most 2 (nothing, where groups have one expert). Free places go to the first experts
    of the first group that is kept.
    """
    per_group = num_experts // GROUPS
    group = choices // per_group
    own = (group[..., None] == np.arange(GROUPS)).sum(1)
    score = np.minimum(own, 2) if per_group > 1 else np.zeros_like(own)
    kept = np.argsort(-score, axis=1, kind="stable")[:, :KEPT_GROUPS]
    is_kept = np.zeros(own.shape, dtype=bool)
    np.put_along_axis(is_kept, kept, True, axis=1)
    stays = np.take_along_axis(is_kept, group, axis=1)
    order = np.argsort(~stays, axis=1, kind="stable")
    spare = kept.min(1, keepdims=True) * per_group + np.arange(2 * choices.shape[1])
    is_own = (spare[..., None] == choices[:, None, :]).any(-1)
    spare = np.take_along_axis(spare, np.argsort(is_own, axis=1, kind="stable"), axis=1)
    place = np.arange(choices.shape[1]) - stays.sum(1, keepdims=True)
    filler = np.take_along_axis(spare, np.maximum(place, 0), axis=1)
    return np.where(place < 0, np.take_along_axis(choices, order, axis=1), filler)


def assigned(counts: Floats, num_tokens: int, topk: int) -> Ints:
    """Experts [sample, topk] of a sample of tokens with `counts` [experts], most popular first.

    The collector lays experts in a row, each as often as it has tokens, and fills the choices of
    all tokens column by column.
    """
    order = np.argsort(-counts, kind="stable")
    ends = np.cumsum(counts[order])
    sample = min(num_tokens, LIMITED_TOKENS)
    token = np.unique(np.linspace(0, num_tokens - 1, sample).astype(int))[:, None]
    place = (np.arange(topk) * num_tokens + token + 0.5) * ends[-1] / (num_tokens * topk)
    at = np.minimum(np.searchsorted(ends, place), len(counts) - 1)
    return np.asarray(order[at], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the rows of a table share that are routed alike."""

    num_experts: int
    topk: int
    ep_size: int
    alpha: float | None
    """Exponent of the power law; None if balanced."""
    router: Router

    @property
    def num_slots(self) -> int:
        """Experts of rank 0."""
        return self.num_experts // self.ep_size


def rank0(choices: Ints, layout: Layout, num_tokens: int) -> Floats:
    """Tokens [slots] of each expert of rank 0, from the choices [sample, topk] of some tokens."""
    counts = np.bincount(choices.ravel(), minlength=layout.num_experts)[: layout.num_slots]
    return np.asarray(counts * (num_tokens / len(choices)), dtype=np.float64)


def limited_popular(num_tokens: Ints, layout: Layout, alpha: float) -> Floats:
    """Loads [n, draws, slots] of rank 0: a power law, then DeepSeek's gate."""
    loads, total = popular_loads(
        num_tokens,
        num_experts=layout.num_experts,
        topk=layout.topk,
        ep_size=layout.ep_size,
        alpha=alpha,
    )
    loads, total = loads[:, :LIMITED_DRAWS], total[:, :LIMITED_DRAWS]
    loads = filled(loads, total, num_tokens.reshape(-1, 1, 1).astype(np.float64))
    ranks = np.arange(layout.ep_size)
    hottest = total.argmax(-1)[..., None]
    swapped = np.where(ranks == 0, hottest, np.where(ranks == hottest, 0, ranks))
    loads = np.take_along_axis(loads, swapped[..., None], axis=2)

    def routed(counts: Floats, tokens: int) -> Floats:
        choices = assigned(counts.ravel(), tokens, layout.topk)
        return rank0(limited(choices, layout.num_experts), layout, tokens)

    return np.array(
        [
            [routed(counts, int(n)) for counts in draws]
            for n, draws in zip(num_tokens, loads, strict=True)
        ]
    )


def balanced_loads(num_tokens: Ints, layout: Layout) -> tuple[Floats, Floats]:
    """Loads [n, 1, slots] of rank 0 and tokens [n, 1] with an expert there, at a fixed stride."""
    loads, touching = [], []
    for n in num_tokens:
        choices = balanced_choices(int(n), layout.num_experts, layout.topk)
        if layout.router == "limited":
            choices = limited(choices, layout.num_experts)
        loads.append([rank0(choices, layout, int(n))])
        touching.append([float((choices < layout.num_slots).any(1).sum())])
    return np.array(loads), np.array(touching)


def popular_rank(num_tokens: Ints, layout: Layout, alpha: float) -> tuple[Floats, Floats]:
    """Loads [n, draws, slots] of the hottest rank and tokens [n, draws] with an expert there.

    The latter as if experts were chosen independently: n (1 - product of (1 - load / n)).
    """
    loads = hottest_loads(
        num_tokens,
        num_experts=layout.num_experts,
        topk=layout.topk,
        ep_size=layout.ep_size,
        alpha=alpha,
    )
    tokens = num_tokens.astype(np.float64)[:, None]
    share = np.minimum(loads / tokens[..., None], 1.0)
    touching = tokens * (1.0 - np.prod(1.0 - share, axis=-1))
    pairs = loads.sum(-1)
    return loads, np.clip(touching, pairs / layout.topk, pairs)


def table_loads(num_tokens: Ints, layout: Layout) -> tuple[Floats, Floats]:
    """Loads [n, draws, slots] of rank 0 and the tokens [n] that its kernels see."""
    everyone = num_tokens.astype(np.float64)
    if layout.alpha is not None and layout.router == "limited":
        return limited_popular(num_tokens, layout, layout.alpha), everyone
    if layout.alpha is None:
        loads, touching = balanced_loads(num_tokens, layout)
    else:
        loads, touching = popular_rank(num_tokens, layout, layout.alpha)
    if layout.router != "local" or layout.ep_size == 1:
        return loads, everyone
    redirected = np.maximum(touching * layout.topk - loads.sum(-1), 0.0)
    loads[..., 0] += redirected
    return loads, touching.mean(-1)
