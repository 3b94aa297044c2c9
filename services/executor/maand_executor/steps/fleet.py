"""What was built, read once at the beginning of a run: workers, jobs, allocations, also those that left."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from maand_executor.errors import InvalidRequest, NotBuilt
from maand_executor.rules.facts import Allocation, Job, Worker
from maand_executor.steps.context import RunContext
from maand_wire.nearest import nearest_or_known


def known_names(kind: str, wanted: Iterable[str], known: Collection[str]) -> frozenset[str]:
    """Return the wanted names. Raises `InvalidRequest` naming the nearest known one when there is none of that name."""
    names = frozenset(wanted)
    for name in sorted(names - frozenset(known)):
        raise InvalidRequest(f'no {kind} is called "{name}"', help=nearest_or_known(name, known))
    return names


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The bucket as built."""

    workers: Mapping[str, Worker]
    jobs: Mapping[str, Job]
    allocations: tuple[Allocation, ...]

    def of_job(self, job: str) -> tuple[Allocation, ...]:
        """Return the allocations of a job by index, removed ones included."""
        return tuple(allocation for allocation in self.allocations if allocation.job == job)

    def active_of_job(self, job: str) -> tuple[Allocation, ...]:
        """Return the allocations of a job that are meant to run."""
        return tuple(allocation for allocation in self.of_job(job) if allocation.active)

    def on_worker(self, name: str) -> tuple[Allocation, ...]:
        """Return what is placed on a worker."""
        return tuple(one for one in self.allocations if one.worker == name and not one.removed)

    def worker(self, name: str) -> Worker:
        """Return a worker; one of which nothing but allocations is left is known by its name."""
        return self.workers.get(name) or Worker(name=name, removed=True)

    def present_jobs(self) -> dict[str, Job]:
        """Return the jobs of the workspace."""
        return {name: job for name, job in self.jobs.items() if not job.removed}

    def jobs_named(self, names: Iterable[str]) -> dict[str, Job]:
        """Return the named jobs, or all. Raises `InvalidRequest` for an unknown one."""
        wanted = known_names("job", names, self.jobs) or self.jobs.keys()
        return {name: job for name, job in self.jobs.items() if name in wanted}


async def read_fleet(context: RunContext) -> Fleet:
    """Read it. Raises `NotBuilt`."""
    bucket_id = context.identity.bucket_id
    if not context.config.built:
        raise NotBuilt("nothing was built in this bucket yet")
    async with asyncio.TaskGroup() as tasks:
        workers = tasks.create_task(context.catalog.list_workers(bucket_id, include_removed=True))
        jobs = tasks.create_task(context.catalog.list_jobs(bucket_id, include_removed=True))
        allocations = tasks.create_task(context.catalog.list_allocations(bucket_id, include_removed=True))
    return Fleet(
        workers={worker.name: worker for worker in workers.result()},
        jobs={job.name: job for job in jobs.result()},
        allocations=allocations.result(),
    )
