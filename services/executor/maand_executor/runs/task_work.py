"""Which work belongs to which kind of task: the words are those of the contract's `TaskSpec`."""

from collections.abc import Mapping

from maand_executor.runs.health_check import login
from maand_executor.runs.preflight import look_at
from maand_executor.runs.run_command import run_on
from maand_executor.runs.spread import DoOnWorker
from maand_executor.runs.worker_probe import probe_one

WORK_BY_TASK: Mapping[str, DoOnWorker] = {
    "command": run_on,
    "probe": probe_one,
    "preflight": look_at,
    "login": login,
}
