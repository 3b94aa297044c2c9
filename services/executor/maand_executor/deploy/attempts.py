"""What a run records of its attempts on allocations, so that whoever comes after it knows what may not be as it was promoted.

    begun, before anything is done on a worker -> deploying -> [it went wrong, or the run was stopped] -> failed

`promoted`, `stopped` and `removed` are recorded by those who know that it went well.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.output.journal import LAST_WORDS
from maand_executor.rules.decisions import PlannedAllocation
from maand_executor.rules.facts import AllocationMove, AllocationState
from maand_executor.steps.context import RunContext
from maand_wire.errors import RemoteError


async def record_begun(context: RunContext, plans: Sequence[PlannedAllocation]) -> None:
    """Record that allocations are being changed, or stopped, from now on."""
    await record_moves(context, [make_move(plan, AllocationState.DEPLOYING, f"{plan.action}: {plan.reason}") for plan in plans])


async def record_failed(
    context: RunContext, plans: Sequence[PlannedAllocation], sentence: str, failures: Sequence[pb.Failure] = ()
) -> None:
    """Record allocations as failed, each with its own reason where it has one."""
    reasons = {failure.worker: failure.message for failure in reversed(failures)}  # the first of a worker wins
    await record_moves(
        context, [make_move(plan, AllocationState.FAILED, reasons.get(plan.allocation.worker, sentence)) for plan in plans]
    )


async def record_ended(
    context: RunContext, plans: Sequence[PlannedAllocation], sentence: str, failures: Sequence[pb.Failure] = ()
) -> None:
    """Record, as far as the catalog can be reached, what a run that is being stopped leaves behind."""
    with suppress(RemoteError, TimeoutError):
        async with asyncio.timeout(LAST_WORDS.total_seconds()):
            await record_failed(context, plans, sentence, failures)


async def record_moves(context: RunContext, moves: Sequence[AllocationMove]) -> None:
    """Move allocations in one transaction."""
    if moves:
        await context.catalog.move_allocations(context.identity, moves)


def make_move(plan: PlannedAllocation, to: AllocationState, message: str) -> AllocationMove:
    """Return the move of what was planned."""
    return AllocationMove(allocation_id=plan.allocation.allocation_id, to_state=to, message=message)
