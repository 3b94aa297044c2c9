"""Calls about runs: claiming, keeping, recording, ending; and the identity of hook processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc.aio

from maand_contracts.catalog.v1 import invocation_pb2, run_event_pb2, run_pb2, run_spec_pb2, task_pb2
from maand_contracts.catalog.v1.invocation_pb2_grpc import InvocationServiceStub
from maand_contracts.catalog.v1.run_pb2_grpc import RunServiceStub
from maand_executor.catalog_client.calls import LONG_DEADLINE, call_catalog, list_all
from maand_executor.catalog_client.conversions import (
    from_invocation_end,
    from_invocation_start,
    to_begun_invocation,
    to_worker_fence,
)
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import BegunInvocation, InvocationEnd, InvocationStart, RunIdentity, WorkerFence
from maand_wire.enums import enum_word


@dataclass(frozen=True, kw_only=True)
class ClaimedRun:
    """One run this executor now owns, and for how long."""

    identity: RunIdentity
    kind: str
    spec: run_spec_pb2.RunSpec
    lease: timedelta
    requested_by: str = ""
    hook_env: dict[str, str] = field(default_factory=dict, repr=False)
    cancel: CancelLevel = CancelLevel.NOT_ASKED
    traceparent: str = ""
    nested: bool = False
    """Whether a hook started it."""


@dataclass(frozen=True, kw_only=True)
class RenewedLease:
    """How long the lease is now good for, and whether the run is asked to stop."""

    lease: timedelta
    cancel: CancelLevel


class RunCalls:
    """RunService and InvocationService."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._runs = RunServiceStub(channel)
        self._invocations = InvocationServiceStub(channel)

    async def claim_run(self, executor_id: str, *, wait: timedelta, bucket_ids: Sequence[str] = ()) -> ClaimedRun | None:
        """Claim a run, waiting for one up to `wait`. Not repeated: a claim whose answer was lost lapses by itself."""
        request = run_pb2.ClaimRunRequest(executor_id=executor_id, wait_seconds=int(wait.total_seconds()), bucket_ids=bucket_ids)
        response = await call_catalog(self._runs.ClaimRun, request, repeatable=False, deadline=wait + timedelta(seconds=10))
        return run_from_claim(response) if response.HasField("run") else None

    async def renew_lease(self, run: RunIdentity, *, deadline: timedelta) -> RenewedLease:
        """Extend the lease. Tried once: the lease loop decides what a failure means."""
        request = run_pb2.RenewLeaseRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence)
        response = await call_catalog(self._runs.RenewLease, request, repeatable=False, deadline=deadline)
        return RenewedLease(lease=timedelta(seconds=response.lease_seconds), cancel=CancelLevel(response.cancel))

    async def append_events(self, run: RunIdentity, events: Sequence[run_event_pb2.RunEvent], *, request_id: str) -> int:
        """Append events and return the newest sequence; a repeat with the same `request_id` appends nothing twice."""
        request = run_pb2.AppendEventsRequest(
            bucket_id=run.bucket_id,
            run_id=run.run_id,
            fence=run.task.fence if run.task else run.fence,
            events=events,
            request_id=request_id,
            task_id=run.task.task_id if run.task else "",
        )
        response = await call_catalog(self._runs.AppendEvents, request, repeatable=bool(request_id), deadline=LONG_DEADLINE)
        return response.last_sequence

    async def record_steps(self, run: RunIdentity, names: Sequence[str]) -> None:
        """Record steps as done for good."""
        request = run_pb2.RecordStepsRequest(bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, names=names)
        await call_catalog(self._runs.RecordSteps, request, repeatable=True)

    async def list_steps(self, run: RunIdentity) -> tuple[str, ...]:
        """Return the steps that any owner of the run recorded."""
        request = run_pb2.ListStepsRequest(bucket_id=run.bucket_id, run_id=run.run_id)
        return tuple(await list_all(self._runs.ListSteps, request, "names"))

    async def finish_run(self, run: RunIdentity, state: "run_pb2.RunState.ValueType", result: run_event_pb2.RunResult) -> None:
        """End the run."""
        request = run_pb2.FinishRunRequest(
            bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, state=state, result=result
        )
        await call_catalog(self._runs.FinishRun, request, repeatable=True, deadline=LONG_DEADLINE)

    async def release_leases(self, executor_id: str) -> tuple[str, ...]:
        """Give up every lease of this executor and return the runs that became interrupted."""
        request = run_pb2.ReleaseLeasesRequest(executor_id=executor_id)
        response = await call_catalog(self._runs.ReleaseLeases, request, repeatable=False, deadline=timedelta(seconds=5))
        return tuple(response.run_ids)

    async def begin_invocations(self, run: RunIdentity, starts: Sequence[InvocationStart]) -> tuple[BegunInvocation, ...]:
        """Give hook processes their identity, in the order asked.

        Repeated while the catalog is away: what a lost answer began has tokens that nobody holds, and ends with the claim.
        """
        request = invocation_pb2.BeginInvocationsRequest(
            bucket_id=run.bucket_id,
            run_id=run.run_id,
            fence=run.task.fence if run.task else run.fence,
            task_id=run.task.task_id if run.task else "",
            invocations=map(from_invocation_start, starts),
        )
        response = await call_catalog(self._invocations.BeginInvocations, request, repeatable=True)
        return tuple(map(to_begun_invocation, response.invocations))

    async def end_invocations(self, bucket_id: str, ends: Sequence[InvocationEnd]) -> None:
        """Revoke the tokens of ended hook processes and release their semaphores."""
        request = invocation_pb2.EndInvocationsRequest(bucket_id=bucket_id, invocations=map(from_invocation_end, ends))
        await call_catalog(self._invocations.EndInvocations, request, repeatable=True)


def run_from_claim(response: run_pb2.ClaimRunResponse) -> ClaimedRun:
    """Read one claim."""
    run = response.run
    return ClaimedRun(
        identity=RunIdentity(
            bucket_id=run.bucket_id, run_id=run.run_id, seq=run.seq, fence=run.fence, worker_fence=read_worker_fence(response)
        ),
        kind=enum_word(run_spec_pb2.RunKind, run.kind),
        spec=run.spec,
        lease=timedelta(seconds=response.lease_seconds),
        requested_by=run.requested_by,
        hook_env=dict(response.hook_env),
        cancel=CancelLevel(run.cancel),
        traceparent=run.traceparent,
        nested=bool(run.parent_run_id),
    )


def read_worker_fence(response: run_pb2.ClaimRunResponse | task_pb2.ClaimTaskResponse) -> WorkerFence | None:
    """Read what commands of a claim carry to workers."""
    return to_worker_fence(response.worker_fence) if response.HasField("worker_fence") else None
