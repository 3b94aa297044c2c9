"""RunService: runs asked for, watched, claimed, recorded and ended."""

import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

from maand_catalog.database.database import Database, Transaction
from maand_catalog.errors import InvalidArgument, LimitExceeded
from maand_catalog.ids import new_id
from maand_catalog.rpc.callers import require_role
from maand_catalog.rpc.hook_env import HookEnvSealer
from maand_catalog.rpc.requests import asked_page, checked_id, checked_text, checked_word, until_found
from maand_catalog.rpc.run_messages import (
    CANCEL_LEVELS,
    adopts_workers,
    fence_message,
    kind_of,
    run_message,
    spec_holds_bucket,
    spec_to_resume,
    state_from,
)
from maand_catalog.rules.identity import Role
from maand_catalog.rules.meter import Meter
from maand_catalog.rules.runs import Run, RunKind, RunRequest, RunState
from maand_catalog.sealing.keyring import CannotDecrypt
from maand_catalog.store.runs import control as runs
from maand_catalog.store.runs import ends as run_ends
from maand_catalog.store.runs import events as run_events
from maand_catalog.store.runs import leases, tasks
from maand_catalog.store.runs import records as run_records
from maand_catalog.store.runs.database_owner import keep_own_owner
from maand_catalog.store.runs.run_states import CLAIMABLE_RUNS, get_run, run_topic
from maand_contracts.catalog.v1 import run_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2
from maand_contracts.catalog.v1.run_pb2_grpc import RunServiceServicer
from maand_wire.tracing_grpc import traceparent_of

LONGEST_LOCK_WAIT_SECONDS = 24 * 3600
CLAIM_LOOKS_EVERY = timedelta(seconds=1)
"""A waiting claim looks this often without being woken: a lease that lapses tells nobody."""

WATCH_LOOKS_EVERY = timedelta(seconds=30)
MOST_EVENTS = 10_000
MOST_EVENT_BYTES = 16 * 1024 * 1024
MOST_STEPS = 10_000
FINISHING = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.INTERRUPTED)


class RunServicer(RunServiceServicer):
    """Keeps runs. Reading needs a viewer, asking and stopping an operator, running an executor."""

    def __init__(self, database: Database, sealer: HookEnvSealer, *, meter: Meter, lease: timedelta = leases.LEASE) -> None:
        self._meter = meter
        self._database = database
        self._sealer = sealer
        self._lease = lease

    async def CreateRun(self, request: pb.CreateRunRequest, context: Any) -> pb.CreateRunResponse:
        """Create a pending run."""
        require_role(context, Role.OPERATOR)
        asked = self._read_request(request, traceparent_of(context))

        def intention(tx: Transaction) -> pb.CreateRunResponse:
            if adopts_workers(request.spec):
                keep_own_owner(tx)
            return pb.CreateRunResponse(run=run_message(runs.create_run(tx, asked), tx.lapse_time))

        return await self._database.write(intention)

    def _read_request(self, request: pb.CreateRunRequest, traceparent: str) -> RunRequest:
        kind = kind_of(request.spec)
        run_id, bucket_id = new_id(), checked_id(request.bucket_id, "bucket_id")
        if request.lock_timeout_seconds > LONGEST_LOCK_WAIT_SECONDS:
            raise LimitExceeded(f"lock_timeout_seconds is more than {LONGEST_LOCK_WAIT_SECONDS}")
        sealed = self._sealer.seal(request.hook_env, bucket_id=bucket_id, run_id=run_id)
        return RunRequest(
            run_id=run_id,
            bucket_id=bucket_id,
            kind=kind,
            spec=request.spec.SerializeToString(deterministic=True),
            holds_bucket=spec_holds_bucket(request.spec),
            requested_by=checked_text(request.requested_by, "requested_by", longest=256),
            parent_run_id=checked_id(request.parent_run_id, "parent_run_id") if request.parent_run_id else "",
            request_id=checked_text(request.request_id, "request_id", longest=128),
            lock_timeout=timedelta(seconds=request.lock_timeout_seconds),
            sealed_hook_env=sealed.data,
            hook_env_key_id=sealed.key_id,
            traceparent=traceparent,
        )

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        """Return one run."""
        require_role(context, Role.VIEWER)
        return await self._database.read(
            lambda tx: pb.GetRunResponse(run=run_message(get_run(tx, request.bucket_id, request.run_id), tx.lapse_time))
        )

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        """List runs, newest first."""
        require_role(context, Role.VIEWER)
        kinds = [RunKind(checked_word(run_spec_pb2.RunKind, kind, "kinds")) for kind in request.kinds]
        page = asked_page(request, int, usual=20)
        states = [state_from(state, "states") for state in request.states]
        before = page.after[0] if page.after else None

        def intention(tx: Transaction) -> pb.ListRunsResponse:
            found = runs.list_runs(tx, request.bucket_id, kinds=kinds, states=states, before_seq=before, limit=page.limit + 1)
            shown, more = page.cut(found, lambda last: (last.seq,))
            return pb.ListRunsResponse(runs=[run_message(run, tx.lapse_time) for run in shown], next_page_token=more)

        return await self._database.read(intention)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Any) -> AsyncIterator[pb.WatchRunResponse]:
        """Stream events: the stored ones, then those to come until the run is at rest."""
        require_role(context, Role.VIEWER)
        seen = request.after_sequence
        with self._database.bus.subscribe(run_topic(request.run_id)) as subscription:
            while True:
                chunk = await self._database.read(partial(read_after, request, seen))
                if chunk.events:
                    seen = chunk.events[-1].sequence
                    yield pb.WatchRunResponse(
                        events=[run_records.event_from_record(event.payload, event.sequence) for event in chunk.events]
                    )
                if chunk.is_all and (not request.follow or is_at_rest(chunk.run)):
                    return
                if chunk.is_all:
                    await subscription.wait(WATCH_LOOKS_EVERY)

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        """Ask a run to stop."""
        caller = require_role(context, Role.OPERATOR)
        whom = checked_text(request.requested_by, "requested_by", longest=256) or caller.name
        level = await self._database.write(lambda tx: runs.cancel_run(tx, request.bucket_id, request.run_id, requested_by=whom))
        return pb.CancelRunResponse(cancel=CANCEL_LEVELS[level])

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Any) -> pb.ResumeRunResponse:
        """Make an interrupted run claimable again."""
        require_role(context, Role.OPERATOR)
        bucket_id, run_id, change_spec = request.bucket_id, request.run_id, partial(spec_to_resume, again=request.again)

        def resume(tx: Transaction) -> pb.ResumeRunResponse:
            run = runs.resume_run(tx, bucket_id, run_id, change_spec=change_spec)
            return pb.ResumeRunResponse(run=run_message(run, tx.lapse_time))

        return await self._database.write(resume)

    async def ClaimRun(self, request: pb.ClaimRunRequest, context: Any) -> pb.ClaimRunResponse:
        """Claim the oldest run to be had, waiting for one if asked to."""
        require_role(context, Role.EXECUTOR)
        executor_id = checked_text(request.executor_id, "executor_id", longest=128, required=True)
        bucket_ids = [checked_id(bucket_id, "bucket_ids") for bucket_id in request.bucket_ids]

        looks = itertools.count()

        def intention(tx: Transaction, *, has_waited: bool) -> pb.ClaimRunResponse | None:
            while run := leases.claim_run(
                tx, executor_id=executor_id, bucket_ids=bucket_ids, lease=self._lease, has_waited=has_waited
            ):
                try:
                    return self._claimed(run, tx)
                except CannotDecrypt as error:
                    run_ends.fail_claimed_run(tx, run, str(error), help_text=error.help)
            return None

        async def claim() -> pb.ClaimRunResponse | None:
            return await self._database.write(partial(intention, has_waited=next(looks) > 0))

        bus, seconds = self._database.bus, request.wait_seconds
        claimed = await until_found(bus, CLAIMABLE_RUNS, claim, wait_seconds=seconds, look_every=CLAIM_LOOKS_EVERY)
        if claimed is not None and claimed.run.fence > 1:
            self._meter.run_taken_over()
        return claimed or pb.ClaimRunResponse()

    def _claimed(self, run: Run, tx: Transaction) -> pb.ClaimRunResponse:
        """Describe a claim, with the values of `hook_env`."""
        return pb.ClaimRunResponse(
            run=run_message(run, tx.lapse_time),
            lease_seconds=self._lease.total_seconds(),
            hook_env=self._sealer.open_for(run),
            worker_fence=fence_message(leases.worker_fence_of(tx, run)),
        )

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:
        """Extend a lease and report a wish to cancel."""
        require_role(context, Role.EXECUTOR)
        renewal = await self._database.write(
            lambda tx: leases.renew_lease(tx, request.bucket_id, request.run_id, request.fence, lease=self._lease)
        )
        return pb.RenewLeaseResponse(lease_seconds=renewal.lease.total_seconds(), cancel=CANCEL_LEVELS[renewal.cancel])

    async def AppendEvents(self, request: pb.AppendEventsRequest, context: Any) -> pb.AppendEventsResponse:
        """Append events under the fence."""
        require_role(context, Role.EXECUTOR)
        if len(request.events) > MOST_EVENTS or request.ByteSize() > MOST_EVENT_BYTES:
            raise LimitExceeded(f"more than {MOST_EVENTS} events or {MOST_EVENT_BYTES // 2**20} MiB in one call")
        request_id = checked_text(request.request_id, "request_id", longest=128)
        records, doing = (
            [run_records.record_from_event(event) for event in request.events],
            run_records.describe_progress(request.events),
        )
        if not all(record.kind for record in records):
            raise InvalidArgument("an event does not say what happened", facts={"field": "events"})
        last = await self._database.write(
            lambda tx: run_events.append_events(
                tx,
                request.bucket_id,
                request.run_id,
                request.fence,
                events=records,
                doing=doing,
                request_id=request_id,
                task_id=request.task_id,
            )
        )
        return pb.AppendEventsResponse(last_sequence=last)

    async def RecordSteps(self, request: pb.RecordStepsRequest, context: Any) -> pb.RecordStepsResponse:
        """Record steps as done under the fence."""
        require_role(context, Role.EXECUTOR)
        if len(request.names) > MOST_STEPS:
            raise LimitExceeded(f"more than {MOST_STEPS} steps in one call")
        names = [checked_text(name, "names", longest=512, required=True) for name in dict.fromkeys(request.names)]
        await self._database.write(
            lambda tx: run_events.record_steps(tx, request.bucket_id, request.run_id, request.fence, names=names)
        )
        return pb.RecordStepsResponse()

    async def ListSteps(self, request: pb.ListStepsRequest, context: Any) -> pb.ListStepsResponse:
        """List the steps that every owner recorded."""
        require_role(context, Role.VIEWER)
        page = asked_page(request, int, usual=10_000, most=10_000)
        steps = await self._database.read(
            lambda tx: run_events.list_steps(tx, request.bucket_id, request.run_id, after=page.after, limit=page.limit + 1)
        )
        found, more = page.cut(steps, lambda last: (last.position,))
        return pb.ListStepsResponse(names=[step.name for step in found], next_page_token=more)

    async def FinishRun(self, request: pb.FinishRunRequest, context: Any) -> pb.FinishRunResponse:
        """End a run under the fence."""
        require_role(context, Role.EXECUTOR)
        state = state_from(request.state, "state")
        if state not in FINISHING:
            raise InvalidArgument(f"a run cannot finish as {state}", facts={"field": "state"})
        await self._database.write(
            lambda tx: run_ends.finish_run(
                tx,
                request.bucket_id,
                request.run_id,
                request.fence,
                state=state,
                message=request.result.message,
                result=request.result.SerializeToString(deterministic=True),
            )
        )
        return pb.FinishRunResponse()

    async def ReleaseLeases(self, request: pb.ReleaseLeasesRequest, context: Any) -> pb.ReleaseLeasesResponse:
        """Interrupt the runs of an executor that is gone."""
        require_role(context, Role.EXECUTOR)
        mine, others = request.executor_id, request.except_executor_id

        def release(tx: Transaction) -> list[str]:
            run_ids = run_ends.release_leases(tx, executor_id=mine, except_executor_id=others)
            tasks.release_tasks(tx, executor_id=mine, except_executor_id=others)
            return run_ids

        return pb.ReleaseLeasesResponse(run_ids=await self._database.write(release))


def read_after(request: pb.WatchRunRequest, seen: int, tx: Transaction) -> run_events.EventChunk:
    """Read what follows the events seen."""
    return run_events.read_events(tx, request.bucket_id, request.run_id, after=seen)


def is_at_rest(run: Run) -> bool:
    """Whether nothing more will happen unless a person does something: it ended, or nobody may take it over."""
    return run.has_ended or (run.state is RunState.INTERRUPTED and not run.may_be_taken_over)
