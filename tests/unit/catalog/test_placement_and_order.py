"""Where jobs go and in which order: invariants of placement, waves, ports, versions and amounts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maand_catalog.rules.build.deployment_seq import deployment_sequence, find_cycles
from maand_catalog.rules.build.placement import place_jobs
from maand_catalog.rules.build.ports import PortRequest, assign_ports
from maand_catalog.rules.workspace.bucket_facts import PortPool, WorkerFacts
from maand_catalog.rules.workspace.manifest import Manifest
from maand_catalog.rules.workspace.problems import Rejected
from maand_catalog.rules.workspace.written_values import is_version_within, parse_cpu_mhz, parse_memory_mb, parse_version

LABELS = st.frozensets(st.sampled_from(["a", "b", "c"]), max_size=3)
JOBS = st.dictionaries(st.sampled_from("pqrstu"), LABELS.filter(bool), max_size=6)
GRAPHS = st.dictionaries(st.integers(0, 8).map(str), st.frozensets(st.integers(0, 8).map(str), max_size=4), max_size=9)
VERSIONS = st.builds(
    lambda numbers, v, pre: ("v" if v else "") + ".".join(map(str, numbers)) + (f"-{pre}" if pre else ""),
    st.lists(st.integers(0, 20), min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from(["", "rc.1", "rc.2", "alpha", "1", "rc.1.x"]),
)


@given(st.lists(LABELS, max_size=6), JOBS)
def test_a_job_is_on_exactly_the_workers_with_all_its_labels_by_position(
    fleet: list[frozenset[str]], jobs: dict[str, frozenset[str]]
) -> None:
    workers = [
        WorkerFacts(name=f"h{index}", position=index, labels=tuple(sorted(labels | {"worker"})))
        for index, labels in enumerate(fleet)
    ]

    placed = place_jobs(list(reversed(workers)), {job: Manifest(selectors=tuple(sorted(labels))) for job, labels in jobs.items()})

    for job, labels in jobs.items():
        assert placed[job] == tuple(f"h{index}" for index, has in enumerate(fleet) if labels <= has)


def test_a_job_without_selectors_goes_where_its_name_is_a_label() -> None:
    workers = [WorkerFacts(name="a", position=0, labels=("api", "worker")), WorkerFacts(name="b", position=1)]

    assert place_jobs(workers, {"api": Manifest(), "all": Manifest(selectors=("worker",))}) == {"api": ("a",), "all": ("a", "b")}


@given(GRAPHS)
def test_every_job_comes_one_wave_after_the_latest_it_demands_and_the_rest_is_behind_a_cycle(
    graph: dict[str, frozenset[str]],
) -> None:
    sequence = deployment_sequence(graph)

    for job, wave in sequence.items():
        demanded = graph[job] & graph.keys()
        assert demanded <= sequence.keys()
        assert wave == max((sequence[other] + 1 for other in demanded), default=0)
    assert bool(find_cycles(graph)) == (sequence.keys() != graph.keys())


@given(GRAPHS)
def test_every_cycle_shown_is_one(graph: dict[str, frozenset[str]]) -> None:
    for cycle in find_cycles(graph):
        assert all(after in graph[before] for before, after in pairwise((*cycle, cycle[0])))
        assert len(set(cycle)) == len(cycle)
        assert cycle[0] == min(cycle)


def test_waves_take_linear_time_on_a_long_chain() -> None:
    chain = {str(index): frozenset({str(index + 1)}) if index < 50_000 else frozenset[str]() for index in range(50_001)}

    assert deployment_sequence(chain)["0"] == 50_000


@given(
    st.lists(st.one_of(st.none(), st.integers(100, 110)), max_size=8),
    st.dictionaries(st.integers(0, 9).map(lambda index: f"p{index}"), st.integers(95, 112), max_size=8),
)
def test_ports_are_distinct_in_the_pool_kept_and_lowest(numbers: list[int | None], kept: dict[str, int]) -> None:
    pool = PortPool(smallest=100, largest=106)
    asked = [PortRequest(name=f"p{index}", job="j", number=number) for index, number in enumerate(numbers)]

    assigned, unserved = assign_ports(asked, pool, {name: ("j", number) for name, number in kept.items()})

    fixed = {number for number in numbers if number is not None}
    automatic = {port.name: port.number for port in assigned.values() if not port.fixed}
    assert len(set(automatic.values())) == len(automatic)
    assert not fixed & set(automatic.values())
    assert all(pool.smallest <= number <= pool.largest for number in automatic.values())
    for name, number in kept.items():
        others = {kept[other] for other in automatic if other != name and other in kept}
        if name in automatic and pool.smallest <= number <= pool.largest and number not in fixed | others:
            assert automatic[name] == number
    used = fixed | set(automatic.values())
    if unserved:
        assert used >= set(range(pool.smallest, pool.largest + 1))
    newly = {number for name, number in automatic.items() if kept.get(name) != number}
    assert all(lower in used for number in newly for lower in range(pool.smallest, number))


@given(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6), st.lists(st.sampled_from("abcdef"), unique=True, max_size=6))
def test_a_port_keeps_its_number_whoever_comes_and_goes(first: list[str], second: list[str]) -> None:
    pool = PortPool(smallest=1000, largest=1020)
    before, _ = assign_ports([PortRequest(name=name, job=name, number=None) for name in first], pool, {})

    after, _ = assign_ports(
        [PortRequest(name=name, job=name, number=None) for name in second],
        pool,
        {name: (port.job, port.number) for name, port in before.items()},
    )

    assert all(after[name].number == before[name].number for name in set(first) & set(second))


def test_a_name_that_moves_to_another_job_gets_a_number_anew() -> None:
    assigned, _ = assign_ports(
        [PortRequest(name="p", job="new", number=None)], PortPool(smallest=10, largest=20), {"p": ("old", 15)}
    )

    assert assigned["p"].number == 10


@given(VERSIONS, VERSIONS, VERSIONS)
def test_versions_are_totally_ordered(first: str, second: str, third: str) -> None:
    low, middle, high = sorted(parse_version(text) for text in (first, second, third))

    assert low <= middle <= high
    assert low <= high
    assert (low == high) == (low.precedence() == high.precedence())
    assert is_version_within(first, smallest=first, largest=first)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("1", "1.0.1"),
        ("1.9", "1.10"),
        ("2.0.0-rc.1", "2.0.0"),
        ("1.0.0-alpha", "1.0.0-beta"),
        ("1.0.0-2", "1.0.0-11"),
        ("1.0.0-11", "1.0.0-a"),
        ("1.0.0-a", "1.0.0-a.b"),
    ],
)
def test_versions_compare_as_semver(smaller: str, larger: str) -> None:
    assert parse_version(smaller) < parse_version(larger)


@pytest.mark.parametrize(("left", "right"), [("1", "v1.0.0"), ("1.2", "1.2.0"), ("v3", "3")])
def test_missing_parts_are_zero(left: str, right: str) -> None:
    assert parse_version(left) == parse_version(right)


@pytest.mark.parametrize("text", ["", "1.2.3.4", "1..2", "a", "1.0.0-", "1.0.0+build", "v", " 1", "1." + "9" * 200])
def test_other_texts_are_no_versions(text: str) -> None:
    with pytest.raises(Rejected):
        parse_version(text)


@pytest.mark.parametrize(
    ("written", "mb"), [("4096 mb", 4096), ("4 gb", 4096), ("1 TB", 1048576), ("512", 512), (512, 512), ("1.5gb", 1536)]
)
def test_memory_is_read_in_mebibytes(written: object, mb: int) -> None:
    assert parse_memory_mb(written) == mb


@pytest.mark.parametrize(("written", "mhz"), [("2000 mhz", 2000), ("2 ghz", 2000), ("2.4 GHz", 2400), (800, 800)])
def test_cpu_is_read_in_megahertz(written: object, mhz: int) -> None:
    assert parse_cpu_mhz(written) == mhz


@pytest.mark.parametrize("written", ["", "gb", "-1 gb", "1 kb", "0.3 mb", True, None, [], "9" * 40, -5, 1e300])
def test_other_amounts_are_refused(written: object) -> None:
    with pytest.raises(Rejected):
        parse_memory_mb(written)
