"""The routes of the hook API over values in memory: which fields they take, and what they answer."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from maand_hook_sdk.memory_identity import ApiError, Identity
from maand_hook_sdk.memory_kv import KvStore
from maand_hook_sdk.memory_policy import check_read, check_worker, check_write, check_write_secret
from maand_hook_sdk.memory_semaphores import Semaphores
from maand_hook_sdk.memory_state import MemoryState

REQUIRED: Any = object()
METHOD = re.compile(r"[A-Za-z]{1,16}")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a route: its type, its default, its range."""

    kind: type
    default: Any = REQUIRED
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryCall:
    """One call that passed the door: who, which fields, and whether the client is still there."""

    identity: Identity
    token: str
    fields: Mapping[str, Any]
    request_id: str
    client_is_there: Callable[[], bool]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


class Memory(Protocol):
    """What routes need of the gateway that serves them."""

    state: MemoryState
    kv: KvStore
    semaphores: Semaphores

    def demands_of(self, identity: Identity) -> list[Mapping[str, Any]]:
        """Return who demands a hook."""
        ...


Answer = Callable[[Memory, MemoryCall], Any]


@dataclass(frozen=True, kw_only=True)
class MemoryRoute:
    """One route."""

    takes: Mapping[str, Field]
    answer: Answer


def get_value(memory: Memory, call: MemoryCall) -> Any:
    """GET /kv."""
    check_read(call.identity, call["namespace"], call["key"])
    found = memory.kv.get(call["namespace"], call["key"], call["version"] or 0)
    return {"namespace": call["namespace"], "key": call["key"], "value": found.value, "version": found.number}


def put_value(memory: Memory, call: MemoryCall) -> Any:
    """PUT /kv."""
    check_write(call.identity, call["namespace"], call["key"], call["value"])
    return write_value(memory, call)


def put_secret(memory: Memory, call: MemoryCall) -> Any:
    """PUT /kv/secret."""
    check_write_secret(call.identity, call["namespace"])
    return write_value(memory, call)


def write_value(memory: Memory, call: MemoryCall) -> Any:
    """Write what the policy let through."""
    if call["if_absent"] and call["if_version"] is not None:
        raise ApiError(400, "invalid_argument", "send `if_version` or `if_absent`, not both")
    version = memory.kv.put(
        call["namespace"],
        call["key"],
        call["value"],
        ttl=call["ttl"],
        if_version=call["if_version"],
        if_absent=call["if_absent"],
        request_id=call.request_id,
    )
    return {"version": version}


def delete_value(memory: Memory, call: MemoryCall) -> Any:
    """DELETE /kv."""
    check_write(call.identity, call["namespace"], call["key"], None)
    return {"version": memory.kv.delete(call["namespace"], call["key"], request_id=call.request_id)}


def delete_secret(memory: Memory, call: MemoryCall) -> Any:
    """DELETE /kv/secret."""
    check_write_secret(call.identity, call["namespace"])
    return {"version": memory.kv.delete(call["namespace"], call["key"], request_id=call.request_id)}


def list_keys(memory: Memory, call: MemoryCall) -> Any:
    """GET /kv/keys."""
    job = call.identity.job
    namespaces = [call["namespace"]] if call["namespace"] else [f"secrets/job/{job}", f"vars/job/{job}"]
    for namespace in namespaces:
        check_read(call.identity, namespace)
    return {"namespaces": {namespace: memory.kv.keys(namespace) for namespace in namespaces}}


def list_demands(memory: Memory, call: MemoryCall) -> Any:
    """GET /demands."""
    return memory.demands_of(call.identity)


def acquire_slot(memory: Memory, call: MemoryCall) -> Any:
    """POST /semaphore/acquire."""
    claim = memory.semaphores.request(call.identity, call.token, call["name"], call["capacity"])
    deadline = time.monotonic() + call["timeout_seconds"]
    while not claim.granted.wait(0.05):
        if time.monotonic() >= deadline or not call.client_is_there():
            memory.semaphores.withdraw(call["name"], claim)
            raise ApiError(
                408, "semaphore_timeout", f"semaphore {call['name']} was not granted in time; wait longer or try again"
            )
    return {
        "name": call["name"],
        "allocation_id": call.identity.allocation_id,
        "capacity": call["capacity"],
        "acquired": True,
        "fencing_token": claim.ticket,
    }


def release_slot(memory: Memory, call: MemoryCall) -> Any:
    """POST /semaphore/release."""
    memory.semaphores.release(call.identity, call.token, call["name"])
    return {}


def show_semaphore(memory: Memory, call: MemoryCall) -> Any:
    """GET /semaphore/status."""
    return memory.semaphores.status(call.identity, call["name"])


def run_ssh(memory: Memory, call: MemoryCall) -> Any:
    """POST /ssh: a canned reply."""
    check_worker(call.identity, call["worker"])
    return find_canned_reply(memory.state.ssh, call, call["worker"])


def send_http(memory: Memory, call: MemoryCall) -> Any:
    """POST /http: a canned reply."""
    check_method(call["method"])
    host = host_of(call["url"])
    check_worker(call.identity, host)
    return find_canned_reply(memory.state.http, call, host)


def check_method(method: str) -> None:
    """Refuse what is no HTTP method, and CONNECT, which asks for a tunnel."""
    if not METHOD.fullmatch(method):
        raise ApiError(400, "invalid_argument", "`method` must be 1 to 16 letters")
    if method.upper() == "CONNECT":
        raise ApiError(400, "invalid_argument", "`method` asks for a tunnel, which a hook cannot use")


def host_of(url: str) -> str:
    """Return the host of an absolute HTTP URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ApiError(400, "invalid_argument", "`url` must be of the form http://<worker>:<port>/<path>, or https")
    return parts.hostname


def find_canned_reply(replies: Any, call: MemoryCall, worker: str) -> Any:
    """Return the first reply that fits; without one the worker is as good as unreachable."""
    for entry in replies:
        if entry.fits(call.fields):
            return dict(entry.answer)
    raise ApiError(502, "worker_unreachable", f"worker {worker} cannot be reached: the state file has no reply for this request")


TEXT = Field(kind=str)
NAME = {"name": TEXT}
ENTRY = {"namespace": TEXT, "key": TEXT}
WRITE = {
    **ENTRY,
    "value": TEXT,
    "ttl": Field(kind=int, default=0, low=0, high=315_360_000),
    "if_version": Field(kind=int, default=None, low=1),
    "if_absent": Field(kind=bool, default=False),
}

ROUTES: Mapping[tuple[str, str], MemoryRoute] = {
    ("GET", "/kv"): MemoryRoute(takes={**ENTRY, "version": Field(kind=int, default=None, low=1)}, answer=get_value),
    ("PUT", "/kv"): MemoryRoute(takes=WRITE, answer=put_value),
    ("DELETE", "/kv"): MemoryRoute(takes=ENTRY, answer=delete_value),
    ("GET", "/kv/keys"): MemoryRoute(takes={"namespace": Field(kind=str, default="")}, answer=list_keys),
    ("PUT", "/kv/secret"): MemoryRoute(takes=WRITE, answer=put_secret),
    ("DELETE", "/kv/secret"): MemoryRoute(takes=ENTRY, answer=delete_secret),
    ("GET", "/demands"): MemoryRoute(takes={}, answer=list_demands),
    ("POST", "/semaphore/acquire"): MemoryRoute(
        takes={
            **NAME,
            "capacity": Field(kind=int, default=1, low=1, high=64),
            "timeout_seconds": Field(kind=int, default=600, low=1, high=3600),
        },
        answer=acquire_slot,
    ),
    ("POST", "/semaphore/release"): MemoryRoute(takes=NAME, answer=release_slot),
    ("GET", "/semaphore/status"): MemoryRoute(takes=NAME, answer=show_semaphore),
    ("POST", "/ssh"): MemoryRoute(
        takes={
            "worker": TEXT,
            "command": TEXT,
            "timeout_seconds": Field(kind=int, default=300, low=1, high=3600),
            "stdin": Field(kind=str, default=""),
            "check_host": Field(kind=bool, default=False),
        },
        answer=run_ssh,
    ),
    ("POST", "/http"): MemoryRoute(
        takes={
            "method": TEXT,
            "url": TEXT,
            "headers": Field(kind=dict, default={}),
            "body": Field(kind=str, default=""),
            "timeout_seconds": Field(kind=int, default=30, low=1, high=120),
            "tls": Field(kind=dict, default=None),
        },
        answer=send_http,
    ),
}


def check_fields(given: Mapping[str, Any], takes: Mapping[str, Field], *, from_query: bool) -> dict[str, Any]:
    """Check fields against a route and fill in defaults."""
    for name in given:
        if name not in takes:
            raise ApiError(400, "invalid_argument", f"`{name}` is no field of this route")
    return {name: check_field(name, expected, given, from_query=from_query) for name, expected in takes.items()}


def check_field(name: str, expected: Field, given: Mapping[str, Any], *, from_query: bool) -> Any:
    """Check one field."""
    if name not in given:
        if expected.default is REQUIRED:
            raise ApiError(400, "invalid_argument", f"`{name}` is missing")
        return expected.default
    value = given[name]
    if from_query and expected.kind is int and value.lstrip("-").isdigit():
        value = int(value)
    if value is None and expected.default is None:
        return None
    if not isinstance(value, expected.kind) or (expected.kind is int and isinstance(value, bool)):
        raise ApiError(400, "invalid_argument", f"`{name}` must be of type {expected.kind.__name__}")
    if isinstance(value, int) and not is_in_range(value, expected):
        raise ApiError(400, "invalid_argument", f"`{name}` is out of range")
    return value


def is_in_range(value: int, expected: Field) -> bool:
    """Whether a number is within a field's bounds."""
    return (expected.low is None or value >= expected.low) and (expected.high is None or value <= expected.high)
