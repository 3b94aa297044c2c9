"""Batches: which allocations of an event run side by side, and what each batch is called.

allocations in rollout order --plan_batches--> Batch 0, Batch 1, …      (every other event)
allocations of one lifecycle batch --lifecycle_batch--> that batch      (`job_control`, `after_allocation_*`)
the first that can be reached --single_batch--> one batch of one        (scope `rollout`)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from maand_executor.rules.facts import Allocation
from maand_executor.rules.waves import batches


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
        """Their hosts, in rollout order."""
        return tuple(allocation.worker for allocation in self.allocations)


def plan_batches(allocations: Sequence[Allocation], size: int) -> tuple[Batch, ...]:
    """Cut the sequence into batches of `size`; 0 means all at once."""
    parts = batches(allocations, size)
    return tuple(Batch(index=index, count=len(parts), allocations=part) for index, part in enumerate(parts))


def lifecycle_batch(allocations: Sequence[Allocation], position: BatchPosition) -> tuple[Batch, ...]:
    """Return the one batch that the lifecycle step works on."""
    if not allocations:
        return ()
    return (Batch(index=position.index, count=position.count, allocations=tuple(allocations)),)


def single_batch(allocation: Allocation) -> tuple[Batch, ...]:
    """Return a batch of one that `is_one_shot()` recognises."""
    return (Batch(index=0, count=1, allocations=(allocation,)),)
