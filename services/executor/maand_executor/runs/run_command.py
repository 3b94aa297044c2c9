"""`maand run_command`: a shell command or script on workers, in batches of N; the remote exit code is told per worker.

    connected -> recorded as begun -> the command is sent -> it ended -> recorded as ended, with its exit code

Nobody knows whether a person's command may run twice. So a run that is resumed runs it only where it had not begun, and tells
what is recorded of the others. Where it began and no end is recorded the outcome is unknown; it runs there again only on request.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.run_spec_pb2 import RunCommandSpec
from maand_contracts.catalog.v1.task_pb2 import WorkerOutcome
from maand_executor.errors import InvalidRequest, OutcomeUnknown
from maand_executor.output import events
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.waves import split_into_batches
from maand_executor.rules.worker_scripts import bucket_directory
from maand_executor.steps.context import RunContext
from maand_executor.steps.fan_out import FanOut, UnknownOutcome, plain_spec, work_on_each
from maand_executor.steps.fleet import known_names
from maand_executor.steps.run_step import remote_step

COMMAND = "command"
WORDS: Mapping[int, str] = {
    pb.STEP_OUTCOME_SUCCEEDED: "succeeded",
    pb.STEP_OUTCOME_UNREACHABLE: "unreachable",
    pb.STEP_OUTCOME_INTERRUPTED: "interrupted",
}
"""How workers are counted; what is not here has failed."""


BEGUN = "command:begun"
ENDED = "command:ended:"
NOT_STARTED = -1
"""In place of an exit code: the worker let us in, but refused to begin."""


@dataclass(frozen=True, kw_only=True)
class EarlierRecords:
    """What earlier owners of this run recorded, by worker."""

    begun: frozenset[str] = frozenset()
    ended: Mapping[str, int] = field(default_factory=dict)
    """Exit codes."""

    @property
    def unknown(self) -> frozenset[str]:
        """Where it began and no end is recorded."""
        return self.begun - self.ended.keys()


def read_earlier(steps: Iterable[str]) -> EarlierRecords:
    """Read recorded steps: `/<worker>/command:begun`, `/<worker>/command:ended:<exit code>`."""
    pairs = [name.removeprefix("/").split("/", 1) for name in steps]
    return EarlierRecords(
        begun=frozenset(worker for worker, step in pairs if step == BEGUN),
        ended={worker: int(step.removeprefix(ENDED)) for worker, step in pairs if step.startswith(ENDED)},
    )


async def run_command(context: RunContext) -> None:
    """Run it on all or selected workers; a batch with a failure is the last, unless told to go on."""
    spec = context.spec.run_command
    if not spec.command.strip():
        raise InvalidRequest("there is no command to run")
    workers = await select_workers(context, spec)
    earlier = read_earlier(await context.catalog.list_steps(context.identity))
    unknown = () if spec.again else tuple(worker.name for worker in workers if worker.name in earlier.unknown)
    await run_batches(context, workers, earlier, left_out=earlier.ended.keys() | set(unknown))
    summarise_command(context, len(workers))
    if unknown:
        raise OutcomeUnknown(describe_unknown(context, unknown))


def tell_earlier(context: RunContext, workers: Sequence[Worker], earlier: EarlierRecords) -> None:
    """Count and tell what ended under an earlier owner of the run."""
    for worker in workers:
        code = earlier.ended.get(worker.name)
        if code is None:
            continue
        context.report.count("failed" if code else "succeeded")
        if code:
            how = "was refused" if code == NOT_STARTED else f"ended with exit code {code}"
            message = f"the command {how} before the run was interrupted"
            failure = pb.Failure(kind=pb.FAILURE_KIND_COMMAND, worker=worker.name, step=COMMAND, message=message)
            failure.exit_code = max(code, 0)
            context.report.fail([failure])


def describe_unknown(context: RunContext, unknown: Sequence[str]) -> str:
    """Say where a command began of which no end is known, and what to do."""
    return (
        f"unknown on {', '.join(unknown)}: the command began there before the run was interrupted, and how it ended is not known;"
        f" look there, then `maand runs resume {context.identity.run_id} --again` runs it there once more"
    )


async def run_batches(context: RunContext, workers: Sequence[Worker], earlier: EarlierRecords, *, left_out: Set[str]) -> None:
    """Run it where it is to be run, in the batches of the first owner: what failed under it ends the batches after its own."""
    parts = split_into_batches(workers, context.spec.run_command.concurrency)
    fan_out = FanOut(context, plain_spec("command"), work_on_each(run_on_worker), unknown=UnknownOutcome(step=COMMAND))
    for index, part in enumerate(parts):
        if context.cancel.level > CancelLevel.NOT_ASKED:
            context.report.stopped_early = True
        is_called_off = context.report.stopped_early or bool(context.report.failures and not context.spec.keep_going)
        tell_earlier(context, part, earlier)
        todo = [worker for worker in part if worker.name not in left_out]
        if is_called_off:
            context.report.count("untouched", len(todo))
        elif todo:
            names = [worker.name for worker in todo]
            context.journal.report(events.batch_started(job="", phase=COMMAND, index=index, count=len(parts), workers=names))
            count_batch(context, await fan_out.run(todo))


async def select_workers(context: RunContext, spec: RunCommandSpec) -> tuple[Worker, ...]:
    """Return the workers meant, by position. Raises `InvalidRequest` for a name that is none, or when nobody is meant."""
    workers = await context.catalog.list_workers(context.identity.bucket_id)
    named = known_names("worker", spec.workers, [worker.name for worker in workers])
    labels = known_names("label", spec.labels, {label for worker in workers for label in worker.labels})
    chosen = tuple(
        worker for worker in workers if (not named or worker.name in named) and (not labels or labels.intersection(worker.labels))
    )
    if not chosen:
        raise InvalidRequest("no worker is meant", help="look at `maand cat workers`; nothing was built yet, or nothing matches")
    return chosen


async def run_on_worker(context: RunContext, worker: Worker) -> WorkerOutcome:
    """Run it on one worker, in the bucket's directory when that exists."""
    spec = context.spec.run_command
    seconds = spec.command_timeout_seconds
    command = RemoteCommand(
        script=spec.command,
        environment={"BUCKET_ID": context.identity.bucket_id, "WORKER_IP": worker.name},
        directory=bucket_directory(context.config),
        directory_optional=True,
        sudo=context.config.use_sudo,
        timeout=timedelta(seconds=seconds) if seconds else None,
        capture_limit=0,
    )

    async def begin() -> None:
        await context.remote.connect(worker)  # a worker that cannot be reached is not one where it began
        await context.steps.record(f"/{worker.name}/{BEGUN}")

    result = await remote_step(context, job="", worker=worker, step=COMMAND, command=command, name="the command", before=begin)
    if result.outcome != pb.STEP_OUTCOME_UNREACHABLE:
        code = result.exit_code or (0 if result.ok else NOT_STARTED)
        await context.steps.record(f"/{worker.name}/{ENDED}{code}")
    return result.worker_outcome()


def count_batch(context: RunContext, outcomes: Sequence[WorkerOutcome]) -> None:
    """Count and keep what a batch ended with."""
    for one in outcomes:
        context.report.count(WORDS.get(one.outcome, "failed"))
        if one.HasField("failure"):
            context.report.fail([one.failure])
        if one.outcome == pb.STEP_OUTCOME_INTERRUPTED:  # who carried it out can tell nobody any more
            context.journal.report(events.step_interrupted(worker=one.worker, step=COMMAND, message=one.failure.message))


def summarise_command(context: RunContext, asked: int) -> None:
    """Say how it went."""
    counts = context.report.counts
    bad = counts["failed"] + counts["unreachable"]
    ends = [f"failed on {bad} of {asked} workers"] if bad else []
    ends += [f"unknown on {counts['interrupted']} of {asked} workers"] if counts["interrupted"] else []
    context.report.message = ", ".join(ends) or f"done on {counts['succeeded']} workers"
