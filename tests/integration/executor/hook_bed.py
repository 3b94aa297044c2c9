"""A hook engine with a catalog in memory, and jobs whose hooks are real scripts."""

import asyncio
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.content.content_store import ContentStore
from maand_executor.hooks.engine import HookEngine
from maand_executor.hooks.request import EventRun
from maand_executor.output.journal import Journal
from maand_executor.rules.cancel import CancelSignal
from maand_executor.rules.facts import Allocation, BucketConfig, Hook, InvocationOutcome, Job, RolloutOrder, RunIdentity, Worker
from maand_executor.rules.hook_outcomes import EventOutcome
from tests.unit.executor.fake_catalog import FakeCatalog

RUN = RunIdentity(bucket_id="0197c0de-bbbb-7000-8000-000000000001", run_id="0197c0de-aaaa-7000-8000-000000000001", seq=1, fence=1)
OK, FAILED, TIMED_OUT = InvocationOutcome.SUCCEEDED, InvocationOutcome.FAILED, InvocationOutcome.TIMED_OUT
CANCELLED, INTERRUPTED = InvocationOutcome.CANCELLED, InvocationOutcome.INTERRUPTED
SAY_WHERE = "import os; print(os.environ['HOOK'], os.environ['ALLOCATION_IP'])"
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
SHOW_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def allocations(count: int, *, job: str = "api") -> tuple[Allocation, ...]:
    """Make allocations on 10.0.0.1, 10.0.0.2, …"""
    return tuple(
        Allocation(allocation_id=f"id-{index}", job=job, worker=f"10.0.0.{index + 1}", index=index, new_version="1.0.0")
        for index in range(count)
    )


def hook(name: str, *events: str, suffix: str = "py", **settings: Any) -> Hook:
    """Make a hook of job `api`."""
    runtime = "python" if suffix == "py" else "bun"
    return Hook(
        name=name, job="api", path=f"_hooks/{name}.{suffix}", runtime=runtime, executed_on=events or ("pre_deploy",), **settings
    )


@dataclass(kw_only=True)
class HookBed:
    """Everything one test needs; `state_dir` is the executor's."""

    state_dir: Path
    catalog: FakeCatalog = field(default_factory=FakeCatalog)
    workspace_dir: Path | None = None
    process_limit: int = 0
    config: BucketConfig = field(default_factory=lambda: BucketConfig(bucket_id=RUN.bucket_id, hook_env=("CLOUD_REGION",)))
    host: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self.content = ContentStore(self.state_dir / "blobs", self.catalog)
        settings: dict[str, Any] = {} if self.host is None else {"host": self.host}
        self.engine = HookEngine(
            catalog=self.catalog,
            content=self.content,
            state_dir=self.state_dir,
            workspace_dir=self.workspace_dir,
            hook_api="127.0.0.1:8081",
            process_limit=self.process_limit,
            **settings,
        )
        self.journal = Journal(RUN, self.catalog, pause=timedelta(milliseconds=1))
        self.cancel = CancelSignal()
        self.steps: set[str] = set()
        self.hooks: list[Hook] = []
        self.files: dict[str, str | bytes] = {"Makefile": "start:\n\ttrue\n"}

    def add(self, name: str, script: str, *events: str, suffix: str = "py", **settings: Any) -> Hook:
        """Give the job a hook."""
        self.hooks.append(hook(name, *events, suffix=suffix, **settings))
        self.files[self.hooks[-1].path] = textwrap.dedent(script)
        return self.hooks[-1]

    async def run(
        self, event: str = "pre_deploy", *, targets: int | Sequence[Allocation] = 1, batch_size: int = 1, **settings: Any
    ) -> EventOutcome:
        """Run an event of job `api` and wait until its events are stored."""
        outcome = await self.engine.run_event(self.request(event, targets=targets, batch_size=batch_size, **settings))
        await self.journal.flush()
        return outcome

    def request(self, event: str, *, targets: int | Sequence[Allocation], batch_size: int = 1, **settings: Any) -> EventRun:
        """Make the request, with good defaults."""
        self.catalog.add_job("api", self.files)
        chosen = allocations(targets) if isinstance(targets, int) else tuple(targets)
        hosts = tuple(one.worker for one in chosen)
        defaults: dict[str, Any] = {
            "order": RolloutOrder(workers=hosts),
            "workers": tuple(Worker(name=host) for host in hosts),
            "done": self.steps.__contains__,
            "record": self.record,
        }
        return EventRun(
            run=RUN,
            config=self.config,
            journal=self.journal,
            cancel=self.cancel,
            remote=None,
            job=Job(name="api", hooks=tuple(self.hooks), max_concurrent_upgrades=batch_size),
            event=event,
            allocations=chosen,
            **(defaults | settings),
        )

    async def record(self, step: str) -> None:
        """Remember a step, as a run does."""
        self.steps.add(step)

    async def close(self) -> None:
        """End what the bed holds."""
        await self.journal.close()
        self.engine.close()

    def lines(self, worker: str = "") -> list[str]:
        """Return the output stored, of one worker or all."""
        return self.catalog.lines(worker=worker)

    def environments(self) -> list[dict[str, str]]:
        """Return what hooks that show their environment were told, in the order they ended."""
        return [json.loads(line) for line in self.lines()]

    def batches(self) -> list[tuple[str, int, int, list[str]]]:
        """Return the batches that were started: hook, index, count, workers."""
        started = [event.batch_started for event in self.catalog.events if event.WhichOneof("event") == "batch_started"]
        return [(one.hook, one.index, one.count, list(one.workers)) for one in started]

    def finished(self) -> list[pb.StepFinished]:
        """Return how steps ended, in the order they did."""
        return [event.step_finished for event in self.catalog.events if event.WhichOneof("event") == "step_finished"]

    def left_behind(self) -> list[str]:
        """Return what is still there of any invocation: directories, live entries, tokens."""
        directories = [path.name for path in (self.state_dir / "invocations").iterdir()]
        return [*directories, *(one.token for one in self.engine.live.all()), *self.catalog.alive]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def until(condition: Callable[[], bool], *, within: float = 60) -> None:
    """Wait for something that no event announces."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - other processes set no asyncio event
            await asyncio.sleep(0.01)
