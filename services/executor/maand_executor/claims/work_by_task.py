"""Which work belongs to which kind of task: the words are those of the contract's `TaskSpec`."""

from maand_executor.deploy.lifecycle_task import do_lifecycle
from maand_executor.runs.health_check import login
from maand_executor.runs.run_command import run_on
from maand_executor.runs.worker_probe import probe_one
from maand_executor.steps.fan_out import on_each
from maand_executor.steps.hooks_task import do_hooks
from maand_executor.steps.preflight import look_at
from maand_executor.steps.task_loops import Works

WORK_BY_TASK: Works = {
    "command": on_each(run_on),
    "probe": on_each(probe_one),
    "preflight": on_each(look_at),
    "login": on_each(login),
    "lifecycle": do_lifecycle,
    "hooks": do_hooks,
}
