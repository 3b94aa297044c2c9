"""What is asked of the hook engine: one event of one job, with everything its hooks are told."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from maand_executor.output.journal import Journal
from maand_executor.rules.cancel import CancelSignal
from maand_executor.rules.facts import Allocation, BucketConfig, Hook, HookScope, Job, RolloutOrder, RunIdentity, Worker
from maand_executor.rules.hook_outcomes import InvocationResult
from maand_executor.rules.waves import Batch, BatchPosition

EVERY_WORKER = "*"
"""In place of a worker in the names of steps that are the whole job's."""
HEALTH_CHECK = "health_check"
POST_BUILD = "post_build"

TellResult = Callable[[InvocationResult], None]
RunPart = Callable[[Sequence[Allocation], TellResult], Awaitable[object]]
"""Runs a hook for some allocations of a batch, on this executor, and tells of every result as soon as it is known."""
ShareBatch = Callable[["EventRun", Hook, Batch, Sequence[Allocation], RunPart], Awaitable[tuple[InvocationResult, ...]]]
"""Runs a hook for allocations of a batch that are too many for one executor; returns a result for each, in their order."""


def nothing_done(_: str) -> bool:
    """No step was recorded."""
    return False


async def record_nothing(_: str) -> None:
    """Remember no step."""


async def always_reachable(_: str) -> bool:
    """Every worker can be reached."""
    return True


@dataclass(frozen=True, kw_only=True)
class EventRun:
    """One event of one job."""

    run: RunIdentity
    config: BucketConfig
    journal: Journal
    cancel: CancelSignal
    remote: Any = field(repr=False)
    """The executor's connections to this bucket's workers, for `run_ssh`."""
    job: Job
    event: str
    allocations: tuple[Allocation, ...]
    """The targets, in rollout order."""
    order: RolloutOrder
    workers: tuple[Worker, ...]
    """The non-removed workers of the job: what `run_ssh` may reach."""
    batch: BatchPosition | None = None
    """Set for lifecycle batches: all allocations are this one batch. None = batches of `max_concurrent_upgrades`."""
    phase: str = ""
    """`new`, `update` or `stop` in lifecycle batches. Empty = the event."""
    lifecycle: Mapping[str, str] = field(default_factory=dict)
    """From `hook_environment.lifecycle_variables`."""
    hook_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Values given with the run; only names listed in the bucket's `hook_env` reach a hook."""
    arguments: tuple[str, ...] = ()
    """For the script; event `cli`."""
    only_hook: str = ""
    """Run just this one of the hooks registered for the event. Empty = all."""
    keep_going: bool = False
    """Run later batches even when one failed. `health_check` always does."""
    keep_workdir: bool = False
    ends_at: float | None = None
    """When the time of the whole event is over, on the monotonic clock: hooks that run then time out, others are not begun.
    None = each has only its own limit."""
    traceparent: str = ""
    nested: bool = False
    """Whether the run was started by a hook: it waits for no places, the hook that waits for it holds one."""
    done: Callable[[str], bool] = nothing_done
    """Whether a step (see `step_name`) was recorded: it is not repeated."""
    record: Callable[[str], Awaitable[None]] = record_nothing
    """Called with the step of every invocation that succeeded."""
    reachable: Callable[[str], Awaitable[bool]] = always_reachable
    """Whether a worker can be reached; asked only to find the allocation of a hook with scope `rollout`."""

    share: ShareBatch | None = None
    """For batches in which the hook is to run for more than `share_above` allocations. None = all run here."""
    share_above: int = 0

    @property
    def time_left(self) -> timedelta:
        """How long a hook that starts now may take, whatever its own limit."""
        return timedelta.max if self.ends_at is None else timedelta(seconds=max(self.ends_at - time.monotonic(), 0))

    @property
    def goes_on(self) -> bool:
        """Whether later batches run after a failed one."""
        return self.keep_going or self.event == HEALTH_CHECK

    @property
    def is_recorded(self) -> bool:
        """Whether an invocation that succeeded is not repeated in the same run. A health check is asked again and again."""
        return self.event != HEALTH_CHECK

    def step_name(self, hook: Hook, allocation: Allocation) -> str:
        """Return the name under which an invocation of this event is recorded."""
        return invocation_step(hook, allocation.worker, self.event, phase=self.phase)


def invocation_step(hook: Hook, worker: str, event: str, *, phase: str = "") -> str:
    """Return the name under which an invocation is recorded: `<job>/<worker>/<event>[.<phase>]:<hook>`.

    For a hook with scope `rollout` it is `<job>/*/<event>:<hook>`: once in a run, whichever worker and phase.
    """
    if hook.scope is HookScope.ROLLOUT:
        return f"{hook.job}/{EVERY_WORKER}/{event}:{hook.name}"
    return f"{hook.job}/{worker}/{event}{'.' + phase if phase else ''}:{hook.name}"


def is_once_in_a_run(step: str) -> bool:
    """Whether a recorded step is one of the whole job, not of one worker."""
    return f"/{EVERY_WORKER}/" in step
