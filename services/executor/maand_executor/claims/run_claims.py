"""The claims of runs: ask the catalog for runs, carry out several side by side, stop all of them when the executor stops."""

from collections.abc import Sequence

import structlog

from maand_executor.catalog_client import ClaimedRun
from maand_executor.claims.claim_loop import ClaimLoop, ask_or_pause
from maand_executor.claims.runner import Runner
from maand_executor.steps.context import Parts

log = structlog.get_logger("maand.executor")


class Claims:
    """The runs one executor owns."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._active: dict[tuple[str, int], ClaimedRun] = {}
        """By run and fence: after a freeze the run may be claimed again before its older claim is wound up."""
        self._loop = ClaimLoop(
            "claims of runs", at_once=parts.settings.work.runs_at_once, claim=self._claim, carry_out=self._carry_out
        )

    @property
    def active(self) -> Sequence[str]:
        """Ids of the runs that are being carried out, each once."""
        return tuple(dict.fromkeys(run_id for run_id, _ in self._active))

    async def run(self) -> None:
        """Claim and carry out until cancelled; then every run's work is ended before this returns."""
        await self._loop.run()

    async def _claim(self) -> ClaimedRun | None:
        settings = self._parts.settings
        return await ask_or_pause(
            "runs",
            lambda: self._parts.catalog.claim_run(
                self._parts.executor_id, wait=settings.lease.claim_wait, bucket_ids=settings.bucket_ids
            ),
            pause=settings.lease.retry_pause,
        )

    async def _carry_out(self, claim: ClaimedRun) -> None:
        run = claim.identity
        self._active[run.run_id, run.fence] = claim
        try:
            with structlog.contextvars.bound_contextvars(run=run.run_id, kind=claim.kind):
                await Runner(self._parts, claim).carry_out()
        except Exception:  # one run's accident must not end the others
            log.exception("run abandoned", run=run.run_id, fence=run.fence)
        finally:
            self._active.pop((run.run_id, run.fence), None)
