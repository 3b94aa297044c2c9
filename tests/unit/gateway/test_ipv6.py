"""A hook API on `[::1]`: what the executor tells hooks, and what the SDKs make of it."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from maand_hook_sdk import SDK_FILES
from tests.testbed.javascript import find_bun
from tests.unit.gateway.conftest import serve

PYTHON = "from maand import get_kv_value; print(get_kv_value('vars/job/api', 'greeting'))"
TYPESCRIPT = 'import { getKvValue } from "./maand.ts"; console.log(await getKvValue("vars/job/api", "greeting"));'


@pytest.mark.parametrize(
    ("name", "script", "command"),
    [("hook.py", PYTHON, [sys.executable]), ("hook.ts", TYPESCRIPT, [str(find_bun()), "run"])],
    ids=["python", "bun"],
)
async def test_hooks_reach_it(tmp_path: Path, name: str, script: str, command: list[str]) -> None:
    for file in SDK_FILES:
        shutil.copy(file, tmp_path)
    (tmp_path / name).write_text(script)
    async with serve(listen="[::1]:0") as gateway:
        host, _, port = gateway.address.rpartition(":")
        environment = {"HOOK_API_HOST": host.strip("[]"), "HOOK_API_PORT": port, "HOOK_API_TOKEN": gateway.tokens["api"]}
        hook = await asyncio.create_subprocess_exec(
            *command, name, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await hook.communicate()

    assert (output.decode(), errors.decode()) == ("hello\n", "")
