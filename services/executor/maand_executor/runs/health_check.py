"""`maand health_check`: worker SSH ports first, then per job the manifest's probes and the `health_check` hooks.

Jobs side by side. Nothing configured = skipped, says so.
"""

from collections.abc import Iterable, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.task_pb2 import WorkerOutcome
from maand_executor.output import events
from maand_executor.rules.facts import Allocation, Job, RolloutOrder, TcpProbe, Worker
from maand_executor.rules.health import Prober, ProbeResult
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.rules.waves import in_rollout_order
from maand_executor.ssh.errors import SshError
from maand_executor.steps.certificates import check_certificates
from maand_executor.steps.context import RunContext
from maand_executor.steps.failures import failure_of_ssh_error
from maand_executor.steps.fan_out import FanOut, UnknownOutcome, failed_outcome, plain_spec, succeeded_outcome, work_on_each
from maand_executor.steps.fleet import Fleet, read_fleet
from maand_executor.steps.health_gate import PROBES_AT_ONCE, HealthGate

SSH = "ssh"
UNCONFIGURED = "no probes and no health_check hooks"


async def check_health(context: RunContext) -> None:
    """Check what was asked for; the report says who is unhealthy."""
    fleet = await read_fleet(context)
    jobs = [job for job in fleet.jobs_named(context.spec.health_check.jobs).values() if not job.removed]
    ended = await check_certificates(context, [one for job in jobs for one in fleet.active_of_job(job.name)])
    failures = await check_ssh(context, workers_of_jobs(fleet, jobs))
    context.report.fail(failures)

    async def check(job: Job) -> None:
        await check_job(context, fleet, job, [failure for failure in ended if failure.job == job.name])

    await side_by_side(jobs, check, limit=context.config.max_parallel_jobs)
    unhealthy = context.report.counts["unhealthy"]
    checked = context.report.counts["healthy"] + unhealthy
    bad = [f"{unhealthy} of {checked} allocations are unhealthy"] if unhealthy else []
    bad += [f"{len(failures)} workers cannot be reached"] if failures else []
    context.report.message = ", ".join(bad) or (f"{checked} allocations are healthy" if checked else f"skipped: {UNCONFIGURED}")


def workers_of_jobs(fleet: Fleet, jobs: Iterable[Job]) -> list[Worker]:
    """Return the workers on which the jobs are meant to run."""
    names = {one.worker for job in jobs for one in fleet.active_of_job(job.name)}
    return sorted((fleet.worker(name) for name in names), key=lambda worker: (worker.position, worker.name))


async def check_ssh(context: RunContext, workers: Sequence[Worker]) -> list[pb.Failure]:
    """Look whether workers' SSH ports answer; behind a jump host only a login can tell."""
    if context.config.ssh_config:
        outcomes = await FanOut(
            context, plain_spec("login"), work_on_each(log_in_to_worker), unknown=UnknownOutcome(step=SSH)
        ).run(workers)
        return [one.failure for one in outcomes if one.HasField("failure")]
    timeout = context.settings.connect_timeout
    results = await side_by_side(
        workers,
        lambda worker: Prober(worker=worker).probe(TcpProbe(port=worker.ssh_port or context.config.ssh_port), timeout),
        limit=PROBES_AT_ONCE,
    )
    return [port_failure(result) for result in results if not result.healthy]


async def log_in_to_worker(context: RunContext, worker: Worker) -> WorkerOutcome:
    """Log in on a worker."""
    try:
        await context.remote.connect(worker)
    except SshError as error:
        return failed_outcome(failure_of_ssh_error(error, worker=worker.name, step=SSH))
    return succeeded_outcome(worker.name)


def port_failure(result: ProbeResult) -> pb.Failure:
    """Say that a worker's SSH port does not answer."""
    message = f"SSH port does not answer ({result.problem})"
    return pb.Failure(kind=pb.FAILURE_KIND_UNREACHABLE, worker=result.worker, step=SSH, message=message)


async def check_job(context: RunContext, fleet: Fleet, job: Job, ended: Sequence[pb.Failure]) -> None:
    """Check one job. `ended` are failures of its certificates: an allocation that has one is not healthy, whatever it answers."""
    gate = HealthGate(context, fleet, job)
    active = fleet.active_of_job(job.name)
    if not (gate.is_configured or ended) or not active:
        why = UNCONFIGURED if active else "no active allocations"
        context.report.count("skipped", len(active))
        context.journal.report(events.job_finished(job=job.name, outcome=pb.JOB_OUTCOME_SKIPPED, message=f"skipped: {why}"))
        return
    order = await context.catalog.read_rollout_order(context.identity.bucket_id, job.name)
    failures = await gate.check(in_rollout_order(active, order.workers), order, wait=context.spec.health_check.wait)
    report_job_health(context, job, active, order, [*ended, *failures])


def report_job_health(
    context: RunContext, job: Job, active: Sequence[Allocation], order: RolloutOrder, failures: Sequence[pb.Failure]
) -> None:
    """Count, and say how the job is."""
    workers = {failure.worker for failure in failures}
    context.report.fail(failures)
    context.report.count("unhealthy", len(workers))
    context.report.count("healthy", len(active) - len(workers))
    outcome = pb.JOB_OUTCOME_FAILED if failures else pb.JOB_OUTCOME_SUCCEEDED
    unwell = ", ".join(one.worker for one in in_rollout_order(active, order.workers) if one.worker in workers)
    message = f"unhealthy: {unwell}" if failures else "healthy"
    context.journal.report(events.job_finished(job=job.name, outcome=outcome, message=message))
