"""`maand worker ping | facts | trust | adopt`: what can be found out about workers.

Each worker is told, whatever the others are like.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec_pb
from maand_contracts.catalog.v1.task_pb2 import WorkerOutcome
from maand_executor.errors import InvalidRequest, NotBuilt
from maand_executor.output import events
from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.rules.worker_scripts import facts_script, parse_worker_facts, preflight_script
from maand_executor.runs.worker_host_keys import look_at_host_keys, report_of_sight
from maand_executor.runs.worker_owner import OwnerProbe
from maand_executor.ssh.errors import CommandNotStarted, ConnectionUnusable, ForeignWorker, SshError
from maand_executor.steps.context import RunContext
from maand_executor.steps.failures import failure_of_ssh_error
from maand_executor.steps.fan_out import FanOut, UnknownOutcome, failed_outcome, plain_spec, succeeded_outcome, work_on_each
from maand_executor.steps.fleet import known_names
from maand_executor.steps.preflight import objection_to

PROBE = "probe"

Probe = Callable[[RunContext, Worker], Awaitable[pb.WorkerReport]]


async def probe_workers(context: RunContext) -> None:
    """Find it out on all or the named workers."""
    spec = context.spec.worker_probe
    if spec.probe not in (*PROBES, spec_pb.WORKER_PROBE_OWNER, spec_pb.WORKER_PROBE_HOST_KEYS):
        raise InvalidRequest("no probe was named", help="say ping, facts, trust or adopt")
    if not context.config.built:
        raise NotBuilt("nothing was built in this bucket yet")
    workers = await context.catalog.list_workers(context.identity.bucket_id, include_removed=True)
    present = [worker for worker in workers if not worker.removed]
    named = known_names("worker", spec.workers, [worker.name for worker in present])
    chosen = [worker for worker in present if not named or worker.name in named]
    outcomes = await probe_all(context, chosen, known=workers)
    count_probed(context, outcomes)
    context.report.message = f"{context.report.counts['succeeded']} of {len(chosen)} workers are well"


async def probe_all(context: RunContext, workers: Sequence[Worker], *, known: Sequence[Worker]) -> list[WorkerOutcome]:
    """Probe them all; host keys here, because pinned ones are kept beside this executor's key, and so what changes workers."""
    if context.spec.worker_probe.probe == spec_pb.WORKER_PROBE_OWNER:
        probe = OwnerProbe(known)
        return await side_by_side(workers, lambda worker: report_probe(context, worker, probe))
    if context.spec.worker_probe.probe == spec_pb.WORKER_PROBE_HOST_KEYS:
        sights = await look_at_host_keys(context, workers)
        return [tell_report(context, one.worker, report_of_sight(one), one.error or one.objection) for one in sights]
    return await FanOut(context, plain_spec("probe"), work_on_each(probe_worker), unknown=UnknownOutcome(step=PROBE)).run(workers)


async def probe_worker(context: RunContext, worker: Worker) -> WorkerOutcome:
    """Look at one worker as the run says and tell what was found."""
    return await report_probe(context, worker, PROBES[context.spec.worker_probe.probe])


async def report_probe(context: RunContext, worker: Worker, probe: Probe) -> WorkerOutcome:
    """Look at one worker and tell what was found."""
    try:
        report = await probe(context, worker)
    except SshError as error:
        reached = isinstance(error, CommandNotStarted)
        return tell_report(context, worker, pb.WorkerReport(reachable=reached, problem=error.reason_on(worker.name)), error)
    return tell_report(context, worker, report)


def tell_report(context: RunContext, worker: Worker, report: pb.WorkerReport, error: SshError | None = None) -> WorkerOutcome:
    """Tell what was found, and return it with why the worker is not well, if it is not."""
    context.journal.report(events.worker_reported(worker.name, report))
    failure = failure_of_ssh_error(error, worker=worker.name) if error else probe_failure(worker, report)
    outcome = failed_outcome(failure) if failure else succeeded_outcome(worker.name)
    outcome.report.CopyFrom(report)
    return outcome


def probe_failure(worker: Worker, report: pb.WorkerReport) -> pb.Failure | None:
    """Return what a worker that was reached is not well for, with the command that mends it. None = it is well."""
    if not report.problem:
        return None
    failure = pb.Failure(kind=pb.FAILURE_KIND_PREREQUISITE, worker=worker.name, step=PROBE, message=report.problem)
    if report.HasField("mark"):
        failure.help = ForeignWorker.help.format(worker=worker.name)
    return failure


def count_probed(context: RunContext, outcomes: Sequence[WorkerOutcome]) -> None:
    """Count, and keep what is wrong."""
    for one in outcomes:
        context.report.count("failed" if one.HasField("failure") else "succeeded")
        if one.HasField("failure"):
            context.report.fail([one.failure])


async def probe_connection(context: RunContext, worker: Worker) -> pb.WorkerReport:
    """Reach it, look for its tools, and time a command on the open connection."""
    await context.remote.connect(worker)
    began = time.monotonic()
    said = await ask_worker(context, worker, preflight_script(sudo=context.config.use_sudo))
    took = time.monotonic() - began
    if objection := objection_to(worker, said):
        raise objection
    return pb.WorkerReport(reachable=True, round_trip_seconds=took)


async def probe_memory_and_cpu(context: RunContext, worker: Worker) -> pb.WorkerReport:
    """Read its memory and CPU."""
    found = parse_worker_facts(await ask_worker(context, worker, facts_script()))
    if found is None:
        return pb.WorkerReport(reachable=True, problem="does not tell its memory and CPU in /proc")
    return pb.WorkerReport(reachable=True, memory_mb=found.memory_mb, cpu_mhz=found.cpu_mhz)


async def ask_worker(context: RunContext, worker: Worker, script: str) -> str:
    """Run a script that only looks, and return what it printed."""
    command = RemoteCommand(script=script, sudo=False, timeout=context.settings.preflight_timeout)
    result = await context.remote.run(worker, command)
    if result.timed_out:
        raise ConnectionUnusable(worker.name, f"did not answer within {context.settings.preflight_timeout.total_seconds():g} s")
    return result.stdout.decode(errors="replace")


PROBES: Mapping[int, Probe] = {
    spec_pb.WORKER_PROBE_PING: probe_connection,
    spec_pb.WORKER_PROBE_FACTS: probe_memory_and_cpu,
}
