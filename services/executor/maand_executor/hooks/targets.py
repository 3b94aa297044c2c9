"""Which hooks of an event run, in which batches, and what of it is done or called off already."""

from maand_executor.errors import ExecutorError
from maand_executor.hooks.request import HEALTH_CHECK, POST_BUILD, EventRun
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import Allocation, Hook, HookScope, InvocationOutcome
from maand_executor.rules.hook_outcomes import InvocationResult
from maand_executor.rules.waves import Batch, lifecycle_batch, plan_batches, single_batch


class NothingReachable(ExecutorError):
    """A hook that runs once has no worker that can be reached. Bring one back, or take the workers out of the fleet."""

    code = "nothing_reachable"


def wanted_hooks(request: EventRun) -> tuple[Hook, ...]:
    """Return the hooks of the event, in name order; one when only that one is wanted."""
    return tuple(hook for hook in request.job.hooks_on(request.event) if request.only_hook in ("", hook.name))


async def plan_hook(request: EventRun, hook: Hook) -> tuple[Batch, ...]:
    """Return the batches of one hook. Raises `NothingReachable` for one that runs once."""
    if hook.scope is HookScope.ROLLOUT:
        return () if is_done(request, hook, request.allocations[0]) else single_batch(await first_reachable(request, hook))
    if request.batch is not None:
        return lifecycle_batch(request.allocations, request.batch)
    return plan_batches(request.allocations, request.job.max_concurrent_upgrades)


async def first_reachable(request: EventRun, hook: Hook) -> Allocation:
    """Return the first allocation in rollout order whose worker can be reached.

    A build needs no worker: host keys may not be pinned yet. Where nobody can be reached, its hooks run for the first allocation.
    """
    for allocation in request.allocations:
        if await request.reachable(allocation.worker):
            return allocation
    if request.event == POST_BUILD:
        return request.allocations[0]
    raise NothingReachable(f"none of the {len(request.allocations)} workers that {hook.name} may run for can be reached")


def is_done(request: EventRun, hook: Hook, allocation: Allocation) -> bool:
    """Whether an earlier owner of the run, or an earlier batch, recorded this invocation."""
    return request.is_recorded and request.done(request.step_name(hook, allocation))


def level_that_stops(request: EventRun) -> CancelLevel:
    """Return how urgent a cancel must be to end the event before its next batch.

    Hooks that are part of a deploy's batch (lifecycle hooks, gates) belong to "finish the current batch".
    """
    in_a_batch = request.batch is not None or request.event == HEALTH_CHECK
    return CancelLevel.NOW if in_a_batch else CancelLevel.AFTER_BATCH


def unreachable_result(request: EventRun, hook: Hook, message: str) -> InvocationResult:
    """Describe a hook that had nowhere to run."""
    first = request.allocations[0]
    return InvocationResult(
        hook=hook.name,
        allocation_id=first.allocation_id,
        worker=first.worker,
        outcome=InvocationOutcome.FAILED,
        message=message,
    )
