"""Health of allocations: the manifest's probes, then the `health_check` hooks; once, or until healthy.

A gate looks at its batch and at what this run promoted before; peers that were unhealthy before the run are told, not fatal, so a
rolling fix of a broken fleet works.

Limits nest. Each probe and each hook has its own and ends with an outcome of its own; so whatever hangs is named, and takes
nothing of what others told with it. A gate begins no attempt when its time is over, and its hooks, which may have ten minutes of
their own, get what is left of it. Probes are never cut short: on a slow machine the last attempt would find healthy ones sick.
"""

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.hooks.request import HEALTH_CHECK
from maand_executor.output import events
from maand_executor.rules.facts import Allocation, HealthCheck, HttpProbe, Job, Probe, RolloutOrder
from maand_executor.rules.health import OnOutput, Prober, ProbeResult, tls_context_of_ca
from maand_executor.rules.output_lines import tail_lines
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.rules.worker_scripts import job_directory, make_environment
from maand_executor.steps.context import RunContext
from maand_executor.steps.event_hooks import failures_of_unrun_hooks, failures_or_cancelled, run_event_hooks
from maand_executor.steps.fleet import Fleet

HEALTH = "health"
SHORTEST_PAUSE = 0.05
"""Seconds between two attempts, however long the one before took."""
PROBES_AT_ONCE = 200
"""Open sockets of probes; far below the open-file limit."""
SHOWN = 3
REASON_LENGTH = 120
"""Reasons that a waiting event gives, workers of each, and characters of one: a gate may tell often, of many."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try. `look` is what probes, and hooks that name a limit, may take once."""

    attempts: int
    interval: timedelta
    look: timedelta

    @property
    def limit(self) -> timedelta:
        """How long all attempts together may take."""
        return self.attempts * self.interval


class Deadline:
    """The end of a gate's time. What was begun in time may take a look's time, whatever is left."""

    def __init__(self, patience: Patience) -> None:
        self._look = patience.look
        self._at = time.monotonic() + patience.limit.total_seconds()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is begun."""
        return time.monotonic() >= self._at

    @property
    def left(self) -> timedelta:
        """How long something that begins now may take."""
        return max(timedelta(seconds=self._at - time.monotonic()), self._look)


class HealthGate:
    """Judges the health of one job's allocations in one run."""

    def __init__(self, context: RunContext, fleet: Fleet, job: Job) -> None:
        self._context = context
        self._fleet = fleet
        self._job = job
        self._check = job.health_check or HealthCheck()
        self._hooks = job.hooks_on("health_check")

    @property
    def is_configured(self) -> bool:
        """Whether there is anything to check."""
        return bool(self._check.probes or self._hooks)

    async def check(self, allocations: Sequence[Allocation], order: RolloutOrder, *, wait: bool) -> list[pb.Failure]:
        """Return what is unhealthy: now, or when the time is over. Empty = healthy, or nothing to check.

        Every failure names its worker. Raises `JobCancelled` when a cancel ended the hooks: then nothing is known to be healthy.
        """
        if not self.is_configured or not allocations:
            return []
        tls = await self._trust()
        if not wait:
            return await self._attempt(allocations, order, tls, deadline=None)
        return await self._until_healthy(allocations, order, tls)

    async def unhealthy_now(self, allocations: Sequence[Allocation]) -> tuple[ProbeResult, ...]:
        """Return failing probes of one look, hooks left out: how peers were before the run touched the job."""
        if not self._check.probes or not allocations:
            return ()
        return tuple(await self._failing_probes(allocations, await self._trust()))

    async def _until_healthy(
        self, allocations: Sequence[Allocation], order: RolloutOrder, tls: ssl.SSLContext | None
    ) -> list[pb.Failure]:
        """Try until healthy, out of attempts or out of time; return what the last attempt saw."""
        patience, told = self._patience(), ""
        deadline = Deadline(patience)
        for attempt in range(patience.attempts):
            began = time.monotonic()
            found = await self._attempt(allocations, order, tls, deadline)
            if not found or attempt + 1 == patience.attempts:
                break
            told = self._tell_waiting(found, len(allocations), deadline, told)
            # The interval counts from the beginning of an attempt. One that took longer than that is followed by a breath all the
            # same: probes that fail at once, with an interval of 0, would keep the worker and this loop busy.
            await asyncio.sleep(max(patience.interval.total_seconds() - (time.monotonic() - began), SHORTEST_PAUSE))
            if deadline.is_over:
                break
        return found

    async def _attempt(
        self, allocations: Sequence[Allocation], order: RolloutOrder, tls: ssl.SSLContext | None, deadline: Deadline | None
    ) -> list[pb.Failure]:
        """Look once: at every allocation with probes, then with hooks at those that passed; what no failure names is healthy."""
        unhealthy = [await self._failure(result) for result in await self._failing_probes(allocations, tls)]
        sick = {failure.worker for failure in unhealthy}
        well = [one for one in allocations if one.worker not in sick]
        outcome = await run_event_hooks(
            self._context,
            self._fleet,
            self._job,
            HEALTH_CHECK,
            well,
            order=order,
            time_limit=deadline.left if deadline else None,
        )
        unhealthy += failures_or_cancelled(self._job.name, outcome)
        return unhealthy + failures_of_unrun_hooks(self._job, HEALTH_CHECK, outcome, well)

    async def _failing_probes(self, allocations: Sequence[Allocation], tls: ssl.SSLContext | None) -> list[ProbeResult]:
        async def look(one: tuple[Prober, Probe]) -> ProbeResult:
            prober, probe = one
            return await prober.probe(probe, self._check.timeout)

        probers = [self._prober(one, tls) for one in allocations]
        looks = [(prober, probe) for prober in probers for probe in self._check.probes]
        return [result for result in await side_by_side(looks, look, limit=PROBES_AT_ONCE) if not result.healthy]

    def _prober(self, allocation: Allocation, tls: ssl.SSLContext | None) -> Prober:
        """Return what probes an allocation; commands run where and as its lifecycle commands do."""
        worker = self._fleet.worker(allocation.worker)

        async def run_command(text: str, limit: timedelta, on_output: OnOutput) -> int:
            command = RemoteCommand(
                script=text,
                environment=make_environment(allocation),
                directory=job_directory(self._context.config, self._job.name),
                sudo=self._context.config.use_sudo,
                timeout=limit,
                capture_limit=0,
            )
            return (await self._context.remote.run(worker, command, on_output=on_output)).exit_code

        return Prober(worker=worker, run_command=run_command, tls=tls)

    async def _trust(self) -> ssl.SSLContext | None:
        """Return what HTTPS probes trust, where there are any: the bucket's CA."""
        if not any(isinstance(probe, HttpProbe) and probe.scheme == "https" for probe in self._check.probes):
            return None
        certificates = await self._context.catalog.read_certificates(self._context.identity.bucket_id, ())
        return tls_context_of_ca(certificates.ca_certificate_pem)

    def _patience(self) -> Patience:
        """Return how long to try: never less than the slowest probe, or hook with a limit of its own, may take once."""
        look = max([self._check.timeout, *(hook.timeout or timedelta() for hook in self._hooks)])
        attempts = max(self._check.wait_attempts, 1)
        # All attempts together get at least what the slowest probe or hook may take: one attempt, a second apart, would end a
        # probe that has five seconds.
        return Patience(attempts=attempts, interval=max(self._check.wait_interval, look / attempts), look=look)

    def _tell_waiting(self, found: Sequence[pb.Failure], watched: int, deadline: Deadline, told: str) -> str:
        """Say what is waited for, and why, when that is not what was told before; return what is told now."""
        reason = f"health of {self._job.name} {describe_unhealthy(found, watched)}"
        if reason != told:
            self._context.journal.report(events.waiting_event(job=self._job.name, reason=reason, limit=deadline.left))
        return reason

    async def _failure(self, result: ProbeResult) -> pb.Failure:
        return pb.Failure(
            kind=pb.FAILURE_KIND_UNHEALTHY,
            job=self._job.name,
            worker=result.worker,
            step=HEALTH,
            message=result.problem,
            last_lines=tail_lines(await self._context.journal.masked(result.output)) if result.output else (),
        )


def describe_unhealthy(found: Sequence[pb.Failure], watched: int) -> str:
    """Say how many are healthy, and why the others are not: one reason for each, the same of many once."""
    reasons = {failure.worker: reason_of_failure(failure) for failure in reversed(found)}
    workers: dict[str, list[str]] = defaultdict(list)
    for worker, reason in sorted(reasons.items()):
        workers[reason].append(worker)
    told = [f"{first_of(where)}: {reason}" for reason, where in workers.items()]
    return f"({watched - len(reasons)} of {watched}): {first_of(told, '; ')}"


def first_of(words: Sequence[str], between: str = ", ") -> str:
    """Name the first of many, and how many there are besides."""
    more = len(words) - SHOWN
    return between.join(words[:SHOWN]) + (f"{between}and {more} more" if more > 0 else "")


def reason_of_failure(failure: pb.Failure) -> str:
    """Say in one short line why an allocation is not healthy."""
    text = failure.message if failure.step == HEALTH else f"{failure.step}: {failure.message}"
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 1] + "…"
