"""`maand worker adopt`: whose workers say they are, and making them this bucket's.

    look at worker.json, jobs.json, fence -> is it ours? -> [adopt] write fence and worker.json -> forget its former address

A renumbered machine is known by its former name: once it is adopted, that worker, which left the fleet, is given up. It is the
same machine, nothing must be stopped there.
"""

from collections.abc import Mapping, Sequence

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.worker_marks import (
    WorkerMarks,
    adopt_environment,
    adopt_input,
    adopt_script,
    parse_worker_marks,
    read_marks_script,
)
from maand_executor.ssh.errors import CommandNotStarted
from maand_executor.steps.context import RunContext

OTHERS = "it belongs to another bucket"


class OwnerProbe:
    """Asks workers whose they are. `workers`: all that are known, also those that left."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._known: Mapping[str, Worker] = {worker.worker_id: worker for worker in workers}

    async def __call__(self, context: RunContext, worker: Worker) -> pb.WorkerReport:
        """Look at one worker, and adopt it when the run says so."""
        marks = await read_marks(context, worker)
        if marks is None or marks.is_of(context.config, worker):
            return self._report(context, worker, marks)
        spec = context.spec.worker_probe
        if not spec.adopt:
            return self._report(context, worker, marks, problem=f"{worker.name} is not this bucket's as it stands")
        if marks.bucket_id not in ("", context.config.bucket_id) and not spec.adopt_other_bucket:
            return self._report(context, worker, marks, problem=f"{worker.name}: {OTHERS}, {marks.bucket_id}; --force adopts it")
        await adopt_worker(context, worker)
        await self._forget_former_name(context, worker, marks)
        return self._report(context, worker, await read_marks(context, worker))

    async def _forget_former_name(self, context: RunContext, worker: Worker, marks: WorkerMarks) -> None:
        former = self._known.get(marks.worker_id)
        if former is None or not former.removed or former.lost:
            return
        await context.catalog.forget_workers(context.identity.bucket_id, [former.name])
        context.warn(f"{former.name} is given up: it was this machine's former address, nothing is stopped there")

    def _report(self, context: RunContext, worker: Worker, marks: WorkerMarks | None, *, problem: str = "") -> pb.WorkerReport:
        if marks is None:
            return pb.WorkerReport(reachable=True, problem=problem)
        known = self._known.get(marks.worker_id)
        mark = pb.WorkerMark(
            bucket_id=marks.bucket_id,
            worker_id=marks.worker_id,
            worker=marks.name,
            owner_id=marks.owner_id,
            jobs=marks.jobs,
            known_as=known.name if known else "",
            is_ours=marks.is_of(context.config, worker),
        )
        return pb.WorkerReport(reachable=True, problem=problem, mark=mark)


async def read_marks(context: RunContext, worker: Worker) -> WorkerMarks | None:
    """Look at what lies on a worker. Raises `SshError`."""
    config = context.config
    command = RemoteCommand(script=read_marks_script(config), sudo=config.use_sudo, timeout=context.settings.preflight_timeout)
    return parse_worker_marks((await context.remote.run(worker, command)).stdout)


async def adopt_worker(context: RunContext, worker: Worker) -> None:
    """Make a worker this bucket's. Raises `SshError`."""
    assert context.fence, "a run that adopts holds the bucket"
    command = RemoteCommand(
        script=adopt_script(),
        environment=adopt_environment(context.config),
        stdin=adopt_input(context.config, worker, context.fence),
        sudo=context.config.use_sudo,
        timeout=context.settings.lifecycle_timeout,
    )
    result = await context.remote.run(worker, command)
    if not result.ok:
        said = result.stderr.decode(errors="replace").strip() or f"exit code {result.exit_code}"
        raise CommandNotStarted(worker.name, f"it could not be adopted: {said}")
