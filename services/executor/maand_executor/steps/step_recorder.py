"""Recording steps of a run as done: those that come while a call is on its way go together in the next one."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from maand_executor.rules.facts import RunIdentity


class StepCalls(Protocol):
    """What is needed of the catalog."""

    async def record_steps(self, run: RunIdentity, names: Sequence[str]) -> None:
        """Record steps as done for good."""


class PendingSteps:
    """Names that are recorded in one call."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_recorded = False


class StepRecorder:
    """Records the steps of one claim. There is no timer: who comes first does not wait for others."""

    def __init__(self, catalog: StepCalls, run: RunIdentity) -> None:
        self._catalog = catalog
        self._run = run
        self._next = PendingSteps()
        self._turn = asyncio.Lock()

    async def record(self, name: str) -> None:
        """Return when the step is recorded. Raises `RemoteError`; it may then be recorded or not."""
        batch = self._next
        batch.names.append(name)
        async with self._turn:
            if batch.is_recorded:
                return
            # Whoever of a batch gets the turn first sends all of it; when that fails, each of the others tries again: recording
            # a step twice is no harm.
            if batch is self._next:
                self._next = PendingSteps()
            await self._catalog.record_steps(self._run, batch.names)
            batch.is_recorded = True
