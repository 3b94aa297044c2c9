"""InvocationService: hook processes get their identity, and lose it."""

from typing import Any

from maand_catalog.database.database import Database
from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.ids import new_hook_token, new_id
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.requests import checked_text, checked_word
from maand_catalog.rules.identity import InvocationBegin, InvocationEnd, InvocationOutcome, Role, token_digest
from maand_catalog.store.runs.invocation_ends import end_given_invocations
from maand_catalog.store.runs.invocations import begin_invocations
from maand_contracts.catalog.v1 import invocation_pb2 as pb
from maand_contracts.catalog.v1 import job_pb2
from maand_contracts.catalog.v1.invocation_pb2_grpc import InvocationServiceServicer

MOST_INVOCATIONS = 10_000

OUTCOMES: dict[int, InvocationOutcome] = {
    pb.INVOCATION_OUTCOME_SUCCEEDED: InvocationOutcome.SUCCEEDED,
    pb.INVOCATION_OUTCOME_FAILED: InvocationOutcome.FAILED,
    pb.INVOCATION_OUTCOME_TIMED_OUT: InvocationOutcome.TIMED_OUT,
    pb.INVOCATION_OUTCOME_CANCELLED: InvocationOutcome.CANCELLED,
    pb.INVOCATION_OUTCOME_INTERRUPTED: InvocationOutcome.INTERRUPTED,
}


class InvocationServicer(InvocationServiceServicer):
    """Begins and ends hook invocations, for executors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def BeginInvocations(self, request: pb.BeginInvocationsRequest, context: Any) -> pb.BeginInvocationsResponse:
        """Begin invocations and return a token for each."""
        require_role(context, Role.EXECUTOR)
        check_count(len(request.invocations))
        tokens = [new_hook_token() for _ in request.invocations]
        begins = [read_start(start, token) for start, token in zip(request.invocations, tokens, strict=True)]
        await self._database.write(
            lambda tx: begin_invocations(tx, request.bucket_id, request.run_id, request.fence, begins, task_id=request.task_id)
        )
        return pb.BeginInvocationsResponse(
            invocations=[
                pb.BegunInvocation(invocation_id=begin.invocation_id, token=token)
                for begin, token in zip(begins, tokens, strict=True)
            ]
        )

    async def EndInvocations(self, request: pb.EndInvocationsRequest, context: Any) -> pb.EndInvocationsResponse:
        """End invocations: from when this returns, their tokens are dead and their semaphores free."""
        require_role(context, Role.EXECUTOR)
        check_count(len(request.invocations))
        ends = [read_end(end) for end in request.invocations]
        await self._database.write(lambda tx: end_given_invocations(tx, request.bucket_id, ends))
        return pb.EndInvocationsResponse()


def check_count(count: int) -> None:
    """Refuse batches of an unreasonable size."""
    if count > MOST_INVOCATIONS:
        raise LimitExceeded(f"more than {MOST_INVOCATIONS} invocations in one call")


def read_start(start: pb.InvocationStart, token: str) -> InvocationBegin:
    """Read one invocation about to begin, and give it its id."""
    return InvocationBegin(
        invocation_id=new_id(),
        token_sha256=token_digest(token),
        allocation_id=start.allocation_id,
        hook=checked_text(start.hook, "hook", longest=255, required=True),
        event=checked_word(job_pb2.HookEvent, start.event, "event"),
    )


def read_end(end: pb.InvocationEnd) -> InvocationEnd:
    """Read one that ended."""
    outcome = OUTCOMES.get(end.outcome)
    if outcome is None:
        raise InvalidArgument("outcome does not say how the invocation ended", facts={"field": "outcome"})
    return InvocationEnd(invocation_id=end.invocation_id, outcome=outcome)
