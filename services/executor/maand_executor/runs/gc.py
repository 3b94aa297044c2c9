"""`maand gc`: what removed, stopped allocations left: their directories on workers (data and logs too), their rows and KV.

An allocation that was never stopped is refused: deploy first. A worker that left the fleet and cannot be reached is assumed dead.
"""

from collections.abc import Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.decisions import was_on_worker
from maand_executor.rules.facts import Allocation, AllocationState
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.rules.worker_scripts import remove_directory_script
from maand_executor.steps.context import RunContext
from maand_executor.steps.fleet import Fleet, read_fleet
from maand_executor.steps.run_step import StepResult, remote_step


async def collect_garbage(context: RunContext) -> None:
    """Delete, then forget what was deleted."""
    fleet = await read_fleet(context)
    removed = [one for one in fleet.allocations if one.removed]
    ready = [one for one in removed if one.state is AllocationState.REMOVED]
    note_not_stopped(context, [one for one in removed if one.state is not AllocationState.REMOVED])
    if context.spec.gc.dry_run:
        show_garbage(context, ready)
        return
    gone = [one.allocation_id for one in await delete_directories(context, fleet, ready)]
    purged = await context.catalog.purge_allocations(context.identity, gone, retain_days=context.spec.gc.retain_days)
    context.report.count("purged", purged.allocations)
    context.report.count("kv_entries", purged.kv_entries)
    context.report.count("kv_versions", purged.kv_versions)
    context.report.message = (
        f"forgot {purged.allocations} allocations, {purged.kv_entries} KV entries and {purged.kv_versions} old KV versions"
    )


def note_not_stopped(context: RunContext, running: Sequence[Allocation]) -> None:
    """Name what was never stopped."""
    for one in running:
        context.report.note(f"{one.job} on {one.worker} was removed but not stopped yet: deploy first")
    context.report.count("refused", len(running))
    if running:
        context.report.next_command = "maand deploy"


def show_garbage(context: RunContext, ready: Sequence[Allocation]) -> None:
    """Tell what would be deleted."""
    for one in ready:
        context.report.note(f"{one.job} on {one.worker} would be deleted, data and logs too")
    context.report.count("would_purge", len(ready))
    context.report.changes = bool(ready)
    context.report.message = f"{len(ready)} allocations would be forgotten"


async def delete_directories(context: RunContext, fleet: Fleet, ready: Sequence[Allocation]) -> list[Allocation]:
    """Delete the jobs' directories; return the allocations that left nothing behind."""
    results = await side_by_side(ready, lambda one: delete_directory(context, fleet, one))
    gone: list[Allocation] = []
    for one, result in zip(ready, results, strict=True):
        if result.ok or is_dead(context, fleet, result):
            gone.append(one)
        else:
            context.report.fail([result.failure()])
    return gone


async def delete_directory(context: RunContext, fleet: Fleet, allocation: Allocation) -> StepResult:
    """Delete one directory."""
    if not was_on_worker(allocation):
        return StepResult(job=allocation.job, worker=allocation.worker, step="remove")
    command = RemoteCommand(
        script=remove_directory_script(context.config, allocation.job),
        sudo=context.config.use_sudo,
        timeout=context.settings.lifecycle_timeout,
        fence=context.fence,
    )
    worker = fleet.worker(allocation.worker)
    return await remote_step(
        context, job=allocation.job, worker=worker, step="remove", command=command, name="deleting its directory"
    )


def is_dead(context: RunContext, fleet: Fleet, result: StepResult) -> bool:
    """Whether the worker left the fleet and does not answer."""
    if result.outcome != pb.STEP_OUTCOME_UNREACHABLE or not fleet.worker(result.worker).removed:
        return False
    context.warn(f"{result.worker} left the fleet and cannot be reached: assumed dead", job=result.job)
    return True
