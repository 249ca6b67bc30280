"""Transfers driven by the clock: the same ends as a flow table alone, by hand and at random."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from fabric_cases import GB, fabric, graph, profile
from hypothesis import given, settings
from hypothesis import strategies as st

from simpod.cluster.fabric import Fabric, Flow, FlowTable, freeze, whole_fabric
from simpod.config import load_hardware, names
from simpod.engine.clock import DELIVER, Clock
from simpod.engine.link_use import plane_records
from simpod.engine.network import Network, Operation

Job = tuple[float, int, int, float, float]  # when, from, to, bytes, most


def run(
    jobs: Sequence[Job], where: Fabric, sample_s: float | None = None
) -> tuple[list[float], Network]:
    """The ends of single flows, each started on its own."""
    clock = Clock()
    network = Network(clock, where, sample_s)
    ends = [0.0] * len(jobs)

    def begin(index: int) -> None:
        _, source, destination, size, most = jobs[index]

        def note(_: Operation) -> None:
            ends[index] = clock.now

        part = network.part(source, destination, "scale_up", size, most)
        network.send([part], 0.0, note)

    for index, job in enumerate(jobs):
        clock.call_at(job[0], DELIVER, lambda index=index: begin(index))
    clock.run()
    network.catch_up_samples()
    return ends, network


def by_table(jobs: Sequence[Job], where: Fabric) -> list[float]:
    """The same without the network: every flow in the table from the start."""
    table = FlowTable(where)
    ends = [0.0] * len(jobs)
    job_of = {}
    waiting = sorted(range(len(jobs)), key=lambda index: jobs[index][0])
    while waiting or len(table):
        first = table.next_completion()
        if waiting and (first is None or jobs[waiting[0]][0] < first[0]):
            index = waiting.pop(0)
            when, source, destination, size, most = jobs[index]
            flow = Flow(source=source, destination=destination, size_bytes=size, bytes_per_s=most)
            job_of[table.start(when, flow)] = index
        else:
            assert first is not None
            table.finish(*first)
            ends[job_of[first[1]]] = first[0]
    return ends


def test_a_transfer_alone_takes_start_up_and_bytes_over_rate() -> None:
    clock = Clock()
    network = Network(clock, fabric(num_nodes=2))
    done = []
    part = network.part(0, 16, "scale_up", 3 * GB, 150 * GB)
    operation = network.send([part], 0.5, lambda _: done.append(clock.now))
    clock.run()
    assert done == [0.5 + 3 / 150]
    assert operation.alone_s == operation.end_s == done[0]


def test_two_into_one_die_share_its_ports() -> None:
    """196 GB/s for two that could take 150 each; the second is half done when the first ends."""
    ends, _ = run(
        [(0.0, 0, 16, 98 * GB, 150 * GB), (0.0, 1, 16, 196 * GB, 150 * GB)], fabric(num_nodes=2)
    )
    assert ends == pytest.approx([1.0, 1.0 + 98 / 150])


def test_a_newcomer_slows_who_is_under_way() -> None:
    """Alone for 1 s at 150, then both at 98; nobody else is moved into the table."""
    jobs = [
        (0.0, 0, 16, 248 * GB, 150 * GB),
        (1.0, 1, 16, 294 * GB, 150 * GB),
        (0.0, 4, 20, 600 * GB, 150 * GB),
    ]
    ends, network = run(jobs, fabric(num_nodes=2))
    assert ends == pytest.approx([2.0, 2.0 + 196 / 150, 4.0])
    assert network.carried_bytes(5.0).sum() == pytest.approx(sum(job[3] for job in jobs) * 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_ends_are_those_of_the_flow_table(number: int) -> None:
    """Few dies, many transfers: most links fill up now and then."""
    rng = np.random.default_rng(number)
    where = fabric(num_nodes=2)
    jobs: list[Job] = []
    for _ in range(int(rng.integers(1, 40))):
        source, destination = rng.choice(12, 2, replace=False) * 2 + rng.integers(0, 2)
        size, most = float(rng.exponential(40 * GB)), float(rng.choice([20, 70, 150])) * GB
        jobs.append((float(rng.uniform(0, 3)), int(source), int(destination), size, most))
    ends, network = run(jobs, where)
    np.testing.assert_allclose(ends, by_table(jobs, where), rtol=1e-9)
    sent = network.carried_bytes(1e6)[where.link_kind == 0].sum()
    assert sent == pytest.approx(sum(job[3] for job in jobs))
    assert not any(network._users)
    assert not any(network._promised)


def test_samples_add_up_to_the_bytes() -> None:
    jobs = [
        (0.0, 0, 16, 98 * GB, 150 * GB),
        (0.25, 1, 16, 196 * GB, 150 * GB),
        (1.0, 3, 17, 10 * GB, 5 * GB),
    ]
    ends, network = run(jobs, fabric(num_nodes=2), sample_s=0.25)
    samples = network.samples
    assert samples.time_s == pytest.approx(np.arange(1, len(samples.time_s) + 1) * 0.25)
    assert 0.0 <= max(ends) - samples.time_s[-1] < 0.25
    planes = plane_records(network)
    rows = planes.plane == network.fabric.plane_names.index("scale_up")
    sent = planes.bytes_per_s[rows].sum() * 0.25
    rest = (max(ends) - samples.time_s[-1]) * 5 * GB
    assert sent == pytest.approx(sum(job[3] for job in jobs) - rest)
    assert planes.busiest_frac[rows].max() == pytest.approx(1.0)


def test_the_parts_of_one_operation_end_as_in_the_flow_table() -> None:
    """Nine parts into two dies, sizes apart; the operation ends with the last of them."""
    clock = Clock()
    network = Network(clock, fabric(num_nodes=2))
    done = []
    sizes = np.arange(1, 10) * GB
    parts = [network.part(i, 16 + i % 2, "scale_up", s, 60 * GB) for i, s in enumerate(sizes)]
    network.send(parts, 0.0, lambda _: done.append(clock.now))
    clock.run()
    exact = by_table(
        [(0.0, i, 16 + i % 2, s, 60 * GB) for i, s in enumerate(sizes)], fabric(num_nodes=2)
    )
    assert [part.end_s for part in parts] == pytest.approx(exact, rel=1e-12)
    assert done == [max(part.end_s for part in parts)]


@pytest.mark.parametrize("name", names("hardware_profiles"))
def test_a_whole_fabric_needs_no_graph(name: str) -> None:
    whole = load_hardware(name)
    cut = replace(whole, num_nodes=min(whole.num_nodes, 6)) if name != "cloudmatrix384" else whole
    by_graph, direct = (
        freeze(graph(name, cut.num_nodes)),
        whole_fabric(profile(name, cut.num_nodes)),
    )
    for field in fields(by_graph):
        mine, other = getattr(by_graph, field.name), getattr(direct, field.name)
        if field.name != "planes":
            np.testing.assert_array_equal(mine, other, err_msg=field.name)
    assert list(by_graph.planes) == list(direct.planes)
    for plane, arrays in by_graph.planes.items():
        for field in fields(arrays):
            other = getattr(direct.planes[plane], field.name)
            np.testing.assert_array_equal(getattr(arrays, field.name), other, err_msg=field.name)
