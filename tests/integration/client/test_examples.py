"""The examples for other services do what they say, against two catalogs, an executor and a real SSH worker."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.integration.client.conftest import Calling
from tests.testbed.javascript import ROOT, find_node, node_modules

CALLERS = ROOT / "examples/callers"


@pytest.fixture
def python_caller() -> list[str]:
    return [sys.executable, str(CALLERS / "python/caller.py")]


@pytest.fixture
def node_caller(tmp_path: Path) -> list[str]:
    """Copy the example beside what it needs: the repository itself never holds `node_modules`."""
    example = tmp_path / "node"
    shutil.copytree(CALLERS / "node", example, ignore=shutil.ignore_patterns("node_modules"))
    (example / "node_modules").symlink_to(node_modules(example / "package.json"))
    return [str(find_node()), str(example / "caller.js")]


@pytest.fixture(params=["python_caller", "node_caller"])
def caller(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.getfixturevalue(request.param)
    return command


async def begin(calling: Calling, caller: list[str], command: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, **calling.environment(), "MAAND_PROTOS": str(ROOT / "protos"), "PYTHONUNBUFFERED": "1"}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*caller, command, env=environment, stdout=pipe, stderr=pipe)


async def test_a_caller_lists_workers_runs_follows_and_counts(calling: Calling, caller: list[str]) -> None:
    calling.bed.write_job("api", {})
    await calling.bed.build()
    host = calling.bed.hosts[0]
    for number in (1, 2):
        output, errors = await (await begin(calling, caller, "echo hello")).communicate()
        assert output.decode().splitlines() == [f"worker {host}", f"{host} | hello", f"counted {number}"], errors.decode()


async def test_a_caller_goes_on_when_a_catalog_dies(calling: Calling, caller: list[str]) -> None:
    calling.bed.write_job("api", {})
    await calling.bed.build()
    (worker,) = calling.bed.workers
    process = await begin(calling, caller, "echo 1; while [ ! -e /opt/go ]; do sleep 0.05; done; echo 2")
    assert process.stdout
    seen = [await process.stdout.readline(), await process.stdout.readline()]
    assert seen[1].decode() == f"{worker.host} | 1\n"
    await calling.kill(0)
    worker.path("/opt/go").touch()
    output, errors = await process.communicate()
    assert output.decode().splitlines() == [f"{worker.host} | 2", "counted 1"], errors.decode()


async def test_a_caller_that_is_refused_says_so_in_the_catalogs_words(calling: Calling, caller: list[str]) -> None:
    calling.token_file.write_text("ma_unknown\n")
    process = await begin(calling, caller, "true")
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert "\nerror (token_unknown): " in f"\n{errors.decode()}", "Node warns before of addresses that are no names"
    assert "  help: " in errors.decode()
