"""Health of allocations: the manifest's probes, then the `health_check` hooks; once, or until healthy.

A gate looks at its batch and at what this run promoted before; peers that were unhealthy before the run are told, not fatal, so a
rolling fix of a broken fleet works. The deadline ends an attempt that hangs.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.hooks.outcome_messages import failures_of
from maand_executor.output import events
from maand_executor.rules.facts import Allocation, HealthCheck, HttpProbe, Job, RolloutOrder, Worker
from maand_executor.rules.health import Prober, ProbeResult, tls_context_of_ca
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import run_event_hooks
from maand_executor.steps.fleet import Fleet

HEALTH = "health"
SHORTEST_PAUSE = 0.05
"""Seconds between two attempts, however long the one before took."""
PROBES_AT_ONCE = 200
"""Open sockets of probes; far below the open-file limit."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try."""

    attempts: int
    interval: timedelta

    @property
    def limit(self) -> timedelta:
        """How long all attempts together may take."""
        return self.attempts * self.interval


class HealthGate:
    """Judges the health of one job's allocations in one run."""

    def __init__(self, context: RunContext, fleet: Fleet, job: Job) -> None:
        self._context = context
        self._fleet = fleet
        self._job = job
        self._check = job.health_check or HealthCheck()
        self._hooks = job.hooks_on("health_check")
        self._prober: Prober | None = None

    @property
    def is_configured(self) -> bool:
        """Whether there is anything to check."""
        return bool(self._check.probes or self._hooks)

    async def check(self, allocations: Sequence[Allocation], order: RolloutOrder, *, wait: bool) -> list[pb.Failure]:
        """Return what is unhealthy: now, or still at the deadline. Empty = healthy, or nothing to check."""
        if not self.is_configured or not allocations:
            return []
        patience = self._patience(wait=wait)
        found: list[pb.Failure] = []
        try:
            async with asyncio.timeout(patience.limit.total_seconds()):
                await self._until_healthy(allocations, order, patience, found)
        except TimeoutError:
            return found or [self._timed_out(patience)]
        return found

    async def unhealthy_now(self, allocations: Sequence[Allocation]) -> tuple[ProbeResult, ...]:
        """Return failing probes of one look, hooks left out: how peers were before the run touched the job."""
        if not self._check.probes or not allocations:
            return ()
        return tuple(result for result in await self._probe(allocations) if not result.healthy)

    async def _until_healthy(
        self, allocations: Sequence[Allocation], order: RolloutOrder, patience: Patience, found: list[pb.Failure]
    ) -> None:
        """Try until healthy or out of attempts; `found` always holds what the last finished attempt saw."""
        for attempt in range(patience.attempts):
            began = time.monotonic()
            found[:] = await self._attempt(allocations, order)
            if not found or attempt + 1 == patience.attempts:
                return
            if attempt == 0:
                self._tell_waiting(found, len(allocations), patience)
            # The interval counts from the beginning of an attempt. One that took longer than that is followed by a breath all the
            # same: probes that fail at once, with an interval of 0, would keep the worker and this loop busy.
            await asyncio.sleep(max(patience.interval.total_seconds() - (time.monotonic() - began), SHORTEST_PAUSE))

    async def _attempt(self, allocations: Sequence[Allocation], order: RolloutOrder) -> list[pb.Failure]:
        unhealthy = [self._failure(result) for result in await self._probe(allocations) if not result.healthy]
        if unhealthy or not self._hooks:
            return unhealthy
        outcome = await run_event_hooks(self._context, self._fleet, self._job, "health_check", allocations, order=order)
        return failures_of(self._job.name, outcome.failed)

    async def _probe(self, allocations: Sequence[Allocation]) -> list[ProbeResult]:
        prober = await self._make_prober()
        looks = [(self._fleet.worker(one.worker), probe) for one in allocations for probe in self._check.probes]
        return await side_by_side(looks, lambda look: prober.probe(look[0], look[1], self._check.timeout), limit=PROBES_AT_ONCE)

    async def _make_prober(self) -> Prober:
        if self._prober is None:
            self._prober = Prober(run_command=self._run_command, tls=await self._trust())
        return self._prober

    async def _trust(self) -> ssl.SSLContext | None:
        """Return what HTTPS probes trust, where there are any: the bucket's CA."""
        if not any(isinstance(probe, HttpProbe) and probe.scheme == "https" for probe in self._check.probes):
            return None
        certificates = await self._context.catalog.read_certificates(self._context.identity.bucket_id, ())
        return tls_context_of_ca(certificates.ca_certificate_pem)

    async def _run_command(self, worker: Worker, command: str, limit: timedelta) -> int:
        sudo = self._context.config.use_sudo
        result = await self._context.remote.run(worker, RemoteCommand(script=command, sudo=sudo, timeout=limit))
        return result.exit_code

    def _patience(self, *, wait: bool) -> Patience:
        """Return how long to try: never less than the slowest probe, or hook with a limit of its own, may take once."""
        longest = max([self._check.timeout, *(hook.timeout or timedelta() for hook in self._hooks)])
        if not wait:
            # One attempt: probes, and after them hooks. One that names no timeout has the bucket's, which is not in `longest`.
            return Patience(attempts=1, interval=longest if not self._hooks else longest + self._context.config.hook_timeout)
        attempts = max(self._check.wait_attempts, 1)
        # All attempts together get at least what the slowest probe or hook may take: one attempt, a second apart, would end a
        # probe that has five seconds.
        return Patience(attempts=attempts, interval=max(self._check.wait_interval, longest / attempts))

    def _tell_waiting(self, found: Sequence[pb.Failure], watched: int, patience: Patience) -> None:
        unhealthy = len({failure.worker for failure in found})
        reason = f"health of {self._job.name} ({watched - unhealthy} of {watched})"
        self._context.journal.report(events.waiting_event(job=self._job.name, reason=reason, limit=patience.limit))

    def _failure(self, result: ProbeResult) -> pb.Failure:
        return pb.Failure(
            kind=pb.FAILURE_KIND_UNHEALTHY, job=self._job.name, worker=result.worker, step=HEALTH, message=result.problem
        )

    def _timed_out(self, patience: Patience) -> pb.Failure:
        message = f"{self._job.name} was not healthy within {patience.limit.total_seconds():g} s"
        return pb.Failure(kind=pb.FAILURE_KIND_UNHEALTHY, job=self._job.name, step=HEALTH, message=message)
