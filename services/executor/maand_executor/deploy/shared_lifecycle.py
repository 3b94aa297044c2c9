"""Carrying out a part of a batch for the owner of a run: everything that is copied is rendered here, from the catalog."""

from collections.abc import Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.task_pb2 import LifecycleStep as StepMessage
from maand_contracts.catalog.v1.task_pb2 import LifecycleTask, TaskSpec
from maand_executor.catalog_client import to_allocation
from maand_executor.content.staged_trees import StagedTrees
from maand_executor.deploy.plan import make_trees
from maand_executor.errors import CannotRender
from maand_executor.rules.facts import Job, Worker
from maand_executor.steps.context import RunContext, TellOutcome
from maand_executor.steps.fan_out import failed_outcome, work_on_each
from maand_executor.steps.fleet import Fleet
from maand_executor.steps.lifecycle_steps import ACT_MESSAGES, AGAIN_HELP, COPY, Act, Copies, LifecycleStep, LifecycleSteps
from maand_executor.steps.worker_files import WorkerFiles

ACT_OF = {message: act for act, message in ACT_MESSAGES.items()}


async def do_lifecycle(context: RunContext, spec: TaskSpec, workers: Sequence[Worker], tell: TellOutcome) -> None:
    """Do what the owner of the run planned for these workers. What cannot be rendered has failed on all of them."""
    task, names = spec.lifecycle, {worker.name for worker in workers}
    steps = [step_from_message(step) for step in task.steps if step.allocation.worker in names]
    try:
        copies = await make_copies(context, task, steps, workers)
    except CannotRender as error:
        for worker in workers:
            tell(failed_outcome(render_failure(task.job, worker, error)))
        return
    steps_of_job = LifecycleSteps(task.job, steps, copies=copies)
    await work_on_each(steps_of_job.on)(context, spec, workers, tell)


async def make_copies(
    context: RunContext, task: LifecycleTask, steps: Sequence[LifecycleStep], workers: Sequence[Worker]
) -> Copies | None:
    """Render what is to be copied. Raises `CannotRender`."""
    copied = [step.allocation for step in steps if step.copy]
    if not copied:
        return None
    bucket_id = context.identity.bucket_id
    placed = await context.catalog.list_allocations(bucket_id, workers=[worker.name for worker in workers])
    fleet = Fleet(workers={worker.name: worker for worker in workers}, jobs={}, allocations=placed)
    return Copies(
        trees=await make_trees(context, fleet, Job(name=task.job), copied),
        staged_trees=StagedTrees(bucket_id, context.content, context.staging_dir),
        worker_files=WorkerFiles(context, fleet),
    )


def step_from_message(step: StepMessage) -> LifecycleStep:
    """Read one step."""
    act = ACT_OF.get(step.act, Act.NOTHING)
    return LifecycleStep(allocation=to_allocation(step.allocation), copy=step.copy_sha256, act=act, target=step.target)


def render_failure(job: str, worker: Worker, error: CannotRender) -> pb.Failure:
    """Say that the files of a worker could not be put together."""
    return pb.Failure(kind=pb.FAILURE_KIND_COMMAND, job=job, worker=worker.name, step=COPY, message=str(error), help=AGAIN_HELP)
