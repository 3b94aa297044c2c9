"""Which work belongs to which kind of run."""

from collections.abc import Awaitable, Callable, Mapping

from maand_executor.deploy.run import deploy
from maand_executor.errors import InvalidRequest
from maand_executor.runs.build import build
from maand_executor.runs.gc import collect_garbage
from maand_executor.runs.health_check import check_health
from maand_executor.runs.hooks import run_hooks
from maand_executor.runs.job_control import control_job
from maand_executor.runs.run_command import run_command
from maand_executor.runs.worker_probe import probe_workers
from maand_executor.steps.context import RunContext

Work = Callable[[RunContext], Awaitable[None]]

WORK_BY_KIND: Mapping[str, Work] = {
    "build": build,
    "deploy": deploy,
    "hooks": run_hooks,
    "run_command": run_command,
    "health_check": check_health,
    "job_control": control_job,
    "worker_probe": probe_workers,
    "gc": collect_garbage,
}
"""By the name of the field set in `RunSpec`."""


async def do_the_work(context: RunContext) -> None:
    """Do what the run asks for. Raises `InvalidRequest` for a kind this executor does not know."""
    kind = context.spec.WhichOneof("spec") or context.kind
    work = WORK_BY_KIND.get(kind)
    if work is None:
        raise InvalidRequest(f'this executor does not know runs of kind "{kind}"', help="update maand on the executor's host")
    await work(context)
