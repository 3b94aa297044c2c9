"""What is done with allocations of one job on their workers: files copied, Makefile targets run, files removed.

few    -> here, side by side
many   -> split into tasks (`fan_out`): the owner of the run copies the trees it planned with; another executor renders them
          itself (`shared_lifecycle`) and copies only what has the digest that the owner planned

A worker whose `worker.json` names another bucket or worker refuses all of it: its address may have moved.

Which allocations, in which batches, and what becomes of them afterwards is not decided here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.task_pb2 import LifecycleAct, LifecycleTask, TaskSpec, WorkerOutcome
from maand_contracts.catalog.v1.task_pb2 import LifecycleStep as StepMessage
from maand_executor.catalog_client import from_allocation
from maand_executor.content.allocation_trees import AllocationTree
from maand_executor.content.staged_trees import StagedTrees
from maand_executor.output import events
from maand_executor.rules.facts import Allocation, Worker
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.worker_scripts import (
    KEPT_DIRECTORIES,
    job_directory,
    make_environment,
    make_script,
    remove_files_script,
    stop_script,
)
from maand_executor.ssh.copy import RemoteCopy
from maand_executor.steps.context import RunContext
from maand_executor.steps.fan_out import FanOut, UnknownOutcome, work_on_each
from maand_executor.steps.run_step import StepResult, remote_step, run_step
from maand_executor.steps.worker_files import WorkerFiles

COPY = "copy"
AGAIN_HELP = "run the same command again: a deploy takes up what is not promoted"
DIFFERS = "what is to be copied is not what was planned: values, secrets or certificates changed while the run went on"


class Act(StrEnum):
    """What is done after the copy."""

    NOTHING = "nothing"
    MAKE = "make"
    STOP = "stop"
    REMOVE = "remove"


ACT_MESSAGES: Mapping[Act, "LifecycleAct.ValueType"] = {
    Act.NOTHING: LifecycleAct.LIFECYCLE_ACT_UNSPECIFIED,
    Act.MAKE: LifecycleAct.LIFECYCLE_ACT_MAKE,
    Act.STOP: LifecycleAct.LIFECYCLE_ACT_STOP,
    Act.REMOVE: LifecycleAct.LIFECYCLE_ACT_REMOVE,
}


@dataclass(frozen=True, kw_only=True)
class LifecycleStep:
    """What is done with one allocation. `copy`: runtime digest of the files to be copied, empty = none."""

    allocation: Allocation
    copy: bytes = b""
    act: Act = Act.NOTHING
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """What is needed to copy: trees by allocation id, where they are staged, and what tells a worker what it is."""

    trees: Mapping[str, AllocationTree]
    staged_trees: StagedTrees
    worker_files: WorkerFiles


class LifecycleSteps:
    """Steps of one job, each on a worker of its own. `copies` may be None when nothing is copied."""

    def __init__(self, job: str, steps: Sequence[LifecycleStep], *, copies: Copies | None = None) -> None:
        self._job = job
        self._steps = {step.allocation.worker: step for step in steps}
        self._copies = copies

    async def run(self, context: RunContext, workers: Sequence[Worker]) -> list[pb.Failure]:
        """Carry all out, here or shared with other executors, and return what failed."""
        step = next((one.target or one.act.value for one in self._steps.values() if one.act is not Act.NOTHING), COPY)
        unknown = UnknownOutcome(step=step, job=self._job, help=AGAIN_HELP)
        outcomes = await FanOut(context, self.spec_of, work_on_each(self.on), unknown=unknown).run(workers)
        for one in outcomes:
            if one.outcome == pb.STEP_OUTCOME_INTERRUPTED:  # who carried it out can tell nobody any more
                message = one.failure.message
                context.journal.report(events.step_interrupted(job=self._job, worker=one.worker, step=step, message=message))
        return [one.failure for one in outcomes if one.HasField("failure")]

    def spec_of(self, names: Sequence[str]) -> TaskSpec:
        """Say what to do on these workers."""
        steps = [message_from_step(self._steps[name]) for name in names]
        return TaskSpec(workers=names, lifecycle=LifecycleTask(job=self._job, steps=steps, check_host=True))

    async def on(self, context: RunContext, worker: Worker) -> WorkerOutcome:
        """Do what is to be done on one worker."""
        return (await self._carry_out(context, worker, self._steps[worker.name])).worker_outcome()

    async def _carry_out(self, context: RunContext, worker: Worker, step: LifecycleStep) -> StepResult:
        result = StepResult(job=self._job, worker=worker.name, step=COPY)
        if step.copy:
            result = await self._copy(context, worker, step)
        if not result.ok or step.act is Act.NOTHING:
            return result
        return await self._act(context, worker, step)

    async def _copy(self, context: RunContext, worker: Worker, step: LifecycleStep) -> StepResult:
        subject = StepResult(job=self._job, worker=worker.name, step=COPY)

        async def work() -> StepResult:
            assert self._copies
            tree = self._copies.trees[step.allocation.allocation_id]
            if tree.digest != step.copy:
                return subject.ended_as(pb.STEP_OUTCOME_FAILED, DIFFERS, help=AGAIN_HELP)
            source = await self._copies.staged_trees.stage_tree(self._job, tree.digest, tree)
            await self._copies.worker_files.write(worker)
            await context.remote.copy(worker, copy_command(context, self._job, source))
            return subject

        return await run_step(context, subject, work)

    async def _act(self, context: RunContext, worker: Worker, step: LifecycleStep) -> StepResult:
        script, word, name = act_script(context, self._job, step)
        command = RemoteCommand(
            script=script,
            environment=make_environment(step.allocation),
            sudo=context.config.use_sudo,
            timeout=context.settings.lifecycle_timeout,
            fence=context.fence,
            check_host=True,
        )
        return await remote_step(context, job=self._job, worker=worker, step=word, command=command, name=name)


def act_script(context: RunContext, job: str, step: LifecycleStep) -> tuple[str, str, str]:
    """Return the script of an act, what the step is called, and what a failure calls it."""
    match step.act:
        case Act.STOP:
            return stop_script(context.config, job), "stop", "make stop"
        case Act.REMOVE:
            return remove_files_script(context.config, job), "remove", "deleting its files"
        case _:
            return make_script(context.config, job, step.target), step.target, f"make {step.target}"


def copy_command(context: RunContext, job: str, source: Path) -> RemoteCopy:
    """Return the copy that makes a job's directory on a worker equal to a staged tree, but for what belongs to the job."""
    return RemoteCopy(
        source=source,
        target=job_directory(context.config, job),
        keep=KEPT_DIRECTORIES,
        sudo=context.config.use_sudo,
        fence=context.fence,
        timeout=context.settings.copy_timeout,
    )


def message_from_step(step: LifecycleStep) -> StepMessage:
    """Describe a step to another executor."""
    allocation = from_allocation(step.allocation)
    return StepMessage(allocation=allocation, copy_sha256=step.copy, act=ACT_MESSAGES[step.act], target=step.target)
