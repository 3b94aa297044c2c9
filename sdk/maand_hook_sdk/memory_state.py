"""The state file of `maand hooks test`: what the in-memory gateway knows before the hook starts. JSON, every key optional.

    {
      "allocations": ["10.0.0.1", "10.0.0.2"],       workers of the job, in rollout order; default one, 127.0.0.1
      "disabled": ["10.0.0.2"],                      which of them are disabled
      "current_version": "1.0.0", "new_version": "1.1.0",
      "batch_size": 1,                               workers per batch; default all in one
      "kv": {"vars/job/api": {"leader": "10.0.0.1"}, "secrets/job/api": {"token": "…"}, "maand/bucket": {…}},
      "demanded_jobs": ["database"],                 jobs whose namespaces the hook may read
      "demands": [{"job": "web", "hook": "hook_x", "demand_config": {}}],   what list_hook_demands() answers
      "semaphores": {"migrate": ["10.0.0.2"]},       who holds what already (and never lets go)
      "ssh": [{"worker": "10.0.0.1", "command": "make -s *", "exit_code": 0, "stdout": "active", "stderr": ""}],
      "http": [{"method": "GET", "url": "http://10.0.0.1:8080/*", "status_code": 200, "headers": {}, "body": "ok"}],
      "environment": {"TARGET": "restart"}           further variables of the hook
    }

`ssh` and `http` are replies to what the hook asks, the first whose patterns match (`*` and `?`, as in a shell); without one
the worker counts as unreachable (502).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

KNOWN = frozenset(
    {
        *("allocations", "disabled", "current_version", "new_version", "batch_size", "kv", "demanded_jobs", "demands"),
        *("semaphores", "ssh", "http", "environment"),
    }
)


class BadState(Exception):
    """The state file cannot be used. The message names the key; fix it and try again."""

    code = "bad_state"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One canned reply: patterns of the request, and the answer."""

    patterns: Mapping[str, str]
    answer: Mapping[str, Any]

    def fits(self, request: Mapping[str, Any]) -> bool:
        """Whether every pattern matches the request's field of that name."""
        return all(fnmatchcase(str(request.get(name, "")), pattern) for name, pattern in self.patterns.items())


@dataclass(frozen=True, kw_only=True)
class MemoryState:
    """What the in-memory gateway knows."""

    allocations: tuple[str, ...] = ("127.0.0.1",)
    disabled: tuple[str, ...] = ()
    current_version: str = "0.0.0"
    new_version: str = "0.0.0"
    batch_size: int = 0
    kv: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    demanded_jobs: tuple[str, ...] = ()
    demands: tuple[Mapping[str, Any], ...] = ()
    semaphores: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ssh: tuple[Reply, ...] = ()
    http: tuple[Reply, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a state file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadState(f"{path} cannot be read as JSON: {error}") from error
        return cls.from_json(content)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Take the content of a state file."""
        if not isinstance(content, dict):
            raise BadState("a state file holds one JSON object")
        unknown = sorted(set(content) - KNOWN)
        if unknown:
            raise BadState(f'unknown key "{unknown[0]}" in the state file; known are {", ".join(sorted(KNOWN))}')
        return cls(**{name: convert_value(name, value) for name, value in content.items()})


def convert_value(name: str, value: Any) -> Any:
    """Give a value of the file the type it has in memory."""
    match name:
        case "allocations" | "disabled" | "demanded_jobs":
            return tuple(check_type(name, value, list))
        case "demands":
            return tuple({"demand_config": {}} | demand for demand in check_type(name, value, list))
        case "ssh":
            return tuple(parse_reply(entry, ("worker", "command"), SSH_ANSWER) for entry in check_type(name, value, list))
        case "http":
            return tuple(parse_reply(entry, ("method", "url"), HTTP_ANSWER) for entry in check_type(name, value, list))
        case "batch_size":
            return check_type(name, value, int)
        case "current_version" | "new_version":
            return check_type(name, value, str)
        case _:
            return check_type(name, value, dict)


SSH_ANSWER: Mapping[str, Any] = {
    "exit_code": 0,
    "stdout": "",
    "stderr": "",
    "timed_out": False,
    "truncated": False,
    "duration_ms": 1,
}

HTTP_ANSWER: Mapping[str, Any] = {"status_code": 200, "headers": {}, "body": "", "truncated": False}


def parse_reply(entry: Any, patterns: tuple[str, ...], answer: Mapping[str, Any]) -> Reply:
    """Read one canned reply."""
    unknown = sorted(set(check_type("ssh and http entries", entry, dict)) - set(patterns) - set(answer))
    if unknown:
        raise BadState(f'unknown key "{unknown[0]}" in a reply; known are {", ".join((*patterns, *answer))}')
    return Reply(
        patterns={name: entry[name] for name in patterns if name in entry},
        answer=dict(answer) | {name: value for name, value in entry.items() if name in answer},
    )


def check_type(name: str, value: Any, kind: type) -> Any:
    """Refuse a value of another type."""
    if not isinstance(value, kind):
        raise BadState(f'"{name}" in the state file must be of type {kind.__name__}')
    return value
