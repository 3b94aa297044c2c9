"""Tokens of hook processes: begun a batch at a time, ended as soon as their process ended.

Ends that come while a call is under way go together in the next: a batch of 50 hooks that finish at once costs two calls.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from maand_executor.content.content_store import BlobSource
from maand_executor.rules.facts import (
    BegunInvocation,
    Certificates,
    InvocationEnd,
    InvocationOutcome,
    InvocationStart,
    JobFile,
    RunIdentity,
)
from maand_wire.errors import RemoteError

log = structlog.get_logger("maand.hooks")


class HookCatalog(BlobSource, Protocol):
    """What hooks need of the catalog: identity, content and certificates. `CatalogClient` gives it, and a fake in the tests."""

    async def list_job_files(self, bucket_id: str, job: str) -> tuple[JobFile, ...]:
        """Return the stored files of one job."""
        ...

    async def read_certificates(self, bucket_id: str, allocation_ids: Sequence[str]) -> Certificates:
        """Return certificates with private keys, and the bucket's CA certificate."""
        ...

    async def begin_invocations(self, run: RunIdentity, starts: Sequence[InvocationStart]) -> tuple[BegunInvocation, ...]:
        """Give hook processes their identity, in the order asked."""
        ...

    async def end_invocations(self, bucket_id: str, ends: Sequence[InvocationEnd]) -> None:
        """Revoke tokens, release semaphores."""
        ...


class Identities:
    """Begins and ends the invocations of one run's event."""

    def __init__(self, catalog: HookCatalog, run: RunIdentity) -> None:
        self._catalog = catalog
        self._run = run
        self._lock = asyncio.Lock()
        self._alive: set[str] = set()
        self._ended: list[InvocationEnd] = []

    async def begin(self, starts: Sequence[InvocationStart]) -> tuple[BegunInvocation, ...]:
        """Get a token for each. Raises `RemoteError` with `stale_fence` when another executor owns the run."""
        begun = await self._catalog.begin_invocations(self._run, starts)
        self._alive |= {one.invocation_id for one in begun}
        return begun

    async def end(self, invocation_id: str, outcome: InvocationOutcome) -> None:
        """Return when the token is revoked and its semaphores are free. The first end of an invocation counts.

        A catalog that stays away is no reason to fail a hook that ended well: the end of the run, or of its lease,
        revokes it too.
        """
        if invocation_id not in self._alive:
            return
        self._alive.discard(invocation_id)
        end = InvocationEnd(invocation_id=invocation_id, outcome=outcome)
        self._ended.append(end)
        async with self._lock:
            if end not in self._ended:
                return
            ends, self._ended = self._ended, []
            try:
                await self._catalog.end_invocations(self._run.bucket_id, ends)
            except RemoteError as error:
                log.warning("tokens not revoked yet", run=self._run.run_id, invocations=len(ends), reason=error.message)

    async def end_all(self) -> None:
        """End what was begun and never ran: its batch was broken off before."""
        await asyncio.gather(*(self.end(one, InvocationOutcome.INTERRUPTED) for one in tuple(self._alive)))
