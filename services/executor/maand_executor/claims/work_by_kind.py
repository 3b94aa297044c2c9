"""Which work belongs to which kind of run, and of task: the words are those of the contract's `RunSpec` and `TaskSpec`."""

from collections.abc import Awaitable, Callable, Mapping

from maand_executor.deploy.run import run_deploy
from maand_executor.deploy.shared_lifecycle import do_lifecycle
from maand_executor.errors import InvalidRequest
from maand_executor.runs.build import run_build
from maand_executor.runs.gc import collect_garbage
from maand_executor.runs.health_check import check_health, log_in_to_worker
from maand_executor.runs.hooks import run_hooks
from maand_executor.runs.job_control import control_job
from maand_executor.runs.run_command import run_command, run_on_worker
from maand_executor.runs.worker_probe import probe_worker, probe_workers
from maand_executor.steps.context import RunContext, WorkByTask
from maand_executor.steps.fan_out import work_on_each
from maand_executor.steps.preflight import preflight_worker
from maand_executor.steps.shared_hooks import do_hooks

Work = Callable[[RunContext], Awaitable[None]]

WORK_BY_KIND: Mapping[str, Work] = {
    "build": run_build,
    "deploy": run_deploy,
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


WORK_BY_TASK: WorkByTask = {
    "command": work_on_each(run_on_worker),
    "probe": work_on_each(probe_worker),
    "preflight": work_on_each(preflight_worker),
    "login": work_on_each(log_in_to_worker),
    "lifecycle": do_lifecycle,
    "hooks": do_hooks,
}
