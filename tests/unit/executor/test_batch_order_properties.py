"""Batches and rollout order, whatever the fleet: nobody is lost, nobody is twice, and the order holds everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from maand_executor.rules.facts import Allocation
from maand_executor.rules.waves import in_rollout_order, plan_batches

HOSTS = [f"10.0.0.{number}" for number in range(1, 40)]

allocations = st.lists(st.sampled_from(HOSTS), unique=True).map(
    lambda hosts: [Allocation(allocation_id=host, job="api", worker=host, index=index) for index, host in enumerate(hosts)]
)
orders = st.permutations(HOSTS)
sizes = st.integers(min_value=0, max_value=50)


@given(allocations, sizes)
def test_batches_together_are_the_sequence(taken: list[Allocation], size: int) -> None:
    planned = plan_batches(taken, size)
    assert [allocation for batch in planned for allocation in batch.allocations] == taken


@given(allocations, sizes)
def test_every_batch_but_the_last_is_full_and_none_is_empty(taken: list[Allocation], size: int) -> None:
    lengths = [len(batch.allocations) for batch in plan_batches(taken, size)]
    assert all(length == (size or len(taken)) for length in lengths[:-1])
    assert all(0 < length <= (size or len(taken)) for length in lengths)


@given(allocations, sizes)
def test_every_batch_knows_its_place(taken: list[Allocation], size: int) -> None:
    planned = plan_batches(taken, size)
    assert [(batch.index, batch.count) for batch in planned] == [(index, len(planned)) for index in range(len(planned))]


@given(allocations, orders)
def test_a_phase_takes_the_sub_sequence_of_its_own_candidates(taken: list[Allocation], order: list[str]) -> None:
    candidates = {allocation.worker for allocation in taken}
    assert [allocation.worker for allocation in in_rollout_order(taken, order)] == [host for host in order if host in candidates]


@given(allocations, orders, sizes)
def test_a_leader_put_last_is_in_the_last_batch(taken: list[Allocation], order: list[str], size: int) -> None:
    planned = plan_batches(in_rollout_order(taken, order), size)
    last = next((host for host in reversed(order) if host in {allocation.worker for allocation in taken}), None)
    assert not planned or planned[-1].workers[-1] == last
