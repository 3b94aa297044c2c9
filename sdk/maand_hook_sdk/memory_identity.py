"""Who calls the in-memory gateway, and how it refuses. The catalog decides for real; the in-memory gateway is its likeness.

    memory_identity ◀── memory_kv, memory_semaphores, memory_policy ◀── memory_routes ◀── memory_gateway ◀── hook_runner

One table of conformance cases (tests/contracts/hook_api) holds both to the same answers.
"""

from dataclasses import dataclass

MAX_NAMESPACE = 256


class ApiError(Exception):
    """The API refuses a call: HTTP status, stable code, message with the remedy, facts."""

    def __init__(self, status: int, code: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One hook invocation, as its token says."""

    job: str
    worker: str
    allocation_id: str
    hook: str
    event: str
    demanded_jobs: frozenset[str] = frozenset()
    workers: tuple[str, ...] = ()
    """Workers of the job that are not removed: whom /ssh and /http may reach, and what a rollout order permutes."""


def check_namespace(namespace: str) -> None:
    """Refuse a namespace that the catalog would refuse, whoever asks."""
    check_name("namespace", namespace, MAX_NAMESPACE)
    if "" in namespace.split("/"):
        raise ApiError(400, "invalid_argument", f"the namespace {namespace} has an empty part; leave out the slash too many")


def check_name(noun: str, name: str, limit: int) -> None:
    """Refuse a name that is empty, too long, or holds control characters."""
    if not name:
        raise ApiError(400, "invalid_argument", f"the {noun} is empty; give one")
    if len(name) > limit:
        raise ApiError(400, "limit_exceeded", f"the {noun} has {len(name)} characters; at most {limit} are kept")
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        raise ApiError(400, "invalid_argument", f"the {noun} holds a control character; leave it out")
