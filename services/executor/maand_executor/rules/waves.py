"""In which order jobs and allocations are taken: waves of jobs, batches of allocations, who is blocked by whom."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from maand_executor.rules.facts import Allocation, Job

Item = TypeVar("Item")


def waves(jobs: Iterable[Job]) -> tuple[tuple[Job, ...], ...]:
    """Group jobs by `deployment_seq`, lowest first, by name inside a wave."""
    ordered = sorted(jobs, key=lambda job: (job.deployment_seq, job.name))
    return tuple(tuple(wave) for _, wave in groupby(ordered, key=lambda job: job.deployment_seq))


def blocking_job(job: Job, failed: Collection[str]) -> str | None:
    """Return the first demanded job that failed (or was itself blocked), if any."""
    return next((name for name in job.demanded_jobs if name in failed), None)


def in_rollout_order(allocations: Iterable[Allocation], order: Sequence[str]) -> tuple[Allocation, ...]:
    """Put allocations in rollout order; those the order does not name (removed, disabled) follow by index."""
    rank: Mapping[str, int] = {host: place for place, host in enumerate(order)}
    return tuple(
        sorted(allocations, key=lambda allocation: (rank.get(allocation.worker, len(rank)), allocation.index, allocation.worker))
    )


def batches(items: Sequence[Item], size: int) -> tuple[tuple[Item, ...], ...]:
    """Split items in batches of at most `size`; 0 = all in one."""
    width = size or max(len(items), 1)
    return tuple(tuple(items[start : start + width]) for start in range(0, len(items), width))
