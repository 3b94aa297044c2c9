"""Runs: asked for, followed through lost connections to their end, cancelled.

    CreateRun -> WatchRun, attached anew after the last sequence seen whenever a replica goes -> GetRun

A run lives in the catalog, not in this client: leaving it does not stop it, and `runs.get(run_id)` finds it again from anywhere.
"""

import asyncio
import getpass
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

from maand_client.calls import Calls
from maand_client.run_ends import Ended, end_of
from maand_client.specs import whole_seconds
from maand_contracts.catalog.v1 import run_event_pb2, run_pb2, run_spec_pb2
from maand_contracts.catalog.v1.run_pb2_grpc import RunServiceStub
from maand_wire.enums import enum_number

LOOK_AGAIN = timedelta(milliseconds=200)
"""Pause before looking again at a run whose stream ended although it has not: it was just taken over."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What may be said with every run."""

    keep_going: bool = False
    """Run later batches even when one failed."""
    keep_workdir: bool = False
    """Keep the private directories of hook invocations."""
    timeout: timedelta = timedelta()
    """Overall limit; 0 = none."""
    lock_timeout: timedelta = timedelta()
    """How long an exclusive run may wait for the bucket; 0 = `BucketHeld` at once when it is held."""
    requested_by: str = ""
    """Who asks, for people. Empty = `user@host` of this process."""
    hook_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values of the variables that `hook_env` in maand.conf names."""
    parent_run_id: str = ""
    """The run whose hook starts this one: it joins that run's hold on the bucket."""
    request_id: str = ""
    """Makes asking twice one run, across restarts of the caller too. Empty = a new id for every call."""


DEFAULTS = RunOptions()


class Run:
    """One run: an id, and what can be done with it."""

    def __init__(self, calls: Calls, stub: RunServiceStub, run_id: str) -> None:
        self.run_id = run_id
        self._calls = calls
        self._stub = stub

    async def get(self) -> run_pb2.Run:
        """Return it as the catalog knows it now. NotFound."""
        request = run_pb2.GetRunRequest(bucket_id=self._calls.bucket_id, run_id=self.run_id)
        return (await self._calls.repeated(self._stub.GetRun, request)).run

    async def events(self, *, after: int = 0) -> AsyncIterator[run_event_pb2.RunEvent]:
        """Give the events with a larger sequence than `after`, each once and in order, until the run has ended.

        A lost replica or connection is not noticed here: the next one goes on after the last event given. NotFound, Unavailable.
        """
        seen = after

        async def attach() -> AsyncGenerator[run_event_pb2.RunEvent, None]:
            nonlocal seen
            request = run_pb2.WatchRunRequest(
                bucket_id=self._calls.bucket_id, run_id=self.run_id, after_sequence=seen, follow=True
            )
            async with aclosing(self._calls.stream(self._stub.WatchRun, request)) as responses:
                async for response in responses:
                    for event in response.events:
                        seen = event.sequence
                        yield event

        while True:
            async with aclosing(self._calls.followed(attach)) as events:
                async for event in events:
                    yield event
            if end_of(await self.get()) is not None:
                return
            await asyncio.sleep(LOOK_AGAIN.total_seconds())

    async def wait(self) -> Ended:
        """Wait for the end and return it; `raise_for_state()` of it raises unless the run succeeded."""
        while True:
            known = await self.get()
            ended = end_of(known)
            if ended is not None:
                return ended
            async for _ in self.events(after=known.last_sequence):
                pass

    async def cancel(self, *, requested_by: str = "") -> run_pb2.CancelLevel.ValueType:
        """Ask it to stop after the current batch; a second time, to stop now. Not repeated: a second call means something else.

        FailedPrecondition when it has ended.
        """
        request = run_pb2.CancelRunRequest(
            bucket_id=self._calls.bucket_id, run_id=self.run_id, requested_by=requested_by or user_at_host()
        )
        return (await self._calls.once(self._stub.CancelRun, request)).cancel

    async def resume(self, *, again: bool = False) -> None:
        """Make an interrupted run claimable again. FailedPrecondition for any other state.

        A shell command runs only on workers where it had not begun; with `again` also where it began and its end is not known.
        """
        request = run_pb2.ResumeRunRequest(bucket_id=self._calls.bucket_id, run_id=self.run_id, again=again)
        await self._calls.once(self._stub.ResumeRun, request)


class Runs:
    """Runs of one bucket. Asking and stopping needs the role operator, looking viewer."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = RunServiceStub(calls.channel)

    async def start(self, spec: run_spec_pb2.RunSpec, options: RunOptions = DEFAULTS) -> Run:
        """Ask for any operation. BucketHeld, Invalid. Repeatable: the request carries an id."""
        asked = run_spec_pb2.RunSpec()
        asked.CopyFrom(spec)
        asked.keep_going |= options.keep_going
        asked.keep_workdir |= options.keep_workdir
        asked.timeout_seconds = whole_seconds(options.timeout) or spec.timeout_seconds
        request = run_pb2.CreateRunRequest(
            bucket_id=self._calls.bucket_id,
            spec=asked,
            requested_by=options.requested_by or user_at_host(),
            hook_env=options.hook_env,
            lock_timeout_seconds=whole_seconds(options.lock_timeout),
            parent_run_id=options.parent_run_id,
            request_id=options.request_id or str(uuid.uuid4()),
        )
        created = await self._calls.repeated(self._stub.CreateRun, request)
        return self.get(created.run.run_id)

    def get(self, run_id: str) -> Run:
        """Return the run with this id, to be followed or cancelled; nothing is asked yet."""
        return Run(self._calls, self._stub, run_id)

    async def recent(
        self, *, kinds: Sequence[str] = (), states: Sequence[run_pb2.RunState.ValueType] = (), limit: int | None = 20
    ) -> list[run_pb2.Run]:
        """Return the newest runs first; limit None = all that are kept."""
        numbers = [enum_number(run_spec_pb2.RunKind, kind) for kind in kinds]
        request = run_pb2.ListRunsRequest(bucket_id=self._calls.bucket_id, kinds=numbers, states=states)
        return await self._calls.listed(self._stub.ListRuns, request, "runs", limit=limit)


def user_at_host() -> str:
    """Return `user@host` of this process, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without an account, as in containers
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
