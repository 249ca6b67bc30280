"""Loads of experts and use of links, as heat maps take them from a result."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from simpod.errors import ConfigError
from simpod.records.columns import Floats
from simpod.run.results import ResultFiles

if TYPE_CHECKING:
    import pandas as pd

By = Literal["die", "slot", "expert"]

BEFORE: Final = "before balancing"
AFTER: Final = "after"

_NO_EXPERTS: Final = (
    "holds no experts.parquet; a run has it whose experts have loads of their own"
    " (expert_routing, over more than one rank)"
)
_NO_LINKS: Final = (
    "holds no links.parquet; a run has it whose transfers share links"
    " (kv_transfer.contention: fabric, or shared_memory)"
)


def expert_loads(result: ResultFiles, by: By = "die") -> dict[str, dict[str, Floats]]:
    """Pool -> title -> tokens [num_layers, dies, slots or experts] of the whole run.

    By die and by slot before and after balancing, copies of the shared expert included by die;
    one of them only, where the balancer changed nothing. By expert there is no before.
    """
    if by not in get_args(By):
        raise ConfigError(f"expert load by {by!r}: needs one of {', '.join(get_args(By))}")
    if result.experts is None:
        raise ConfigError(f"{result.folder}: {_NO_EXPERTS}")
    rows = result.experts
    return {
        str(pool): _of_pool(mine, by)
        for pool, mine in rows.groupby("pool", observed=True, sort=False)
    }


def _of_pool(rows: "pd.DataFrame", by: By) -> dict[str, Floats]:
    if by != "die":
        rows = rows[rows["slot"] >= 0]
    after = _table(rows, by, "tokens")
    if by == "expert":
        return {"all slots": after}
    before = _table(rows, by, "tokens_before")
    if np.allclose(before, after, rtol=1e-9):
        return {"not balanced": after}
    return {BEFORE: before, AFTER: after}


def _table(rows: "pd.DataFrame", by: By, tokens: str) -> Floats:
    """[num_layers, n] sums; empty slots hold no expert and count for none."""
    kept = rows[rows[by] >= 0]
    layers = kept["layer"].to_numpy() - int(rows["layer"].min())
    found = np.zeros((int(layers.max()) + 1, int(kept[by].max()) + 1))
    np.add.at(found, (layers, kept[by].to_numpy()), kept[tokens].to_numpy())
    return found


def link_use(result: ResultFiles, *, peak: bool = False) -> "pd.DataFrame":
    """Plane, link, used_frac: mean over the run, or of the interval in which it was used most."""
    rows = result.links
    if rows is None:
        raise ConfigError(f"{result.folder}: {_NO_LINKS}")
    rows = rows.astype({"plane": str, "link": str})
    lasted_s = rows["time_s"] - rows["start_s"]
    whole_s = max(float(rows["time_s"].max()), np.finfo(float).tiny)
    use = rows["used_frac"] if peak else rows["used_frac"] * lasted_s / whole_s
    grouped = use.groupby([rows["plane"], rows["link"]], sort=False)
    return (grouped.max() if peak else grouped.sum()).rename("used_frac").reset_index()


def relative(load: Floats) -> Floats:
    """[num_layers, n] over the mean of each layer; 1 where a layer has nothing."""
    means = load.mean(axis=1, keepdims=True)
    found: Floats = np.divide(load, means, out=np.ones_like(load), where=means > 0)
    return found


def imbalance_of(load: Floats) -> float:
    """Most over mean, mean over layers."""
    return float(np.mean(relative(load).max(axis=1)))


def each_load(result: ResultFiles, by: By = "die") -> Mapping[str, Floats]:
    """Title -> loads of every pool, one after the other."""
    pools = expert_loads(result, by)
    alone = len(pools) == 1
    return {
        title if alone else f"{pool}, {title}": load
        for pool, loads in pools.items()
        for title, load in loads.items()
    }
