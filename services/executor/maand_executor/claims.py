"""The claim loop: ask the catalog for runs, carry out several side by side, stop all of them when the executor stops."""

import asyncio
from collections.abc import Sequence

import structlog

from maand_executor.catalog_client import ClaimedRun
from maand_executor.parts import Parts
from maand_executor.runner import Runner
from maand_wire.errors import RemoteError

log = structlog.get_logger("maand.executor")


class Claims:
    """The runs one executor owns."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._active: dict[str, ClaimedRun] = {}
        self._slots = asyncio.Semaphore(parts.settings.work.runs_at_once)

    @property
    def active(self) -> Sequence[str]:
        """Ids of the runs that are being carried out."""
        return tuple(self._active)

    async def run(self) -> None:
        """Claim and carry out until cancelled; then every run's work is ended before this returns."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._slots.acquire()
                claim = await self._claim()
                if claim is None:
                    self._slots.release()
                else:
                    tasks.create_task(self._carry_out(claim))

    async def _claim(self) -> ClaimedRun | None:
        settings = self._parts.settings
        try:
            return await self._parts.catalog.claim_run(
                self._parts.executor_id, wait=settings.lease.claim_wait, bucket_ids=settings.bucket_ids
            )
        except RemoteError as error:
            log.warning("cannot ask for runs", reason=error.message)
        except Exception:  # an answer that makes no sense must not end the loop
            log.exception("a claim could not be understood")
        await asyncio.sleep(settings.lease.retry_pause.total_seconds())
        return None

    async def _carry_out(self, claim: ClaimedRun) -> None:
        run_id = claim.identity.run_id
        self._active[run_id] = claim
        try:
            with structlog.contextvars.bound_contextvars(run=run_id, kind=claim.kind):
                await Runner(self._parts, claim).carry_out()
        except Exception:  # one run's accident must not end the others
            log.exception("run abandoned", run=run_id)
        finally:
            del self._active[run_id]
            self._slots.release()
