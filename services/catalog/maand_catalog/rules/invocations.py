"""Hook invocations as values: what begins, and how it can end."""

import enum
from dataclasses import dataclass


class InvocationOutcome(enum.StrEnum):
    """How a hook process ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class InvocationBegin:
    """One hook process about to start, with the id and token digest it will have."""

    invocation_id: str
    token_sha256: bytes
    allocation_id: str
    hook: str
    event: str


@dataclass(frozen=True, kw_only=True)
class InvocationEnd:
    """One hook process that ended."""

    invocation_id: str
    outcome: InvocationOutcome
