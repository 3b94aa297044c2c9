"""Who is calling: a hook invocation (everything about it comes from its token), or a person or service with roles.

Pure values; `rpc/callers.py` finds out who calls, rules decide what that caller may do. Hook invocations begin and end here as
values.
"""

import enum
import hashlib
from dataclasses import dataclass


class Role(enum.StrEnum):
    """What a person or service may do. The words are those of `maand-catalog token create --role`."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    EXECUTOR = "executor"
    GATEWAY = "gateway"


IMPLIED_ROLES: dict[Role, frozenset[Role]] = {
    Role.VIEWER: frozenset({Role.VIEWER}),
    Role.OPERATOR: frozenset({Role.OPERATOR, Role.VIEWER}),
    Role.EXECUTOR: frozenset({Role.EXECUTOR, Role.VIEWER}),
    Role.GATEWAY: frozenset({Role.GATEWAY}),
}
"""Operators and executors read what viewers read; a gateway may nothing by itself."""


@dataclass(frozen=True, kw_only=True)
class HookCaller:
    """One live hook invocation. Whatever a request claims about it is ignored or refused; this is what holds."""

    bucket_id: str
    run_id: str
    invocation_id: str
    job: str
    allocation_id: str
    worker: str
    hook: str
    event: str

    @property
    def name(self) -> str:
        """Name for people, as a KV entry's writer: `hook api/hook_migrate on 10.0.0.1 (run …)`."""
        return f"hook {self.job}/{self.hook} on {self.worker} (run {self.run_id})"


@dataclass(frozen=True, kw_only=True)
class RoleCaller:
    """A person or service with a token, or whoever may open the unix socket."""

    name: str
    roles: frozenset[Role]

    @classmethod
    def with_role(cls, name: str, *roles: Role) -> "RoleCaller":
        """Return the caller that these roles make, with what they imply."""
        return cls(name=name, roles=frozenset().union(*(IMPLIED_ROLES[role] for role in roles)))


Caller = HookCaller | RoleCaller

LOCAL = RoleCaller.with_role("local", Role.OPERATOR, Role.EXECUTOR)
"""Whoever opened the unix socket: its permissions are the credential."""

HOOK_TOKEN_PREFIX = "mh_"  # noqa: S105 - the kind of token, not one
API_TOKEN_PREFIX = "ma_"  # noqa: S105 - the kind of token, not one


def token_digest(token: str) -> bytes:
    """Return what is stored of a token: its SHA-256. Tokens hold 256 random bits, so no salt or stretching is needed."""
    return hashlib.sha256(token.encode()).digest()


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
