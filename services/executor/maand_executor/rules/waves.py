"""In which order jobs and allocations are taken: waves of jobs, who is blocked by whom, batches of allocations.

Which allocations of a hook's event run side by side, and what each batch is called:

allocations in rollout order --plan_batches--> Batch 0, Batch 1, …      (every other event)
allocations of one lifecycle batch --lifecycle_batch--> that batch      (`job_control`, `after_allocation_*`)
the first that can be reached --single_batch--> one batch of one        (scope `rollout`)
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from maand_executor.rules.facts import Allocation, Job

Item = TypeVar("Item")


def group_into_waves(jobs: Iterable[Job]) -> tuple[tuple[Job, ...], ...]:
    """Group jobs by `deployment_seq`, lowest first, by name inside a wave."""
    ordered = sorted(jobs, key=lambda job: (job.deployment_seq, job.name))
    return tuple(tuple(wave) for _, wave in groupby(ordered, key=lambda job: job.deployment_seq))


def blocking_job(job: Job, failed: Collection[str]) -> str | None:
    """Return the first demanded job that failed (or was itself blocked), if any."""
    return next((name for name in job.demanded_jobs if name in failed), None)


def in_rollout_order(allocations: Iterable[Allocation], order: Sequence[str]) -> tuple[Allocation, ...]:
    """Put allocations in rollout order; those the order does not name (removed, disabled) follow by index."""
    rank: Mapping[str, int] = {name: place for place, name in enumerate(order)}
    return tuple(
        sorted(allocations, key=lambda allocation: (rank.get(allocation.worker, len(rank)), allocation.index, allocation.worker))
    )


def split_into_batches(items: Sequence[Item], size: int) -> tuple[tuple[Item, ...], ...]:
    """Split items in batches of at most `size`; 0 = all in one."""
    width = size or max(len(items), 1)
    return tuple(tuple(items[start : start + width]) for start in range(0, len(items), width))


@dataclass(frozen=True, kw_only=True)
class BatchPosition:
    """Place of a lifecycle batch among those of its phase."""

    index: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Allocations that run side by side."""

    index: int
    count: int
    allocations: tuple[Allocation, ...]

    @property
    def workers(self) -> tuple[str, ...]:
        """Their workers, in rollout order."""
        return tuple(allocation.worker for allocation in self.allocations)


def plan_batches(allocations: Sequence[Allocation], size: int) -> tuple[Batch, ...]:
    """Cut the sequence into batches of `size`; 0 means all at once."""
    parts = split_into_batches(allocations, size)
    return tuple(Batch(index=index, count=len(parts), allocations=part) for index, part in enumerate(parts))


def lifecycle_batch(allocations: Sequence[Allocation], position: BatchPosition) -> tuple[Batch, ...]:
    """Return the one batch that the lifecycle step works on."""
    if not allocations:
        return ()
    return (Batch(index=position.index, count=position.count, allocations=tuple(allocations)),)


def single_batch(allocation: Allocation) -> tuple[Batch, ...]:
    """Return a batch of one that `is_one_shot()` recognises."""
    return (Batch(index=0, count=1, allocations=(allocation,)),)
