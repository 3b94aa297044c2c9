"""A pytest fixture for hooks. In the `conftest.py` beside a job's tests: `pytest_plugins = ["maand_hook_sdk.pytest_plugin"]`.

def test_the_first_allocation_makes_the_password(run_hook):
    report = run_hook("workspace/jobs/api", "hook_bootstrap", event="pre_deploy")
    assert report.ok
    assert "admin_password" in report.state["secrets/job/api"]
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maand_hook_sdk.hook_runner import HookTestReport, run_hook_test
from maand_hook_sdk.memory_state import MemoryState

RunHook = Callable[..., HookTestReport]


@pytest.fixture
def run_hook() -> RunHook:
    """Run one hook against an in-memory gateway, as `run_hook_test` does; `state` is what a state file holds, as a dict."""

    def run(job_dir: str | Path, hook: str, *, state: dict[str, Any] | None = None, **how: Any) -> HookTestReport:
        return run_hook_test(Path(job_dir), hook, state=MemoryState.from_json(state or {}), **how)

    return run
