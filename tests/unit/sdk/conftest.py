"""maand.py as a hook sees it: a module of its own, and an environment to match."""

import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest

from maand_hook_sdk import SDK_FILES

ENVIRONMENT = {
    "HOOK_API_HOST": "127.0.0.1",
    "HOOK_API_TOKEN": "mh_test",
    "ALLOCATION_ID": "a-1",
    "ALLOCATION_IP": "10.0.0.1",
    "JOB": "api",
    "HOOK": "hook_x",
    "EVENT": "cli",
}


@pytest.fixture
def maand(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Load maand.py afresh."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("maand_under_test", SDK_FILES[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for connection in module._idle:
        connection.close()
