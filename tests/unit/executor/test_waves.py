from maand_executor.rules.facts import Allocation, Job
from maand_executor.rules.waves import blocking_job, group_into_waves, in_rollout_order, split_into_batches


def on(worker: str, index: int) -> Allocation:
    return Allocation(allocation_id=worker, job="api", worker=worker, index=index)


def test_jobs_are_taken_in_waves_by_deployment_seq_and_name() -> None:
    jobs = [Job(name="web", deployment_seq=2), Job(name="b"), Job(name="api", deployment_seq=1), Job(name="a")]
    assert [[job.name for job in wave] for wave in group_into_waves(jobs)] == [["a", "b"], ["api"], ["web"]]


def test_a_job_is_blocked_by_the_first_failed_job_it_demands() -> None:
    job = Job(name="web", demanded_jobs=("api", "database"))
    assert blocking_job(job, {"database"}) == "database"
    assert blocking_job(job, {"cache"}) is None


def test_a_leader_put_last_stays_last_in_a_partial_rollout() -> None:
    order = ("2", "3", "1")
    partial = [on("1", 0), on("3", 2)]
    assert [allocation.worker for allocation in in_rollout_order(partial, order)] == ["3", "1"]


def test_allocations_outside_the_order_follow_by_index() -> None:
    assert [a.worker for a in in_rollout_order([on("9", 1), on("8", 0), on("1", 2)], ["1"])] == ["1", "8", "9"]


def test_batches_keep_order_and_size() -> None:
    assert split_into_batches([1, 2, 3, 4, 5], 2) == ((1, 2), (3, 4), (5,))


def test_a_batch_size_of_zero_takes_all_at_once() -> None:
    assert split_into_batches([1, 2, 3], 0) == ((1, 2, 3),)


def test_nothing_makes_no_batch() -> None:
    assert split_into_batches([], 0) == ()
