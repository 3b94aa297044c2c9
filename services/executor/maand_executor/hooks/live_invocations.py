"""Hook processes that are alive, by token: what the calls they make to this executor (`run_ssh`, `http_request`) go by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from maand_executor.rules.facts import BucketConfig, Certificates, Worker


@dataclass(frozen=True, kw_only=True)
class LiveInvocation:
    """One hook process and what it may reach."""

    invocation_id: str
    token: str = field(repr=False)
    bucket_id: str
    run_id: str
    job: str
    allocation_id: str
    worker: str
    """Host of its own allocation."""
    hook: str
    event: str
    workers: tuple[Worker, ...]
    """The non-removed workers of its job."""
    remote: Any = field(repr=False)
    """The executor's connections to the bucket's workers, an `ssh.Remote`; hooks and ssh do not know each other."""
    config: BucketConfig
    certificates: Certificates = field(repr=False)
    """Those of its allocation."""


class LiveInvocations:
    """The registry: one per executor. An invocation is in it from before its process starts until after it ended."""

    def __init__(self) -> None:
        self._by_token: dict[str, LiveInvocation] = {}

    def add(self, invocation: LiveInvocation) -> None:
        """Let calls in the name of this invocation through."""
        self._by_token[invocation.token] = invocation

    def remove(self, token: str) -> None:
        """Let no further call through. Removing what is not there is nothing."""
        self._by_token.pop(token, None)

    def find(self, token: str) -> LiveInvocation | None:
        """Return the invocation a token belongs to, while it is alive."""
        return self._by_token.get(token)

    def all(self) -> Sequence[LiveInvocation]:
        """Return everybody alive, oldest first."""
        return tuple(self._by_token.values())

    def __len__(self) -> int:
        return len(self._by_token)
