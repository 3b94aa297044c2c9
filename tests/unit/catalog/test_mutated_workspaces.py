"""Whatever is put wherever in a good workspace, it compiles or is told as problems; nothing fails inside."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.catalog.workspace_row import DB, HOOK, MANIFEST
from tests.unit.catalog.workspaces import compile_files

GOOD: dict[str, Any] = {
    MANIFEST: {
        "version": "2.1.0",
        "selectors": ["api"],
        "restart_policy": "reload",
        "restart_globs": ["*.conf"],
        "resources": {"memory": {"min": "256 mb", "max": "1 gb"}, "cpu": {"max": 1000}, "ports": {"p": {}, "q": 9000}},
        "hooks": {
            "hook_a": {
                "executed_on": ["pre_deploy", "cli"],
                "timeout_seconds": 900,
                "demands": {"job": "db", "hook": "hook_s", "config": {"min_version": "2.0.0", "free": 1}},
            }
        },
        "health_check": {
            "checks": [
                {"type": "tcp", "port": "p"},
                {"type": "http", "port": "p", "path": "/x"},
                {"type": "ssh", "command": "x"},
            ],
            "wait": {"attempts": 3, "interval_seconds": 1},
        },
        "certs": {"tls": {"pkcs8": True, "subject": {"common_name": "api.internal", "country": "DE"}}},
    },
    "workers.json": [
        {
            "host": "10.0.0.1",
            "labels": ["api"],
            "memory": "4 gb",
            "cpu": "2 ghz",
            "tags": {"a": "b"},
            "position": 1,
            "ssh_port": 22,
        },
        {"host": "w.internal", "labels": ["api"]},
    ],
    "disabled.json": {"jobs": {"api": {}, "db": {"allocations": ["w.internal"]}}, "workers": ["10.0.0.1"]},
}

ODD: list[Any] = [
    *(None, True, 0, -1, 1.5, 2**63, 10**300, 1e308),
    *("", "x", "a" * 300, "\0", "é", "10.0.0.1", "1.2.3", "hook_a", "1 gb"),
    *([], {}, [None], [[]], {"": 1}, {"a": None}),
]
NAMES = ["x", "hooks", "", "a.b", "\a", "type"]

Path = tuple[str | int, ...]


def test_the_workspace_to_begin_with_is_good() -> None:
    assert compile_files({**HOOK, **DB, **{file: json.dumps(document) for file, document in GOOD.items()}}).problems == ()


@given(st.randoms(use_true_random=False))
def test_a_mutated_workspace_compiles_or_is_told_as_problems(random: Random) -> None:
    documents = json.loads(json.dumps(GOOD))
    for _ in range(random.randint(1, 3)):
        mutate(documents[random.choice(list(documents))], random)

    compiled = compile_files({**HOOK, **DB, **{file: json.dumps(document) for file, document in documents.items()}})

    assert (compiled.workspace is None) == bool(compiled.problems)
    assert all(problem.code and problem.message and problem.file for problem in compiled.problems)


def mutate(document: Any, random: Random) -> None:
    """Put something odd somewhere, give a key another name, or repeat an item."""
    inner = [path for path in paths(document) if path]
    if not inner:
        return
    *above, last = random.choice(inner)
    parent = document
    for step in above:
        parent = parent[step]
    if random.random() < 0.7:
        parent[last] = random.choice(ODD)
    elif isinstance(parent, dict):
        parent[random.choice([*NAMES, f"{last}s"])] = parent.pop(last)
    else:
        parent.append(parent[last])


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every part of a document."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in parts:
        yield from paths(part, (*path, step))
