"""Semaphores in memory: first come, first served, slots bound to invocations (here: to tokens), fenced by tickets."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maand_hook_sdk.memory_identity import ApiError, Identity, check_name

MAX_SEMAPHORE_NAME = 128


@dataclass(kw_only=True)
class Claim:
    """One invocation in a semaphore, waiting until `granted` is set. `calls`: how many of its calls have not gone away."""

    identity: Identity
    invocation: str
    ticket: int
    calls: int = 1
    granted: threading.Event = field(default_factory=threading.Event)


@dataclass(kw_only=True)
class Queue:
    """One semaphore: its holders, and the waiters in order."""

    capacity: int = 1
    tickets: int = 0
    holders: list[Claim] = field(default_factory=list)
    waiters: list[Claim] = field(default_factory=list)


class Semaphores:
    """First come, first served, within this process. Slots belong to invocations (here: to tokens)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[tuple[str, str, str], Queue] = {}

    def request(self, identity: Identity, invocation: str, name: str, capacity: int) -> Claim:
        """Get in line; the claim says when it is granted. All calls of an invocation share one place and one slot."""
        check_name("semaphore's name", name, MAX_SEMAPHORE_NAME)
        with self._lock:
            queue = self._queue(identity, name)
            own = [claim for claim in (*queue.holders, *queue.waiters) if claim.invocation == invocation]
            if (queue.holders or queue.waiters) and queue.capacity != capacity:
                raise ApiError(
                    409,
                    "semaphore_capacity",
                    f"semaphore {name} is in use with capacity {queue.capacity}; ask for that, or wait until nobody is in it",
                    capacity=queue.capacity,
                )
            if own:
                own[0].calls += 1
                return own[0]
            queue.capacity = capacity
            queue.tickets += 1
            claim = Claim(identity=identity, invocation=invocation, ticket=queue.tickets)
            queue.waiters.append(claim)
            self._grant(queue)
            return claim

    def withdraw(self, name: str, claim: Claim) -> None:
        """Go away without an answer; the last call of an invocation leaves the line, or gives back a slot that nobody took."""
        with self._lock:
            queue = self._queue(claim.identity, name)
            claim.calls -= 1
            if claim.calls:
                return
            queue.waiters = [other for other in queue.waiters if other is not claim]
            queue.holders = [other for other in queue.holders if other is not claim]
            self._grant(queue)

    def release(self, identity: Identity, invocation: str, name: str) -> None:
        """Give a slot back."""
        check_name("semaphore's name", name, MAX_SEMAPHORE_NAME)
        with self._lock:
            queue = self._queue(identity, name)
            held = [claim for claim in queue.holders if claim.invocation == invocation]
            if not held:
                raise ApiError(409, "semaphore_not_held", f"this hook holds no slot of semaphore {name}; acquire it first")
            queue.holders.remove(held[0])
            self._grant(queue)

    def end(self, invocation: str) -> None:
        """Take an ended invocation out of every semaphore."""
        with self._lock:
            for queue in self._queues.values():
                queue.holders = [claim for claim in queue.holders if claim.invocation != invocation]
                queue.waiters = [claim for claim in queue.waiters if claim.invocation != invocation]
                self._grant(queue)

    def status(self, identity: Identity, name: str) -> Mapping[str, Any]:
        """Tell who holds and how many wait."""
        check_name("semaphore's name", name, MAX_SEMAPHORE_NAME)
        with self._lock:
            queue = self._queues.get((identity.job, identity.event, name), Queue())
            in_use = bool(queue.holders or queue.waiters)
            capacity = queue.capacity if in_use else 1
            return {
                "name": name,
                "capacity": capacity,
                "holders": [claim.identity.allocation_id for claim in queue.holders],
                "waiting": len(queue.waiters),
                "available": capacity - len(queue.holders),
            }

    def _queue(self, identity: Identity, name: str) -> Queue:
        return self._queues.setdefault((identity.job, identity.event, name), Queue())

    def _grant(self, queue: Queue) -> None:
        while queue.waiters and len(queue.holders) < queue.capacity:
            claim = queue.waiters.pop(0)
            queue.holders.append(claim)
            claim.granted.set()
