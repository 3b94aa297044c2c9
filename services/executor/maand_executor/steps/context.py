"""What the work of one run is given: who it is, what was asked, and the parts it may use."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from maand_contracts.catalog.v1 import run_spec_pb2, task_pb2
from maand_executor.catalog_client import CatalogClient
from maand_executor.content.content_store import ContentStore
from maand_executor.content.renderer import RendersTemplates
from maand_executor.hooks.engine import HookEngine
from maand_executor.output import events
from maand_executor.output.journal import Journal
from maand_executor.output.masks import Masks
from maand_executor.rules.cancel import CancelSignal
from maand_executor.rules.facts import BucketConfig, RunIdentity, Worker, WorkerFence
from maand_executor.rules.meter import Meter
from maand_executor.settings import ExecutorSettings, WorkSettings
from maand_executor.ssh.remote import Remote, Remotes
from maand_executor.steps.lease import Lease
from maand_executor.steps.report import RunReport
from maand_executor.steps.step_recorder import StepRecorder
from maand_executor.steps.task_loops import TaskLoops
from maand_wire.tracing import Tracer

TellOutcome = Callable[[task_pb2.WorkerOutcome], None]
TaskWork = Callable[["RunContext", task_pb2.TaskSpec, Sequence[Worker], TellOutcome], Awaitable[None]]
"""Does the work of a task on these of its workers, and tells how it ended on each as soon as that is known."""
WorkByTask = Mapping[str, TaskWork]
"""By name of the task."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One claimed run while it is carried out."""

    identity: RunIdentity
    kind: str
    spec: run_spec_pb2.RunSpec
    config: BucketConfig
    hook_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    nested: bool = False
    """Whether a hook started it."""

    catalog: CatalogClient
    remote: Remote
    hooks: HookEngine
    content: ContentStore
    templates: RendersTemplates

    lease: Lease
    cancel: CancelSignal
    journal: Journal
    report: RunReport
    meter: Meter = field(default_factory=Meter)
    settings: WorkSettings
    traceparent: str = ""
    """What hooks are told when this executor traces nothing but whoever asked for the run does."""
    staging_dir: Path
    """The run's own directory for what is about to be copied; gone when the run ended."""
    task_loops: TaskLoops[TaskWork] | None = None
    """For wide work that is shared: see `fan_out`. None = this is a part already, it is not split further."""

    def with_config(self, config: BucketConfig) -> "RunContext":
        """Return the context with the settings now in force."""
        return replace(self, config=config)

    def warn(self, text: str, *, job: str = "") -> None:
        """Say something worth knowing, now and in the summary."""
        self.report.note(text)
        self.journal.report(events.notice_event(text, job=job, warning=True))

    @cached_property
    def steps(self) -> StepRecorder:
        """Records steps of this claim."""
        return StepRecorder(self.catalog, self.identity)

    @property
    def fence(self) -> WorkerFence | None:
        """What commands that change a worker carry, so that an older owner's are refused. None = the run changes none."""
        return self.identity.worker_fence


@dataclass(frozen=True, kw_only=True)
class ExecutorParts:
    """What all runs and tasks of one executor share."""

    executor_id: str
    settings: ExecutorSettings
    catalog: CatalogClient
    content: ContentStore
    templates: RendersTemplates
    hooks: HookEngine
    remotes: Remotes
    masks: Masks = field(default_factory=Masks)
    meter: Meter = field(default_factory=Meter)
    tracer: Tracer | None = None
