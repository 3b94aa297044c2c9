"""Outward acts of one executor, counted, and its death at one of them.

An act is whatever the world can see: a call of the catalog, a command or a copy on a worker, the start of a hook, a call that a
hook makes. When an executor dies, everything it still tries fails at once, its cleaning up too, as with `kill -9`:

    before   the act is not made
    after    the act is made, and its answer is not seen
    frozen   the act is made later, when another executor has gone on (SIGSTOP, a paused machine, a packet that took long)
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class ExecutorDied(BaseException):
    """Ends whatever an executor that died was about to do; no `Exception`, so that nothing of the product keeps it."""


class Moment(StrEnum):
    """When an executor dies."""

    BEFORE = "before"
    AFTER = "after"
    FROZEN = "frozen"


@dataclass(kw_only=True)
class Acts:
    """The acts of one executor, up to its death at number `dies_at` (0 = it lives)."""

    owner: int
    dies_at: int = 0
    moment: Moment = Moment.BEFORE
    names: list[str] = field(default_factory=list)
    died: asyncio.Event = field(default_factory=asyncio.Event)
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: "WeakSet[asyncio.Task[Any]]" = field(default_factory=WeakSet)
    """Everything that was begun on its behalf."""
    late: "asyncio.Task[Any] | None" = None
    """The act that a frozen executor makes when it wakes."""

    @property
    def has_died(self) -> bool:
        """Whether it came to the act at which it dies."""
        return 0 < self.dies_at <= len(self.names)

    async def make(self, name: str, act: Callable[[], Awaitable[T]]) -> T:
        """Make an act. Raises `ExecutorDied`."""
        is_last = self.begin(name)
        if is_last and self.moment is Moment.FROZEN:
            self.late = asyncio.create_task(self._make_late(act))
            self.die()
        result = await act()
        if is_last or self.died.is_set():
            self.die()
        return result

    def begin(self, name: str) -> bool:
        """Count an act and return whether it is the one at, or after, which the executor dies. Raises `ExecutorDied`."""
        self.check()
        self.names.append(name)
        if len(self.names) != self.dies_at:
            return False
        if self.moment is Moment.BEFORE:
            self.die()
        return True

    def check(self) -> None:
        """Raise `ExecutorDied` when it did."""
        if self.died.is_set():
            raise ExecutorDied

    def die(self) -> None:
        """Die now. Raises `ExecutorDied`."""
        self.died.set()
        raise ExecutorDied

    async def _make_late(self, act: Callable[[], Awaitable[T]]) -> T:
        await self.thawed.wait()
        return await act()


CURRENT: ContextVar[Acts] = ContextVar("acts")
"""The executor that a task belongs to."""
