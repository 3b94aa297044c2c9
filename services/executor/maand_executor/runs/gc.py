"""`maand gc`: what removed, stopped allocations left: their directories on workers (data and logs too), their rows and KV.

An allocation that was never stopped is refused: deploy first. A worker that left the fleet and cannot be reached is assumed dead.
What was deleted is recorded: whoever takes the run over deletes only what is left, and counts all of it.
One that was given up (`maand worker forget --lost`) is not contacted, and what was on it counts as stopped.
"""

from collections.abc import Sequence, Set

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.decisions import was_on_worker
from maand_executor.rules.facts import Allocation, AllocationMove, AllocationState
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.rules.worker_scripts import remove_directory_script
from maand_executor.steps.context import RunContext
from maand_executor.steps.failures import name_way_out
from maand_executor.steps.fleet import Fleet, read_fleet
from maand_executor.steps.run_step import StepResult, remote_step

DELETED = "deleted"


async def collect_garbage(context: RunContext) -> None:
    """Delete, then forget what was deleted."""
    fleet = await read_fleet(context)
    removed = [one for one in fleet.allocations if one.removed]
    ready = [one for one in removed if one.state is AllocationState.REMOVED or fleet.worker(one.worker).lost]
    note_not_stopped(context, [one for one in removed if one not in ready])
    if context.spec.gc.dry_run:
        show_garbage(context, ready)
        return
    await record_given_up(context, ready)
    deleted = {step for step in await context.catalog.list_steps(context.identity) if step.endswith(f"/{DELETED}")}
    gone = [one.allocation_id for one in await delete_directories(context, fleet, ready, deleted)]
    purged = await context.catalog.purge_allocations(context.identity, gone, retain_days=context.spec.gc.retain_days)
    count = purged.allocations + len(deleted - set(map(step_of, removed)))  # some may be forgotten already, before a takeover
    context.report.count("purged", count)
    context.report.count("kv_entries", purged.kv_entries)
    context.report.count("kv_versions", purged.kv_versions)
    context.report.message = (
        f"forgot {count} allocations, {purged.kv_entries} KV entries and {purged.kv_versions} old KV versions"
    )


def step_of(allocation: Allocation) -> str:
    """Return the step under which the deletion of an allocation's directory is recorded."""
    return f"{allocation.job}/{allocation.worker}/{DELETED}"


def note_not_stopped(context: RunContext, running: Sequence[Allocation]) -> None:
    """Name what was never stopped."""
    for one in running:
        context.report.note(f"{one.job} on {one.worker} was removed but not stopped yet: deploy first")
    context.report.count("refused", len(running))
    if running:
        context.report.next_command = "maand deploy"


async def record_given_up(context: RunContext, ready: Sequence[Allocation]) -> None:
    """Record as removed what was given up with its worker before it was stopped."""
    message = "its worker was given up as lost: nothing was stopped there"
    moves = [
        AllocationMove(allocation_id=one.allocation_id, to_state=AllocationState.REMOVED, message=message)
        for one in ready
        if one.state is not AllocationState.REMOVED
    ]
    if moves:
        await context.catalog.move_allocations(context.identity, moves)


def show_garbage(context: RunContext, ready: Sequence[Allocation]) -> None:
    """Tell what would be deleted."""
    for one in ready:
        context.report.note(f"{one.job} on {one.worker} would be deleted, data and logs too")
    context.report.count("would_purge", len(ready))
    context.report.changes = bool(ready)
    context.report.message = f"{len(ready)} allocations would be forgotten"


async def delete_directories(
    context: RunContext, fleet: Fleet, ready: Sequence[Allocation], deleted: Set[str]
) -> list[Allocation]:
    """Delete the jobs' directories that are not `deleted` yet; return the allocations that left nothing behind."""
    left = [one for one in ready if step_of(one) not in deleted]
    results = await side_by_side(left, lambda one: delete_directory(context, fleet, one))
    gone = [one for one in ready if step_of(one) in deleted]
    for one, result in zip(left, results, strict=True):
        if result.ok or is_dead(context, fleet, result):
            gone.append(one)
        else:
            context.report.fail([name_way_out(result.failure(), fleet.worker(one.worker))])
    return gone


async def delete_directory(context: RunContext, fleet: Fleet, allocation: Allocation) -> StepResult:
    """Delete one directory."""
    worker = fleet.worker(allocation.worker)
    if worker.lost or not was_on_worker(allocation):
        return StepResult(job=allocation.job, worker=allocation.worker, step="remove")
    command = RemoteCommand(
        script=remove_directory_script(context.config, allocation.job),
        sudo=context.config.use_sudo,
        timeout=context.settings.lifecycle_timeout,
        fence=context.fence,
        check_host=True,
    )
    result = await remote_step(
        context, job=allocation.job, worker=worker, step="remove", command=command, name="deleting its directory"
    )
    if result.ok:
        await context.steps.record(step_of(allocation))
    return result


def is_dead(context: RunContext, fleet: Fleet, result: StepResult) -> bool:
    """Whether the worker left the fleet and nothing can be connected to there; a connection that broke is no sign of that."""
    if result.kind != pb.FAILURE_KIND_UNREACHABLE or not fleet.worker(result.worker).removed:
        return False
    context.warn(f"{result.worker} left the fleet and cannot be reached: assumed dead", job=result.job)
    return True
