"""Fabrics that the tests share, and fair rates worked out in the plainest way."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import inf

from simpod.cluster.fabric import Fabric, Graph, build_graph, degraded, freeze
from simpod.config import load_hardware
from simpod.hardware import HardwareProfile

GB = 1e9


@cache
def profile(name: str = "cloudmatrix384", num_nodes: int = 0) -> HardwareProfile:
    """A shipped profile, cut down to a few nodes if asked."""
    whole = load_hardware(name)
    return replace(whole, num_nodes=num_nodes) if num_nodes else whole


@cache
def graph(name: str = "cloudmatrix384", num_nodes: int = 0) -> Graph:
    return build_graph(profile(name, num_nodes))


@cache
def fabric(name: str = "cloudmatrix384", num_nodes: int = 0) -> Fabric:
    return freeze(graph(name, num_nodes))


def damaged(
    losses: Mapping[str, float], name: str = "cloudmatrix384", num_nodes: int = 0
) -> Fabric:
    return freeze(degraded(graph(name, num_nodes), losses))


def plain_fair_rates(
    paths: Sequence[Sequence[int]], caps: Sequence[float], capacity: Sequence[float]
) -> list[float]:
    """Raise all rates together; stop those on a full link or at their cap; go on with the rest."""
    rates = [0.0] * len(paths)
    rising = set(range(len(paths)))
    while rising:
        most = inf
        for link in {link for i in rising for link in paths[i]}:
            stopped = sum(rates[i] for i, p in enumerate(paths) if link in p and i not in rising)
            most = min(most, (capacity[link] - stopped) / sum(link in paths[i] for i in rising))
        most = min(most, *(caps[i] for i in rising), inf)
        for i in rising:
            rates[i] = most
        full = {
            link
            for link in {link for i in rising for link in paths[i]}
            if sum(r for r, p in zip(rates, paths, strict=True) if link in p)
            >= capacity[link] * (1 - 1e-12)
        }
        rising = {i for i in rising if caps[i] > most and full.isdisjoint(paths[i])}
    return rates
