"""Which workers a deploy will touch, and whether they are ready: before anything changes."""

from collections.abc import Mapping
from dataclasses import replace

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.deploy.plan import JobPlan
from maand_executor.deploy.reconcile import plan_stops, touches_worker
from maand_executor.deploy.state import Deploy, may_be_left_out
from maand_executor.errors import RunFailed
from maand_executor.rules.facts import Job
from maand_executor.steps.failures import name_way_out


async def check_affected_workers(deploy: Deploy, plans: Mapping[str, JobPlan]) -> dict[str, JobPlan]:
    """Check them, and return the plans without the workers that are left out. Raises `RunFailed` before anything changed.

    A worker that left the fleet is only there to be cleaned up: where nothing can be connected to, it counts as dead; in any
    other trouble it is left out with `--skip-unreachable` or `--keep-going`. Others that are unreachable stop the deploy, or are
    left out with `--skip-unreachable`.
    """
    names = stopped_workers(deploy) - deploy.dead | rolled_out_workers(deploy, plans)
    failures = await deploy.preflight.check(map(deploy.fleet.worker, names))
    fatal = [
        name_way_out(failure, deploy.fleet.worker(failure.worker)) for failure in failures if not is_tolerated(deploy, failure)
    ]
    if fatal:
        sentence = f"{len(fatal)} of {len(names)} workers are not ready; nothing was changed"
        raise RunFailed(sentence, failures=fatal)
    tell_left_out(deploy)
    return {job: leave_out_workers(plan, deploy.left_out) for job, plan in plans.items()}


def stopped_workers(deploy: Deploy) -> set[str]:
    """Return workers on which something is stopped."""
    return {plan.allocation.worker for job in deploy.jobs for plan in plan_stops(deploy, job) if touches_worker(plan)}


def rolled_out_workers(deploy: Deploy, plans: Mapping[str, JobPlan]) -> set[str]:
    """Return workers to which something is, or may be, rolled out."""
    present = [job for job in deploy.jobs.values() if not job.removed]
    return {name for job in present for name in workers_of_job(deploy, job, plans.get(job.name))}


def workers_of_job(deploy: Deploy, job: Job, plan: JobPlan | None) -> set[str]:
    """Return a job's workers: those of its plan, or all while it cannot be planned."""
    if plan is None:
        return {one.worker for one in deploy.candidates(job.name)}
    return {one.allocation.worker for one in plan.rolled_out}


def is_tolerated(deploy: Deploy, failure: pb.Failure) -> bool:
    """Whether a deploy goes on without this worker; it is remembered as dead, or as left out."""
    worker = deploy.fleet.worker(failure.worker)
    if worker.removed and failure.kind == pb.FAILURE_KIND_UNREACHABLE:
        deploy.dead.add(worker.name)
        deploy.context.warn(f"{worker.name} left the fleet and cannot be reached: assumed dead, nothing was stopped there")
        return True
    if may_be_left_out(deploy, failure):
        deploy.left_out.add(worker.name)
        return True
    if worker.removed and deploy.context.spec.keep_going:
        deploy.left_out.add(worker.name)
        deploy.context.report.fail([name_way_out(failure, worker)])
        return True
    return False


def tell_left_out(deploy: Deploy) -> None:
    """Tell which workers are left out, and how many allocations that are."""
    deploy.context.report.leave_out(sorted(deploy.left_out))
    skipped = [one for name in deploy.left_out for one in deploy.fleet.on_worker(name) if one.job in deploy.jobs]
    deploy.context.report.count("unreachable", len(skipped))


def leave_out_workers(plan: JobPlan, left_out: set[str]) -> JobPlan:
    """Return a plan without the workers left out."""
    if not left_out:
        return plan
    return replace(plan, plans=tuple(one for one in plan.plans if one.allocation.worker not in left_out))
