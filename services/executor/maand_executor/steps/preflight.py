"""Looking at workers before anything changes: reachable, host key pinned, tools there, and ours. Each worker once a run."""

from collections.abc import Iterable

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1.task_pb2 import WorkerOutcome
from maand_executor.rules.facts import Worker
from maand_executor.rules.remote_commands import RemoteCommand
from maand_executor.rules.worker_scripts import parse_preflight, preflight_script
from maand_executor.ssh.errors import SshError, SudoRefused, ToolsMissing
from maand_executor.steps.context import RunContext
from maand_executor.steps.failures import failure_of_ssh_error
from maand_executor.steps.fan_out import FanOut, UnknownOutcome, failed_outcome, plain_spec, succeeded_outcome, work_on_each

PREFLIGHT = "preflight"


class Preflight:
    """What is known of the workers' readiness in one run."""

    def __init__(self, context: RunContext) -> None:
        self._fan_out = FanOut(
            context, plain_spec("preflight"), work_on_each(preflight_worker), unknown=UnknownOutcome(step=PREFLIGHT)
        )
        self._found: dict[str, pb.Failure | None] = {}

    async def check(self, workers: Iterable[Worker]) -> list[pb.Failure]:
        """Return what is wrong with these workers, by position; all are looked at side by side, the pool paces them."""
        asked = sorted({worker.name: worker for worker in workers}.values(), key=lambda worker: (worker.position, worker.name))
        unknown = [worker for worker in asked if worker.name not in self._found]
        outcomes = await self._fan_out.run(unknown)
        self._found |= {one.worker: one.failure if one.HasField("failure") else None for one in outcomes}
        return [failure for worker in asked if (failure := self._found[worker.name])]


async def preflight_worker(context: RunContext, worker: Worker) -> WorkerOutcome:
    """Look at one worker."""
    failure = await why_not_ready(context, worker)
    return failed_outcome(failure) if failure else succeeded_outcome(worker.name)


async def why_not_ready(context: RunContext, worker: Worker) -> pb.Failure | None:
    """Return why a worker is not ready. None = it is."""
    config, remote = context.config, context.remote
    command = RemoteCommand(
        script=preflight_script(sudo=config.use_sudo),
        sudo=False,
        timeout=context.settings.preflight_timeout,
        check_host=True,
        check_owner=True,
    )
    try:
        result = await remote.run(worker, command)
    except SshError as error:
        return failure_of_ssh_error(error, worker=worker.name, step=PREFLIGHT)
    if result.timed_out:
        message = f"did not answer within {context.settings.preflight_timeout.total_seconds():g} s"
        return pb.Failure(kind=pb.FAILURE_KIND_CONNECTION, worker=worker.name, step=PREFLIGHT, message=message)
    objection = objection_to(worker, result.stdout.decode(errors="replace"))
    return failure_of_ssh_error(objection, worker=worker.name, step=PREFLIGHT) if objection else None


def objection_to(worker: Worker, said: str) -> SshError | None:
    """Return what a worker is not ready for, from what `preflight_script` printed there."""
    found = parse_preflight(said)
    if found.missing_tools:
        return ToolsMissing(worker.name, f"lacks {', '.join(found.missing_tools)}")
    return SudoRefused(worker.name, found.sudo_refusal) if found.sudo_refusal else None
