"""Every metric is documented, is bounded in what it names, and moves when the thing it counts happens: on real runs."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from maand_catalog.serving.prometheus import Metrics as CatalogMetrics
from maand_contracts.catalog.v1 import run_pb2, run_pb2_grpc, run_spec_pb2, task_pb2, task_pb2_grpc
from maand_executor.prometheus import Metrics as ExecutorMetrics
from maand_executor.settings import WorkSettings
from maand_runtime_gateway.prometheus import Metrics as GatewayMetrics
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed

DOCS = Path(__file__).parents[3] / "docs" / "operations.md"
DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = re.compile(r"\bmaand_(?:catalog|executor|hook_api)_[a-z_]+")
SUFFIXES = ("_bucket", "_count", "_sum", "_total")
ALLOWED_LABELS = {
    "event",
    "for",
    "kind",
    "le",
    "method",
    "of",
    "operation",
    "outcome",
    "route",
    "state",
    "status",
    "step",
    "whose",
}

HOOK = """
import time
from maand import acquire_semaphore, get_kv_value, job_name, put_job_variable, release_semaphore, semaphore_status
acquire_semaphore("door").raise_for_status()
is_first = put_job_variable("colour", "green", if_absent=True).ok
while is_first and not semaphore_status("door").json()["waiting"]:
    time.sleep(0.05)
assert get_kv_value(f"vars/job/{job_name()}", "colour") == "green"
release_semaphore("door").raise_for_status()
"""
WAITS = "start:\n\t@while [ ! -e /opt/go ]; do sleep 0.05; done\n"


def families(*registries: CollectorRegistry) -> dict[str, str]:
    """Return the names Prometheus knows, with their types; without those of when a counter was made."""
    return {
        metric.name + ("_total" if metric.type == "counter" else ""): metric.type
        for registry in registries
        for metric in registry.collect()
    }


def all_families() -> dict[str, str]:
    return families(CatalogMetrics().registry, ExecutorMetrics().registry, GatewayMetrics().registry)


def documented(text: str) -> set[str]:
    """Return the metrics that have a row in the document's tables."""
    return {found.group(1) for found in re.finditer(r"^\| `(maand_\w+)`", text, re.MULTILINE)}


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    assert documented(DOCS.read_text()) == set(all_families())


def test_alerts_and_dashboard_name_only_metrics_that_exist() -> None:
    known = set(all_families())
    for file in (DEPLOY / "prometheus" / "alerts.yml", DEPLOY / "grafana" / "maand.json"):
        named = set(NAME.findall(file.read_text()))
        assert named, file
        unknown = {name for name in named if name not in known and without_suffix(name) not in known}
        assert not unknown, f"{file.name} names {unknown}"


def without_suffix(name: str) -> str:
    """Return the histogram a series belongs to."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


class Looks:
    """What the metrics of a bed showed, look by look."""

    def __init__(self, bed: DeployBed) -> None:
        self._bed = bed
        self.values: dict[str, set[float]] = defaultdict(set)
        self.labels: dict[str, set[str]] = defaultdict(set)

    def look(self) -> None:
        """Note every value there is now."""
        for metric, sample in self._samples():
            self.values[metric].add(sample)

    async def until(self, name: str) -> None:
        """Look until a metric was seen with something in it."""
        async with asyncio.timeout(30):
            while not self.moved(name):
                self.look()
                await asyncio.sleep(0.01)

    def moved(self, name: str) -> bool:
        """Whether a metric was seen with something in it."""
        return any(value > 0 for value in self.values[name])

    def _samples(self) -> Iterator[tuple[str, float]]:
        for metric in (metric for registry in self._registries() for metric in registry.collect()):
            for sample in metric.samples:
                for label, value in sample.labels.items():
                    self.labels[label].add(value)
                if not sample.name.endswith(("_created", "_bucket", "_sum")):
                    yield metric.name + ("_total" if metric.type == "counter" else ""), sample.value

    def _registries(self) -> Iterator[CollectorRegistry]:
        yield self._bed.catalog.metrics.registry
        if self._bed.executor:
            yield self._bed.executor.metrics.registry
        if self._bed.gateway:
            yield self._bed.gateway.metrics.registry


async def test_every_metric_moves_on_real_runs_and_no_label_carries_a_name(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3, executor=False, lease=timedelta(seconds=2)) as bed:
        looks = Looks(bed)
        await a_task_lapses(bed, looks)

        bed.executor_settings = replace(bed.executor_settings, work=replace(WorkSettings(), task_width=1))
        await bed.configure(max_ssh_sessions=4)
        await bed.start_gateway()
        manifest = {"max_concurrent_upgrades": 3, "hooks": {"hook_colour": {"executed_on": ["pre_deploy"]}}}
        bed.write_job("api", manifest, {"_hooks/hook_colour.py": HOOK, "Makefile": WAITS})
        await bed.build()
        await bed.run(run_spec_pb2.RunSpec(run_command=run_spec_pb2.RunCommandSpec(command="true")))

        deploy = await bed.begin(run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec()))
        following = asyncio.create_task(bed.follow(deploy))
        for gauge in ("maand_executor_hook_processes", "maand_catalog_semaphore_waiting", "maand_executor_runs_active"):
            await looks.until(gauge)
        await bed.until(deploy, "step_started", job="api")
        await looks.until("maand_catalog_runs")
        await bed.stop_executor()
        await bed.start_executor()
        await looks.until("maand_catalog_runs_taken_over_total")
        for worker in bed.workers:
            worker.path("/opt/go").touch()
        ended = await following
        assert ended.state == "succeeded", ended.result

        await the_lease_is_lost(bed, looks)
        looks.look()
        assert {name for name in all_families() if not looks.moved(name)} == set()
        assert set(looks.labels) <= ALLOWED_LABELS
        named = {value for values in looks.labels.values() for value in values}
        assert not named & {"api", "hook_colour", "door", "colour", deploy, bed.bucket_id, *bed.hosts}


async def a_task_lapses(bed: DeployBed, looks: Looks) -> None:
    """Let an executor claim a run and a task of it, and go on with the run only; nobody else is there to take it."""
    run_id = await bed.begin(run_spec_pb2.RunSpec(run_command=run_spec_pb2.RunCommandSpec(command="true")))
    await looks.until("maand_catalog_oldest_pending_run_seconds")
    runs, tasks = run_pb2_grpc.RunServiceStub(bed.channel), task_pb2_grpc.TaskServiceStub(bed.channel)
    run = (await runs.ClaimRun(run_pb2.ClaimRunRequest(executor_id="one"))).run
    assert run.run_id == run_id
    claim: dict[str, Any] = {"bucket_id": bed.bucket_id, "run_id": run_id, "fence": run.fence}
    spec = task_pb2.TaskSpec(workers=bed.hosts[:1], command=task_pb2.CommandTask())
    new = task_pb2.NewTask(name="command/1", spec=spec)
    await tasks.CreateTasks(task_pb2.CreateTasksRequest(**claim, tasks=[new]))
    assert (await tasks.ClaimTask(task_pb2.ClaimTaskRequest(executor_id="one", run_id=run_id))).task.name == "command/1"
    async with asyncio.timeout(30):
        while not looks.moved("maand_catalog_tasks_lapsed_total"):
            await runs.RenewLease(run_pb2.RenewLeaseRequest(**claim))
            looks.look()
            await asyncio.sleep(0.1)
    await runs.FinishRun(run_pb2.FinishRunRequest(**claim, state=run_pb2.RUN_STATE_FAILED))


async def the_lease_is_lost(bed: DeployBed, looks: Looks) -> None:
    """Take a run from the executor, as when its lease lapsed; it notices."""
    assert bed.executor
    run_id = await bed.begin(run_spec_pb2.RunSpec(run_command=run_spec_pb2.RunCommandSpec(command="sleep 60")))
    await bed.until(run_id, "step_started")
    runs = run_pb2_grpc.RunServiceStub(bed.channel)
    await runs.ReleaseLeases(run_pb2.ReleaseLeasesRequest(executor_id=bed.executor.executor_id))
    await looks.until("maand_executor_leases_lost_total")
