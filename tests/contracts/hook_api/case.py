"""Cases of the conformance table: what every implementation of the hook API answers, whoever asks and in whatever language.

A case is a row of steps. A step is a caller, a call, and what must come back. `{k}` in fields is a key that no other case
uses. Three drivers send each step: raw HTTP, maand.py, maand.ts; the function cases drive the SDK functions by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call and its answer. `body` is the least that the answer must hold; `code` that of an error."""

    caller: str = "api"
    method: str
    path: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    code: str | None = None
    body: Any = None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One sentence, proved by steps in order."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class FunctionCase:
    """One SDK function, called by its Python name; options by keyword (TypeScript: one object in camelCase)."""

    name: str
    caller: str = "api"
    function: str
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    gives: Mapping[str, Any]


VARS = "vars/job/api"
SECRETS = "secrets/job/api"


def get(namespace: str, key: str, *, caller: str = "api", status: int = 200, **more: Any) -> Step:
    """Read a value."""
    code = {403: "permission_denied", 404: "not_found"}.get(status)
    fields = {"namespace": namespace, "key": key} | more.pop("fields", {})
    return Step(caller=caller, method="GET", path="/kv", fields=fields, status=status, code=code, **more)


def put(key: str, value: Any, *, namespace: str = VARS, path: str = "/kv", fields: Any = None, **more: Any) -> Step:
    """Write a value."""
    given = {"namespace": namespace, "key": key, "value": value} | (fields or {})
    return Step(method="PUT", path=path, fields=given, **more)


def delete(key: str, *, namespace: str = VARS, path: str = "/kv", **more: Any) -> Step:
    """Delete a value."""
    return Step(method="DELETE", path=path, fields={"namespace": namespace, "key": key}, **more)


def post(path: str, fields: Mapping[str, Any], **more: Any) -> Step:
    """Post something."""
    return Step(method="POST", path=path, fields=fields, **more)


LOST: dict[str, Any] = {"status": 409, "code": "kv_precondition_lost"}
DENIED: dict[str, Any] = {"status": 403, "code": "permission_denied"}
BAD: dict[str, Any] = {"status": 400, "code": "invalid_argument"}
LIMIT: dict[str, Any] = {"status": 400, "code": "limit_exceeded"}
