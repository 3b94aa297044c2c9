"""Many hook processes at once: one semaphore, one counter, exact result, nobody starves."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from maand_hook_sdk import SDK_FILES
from tests.contracts.hook_api.world import ServedApi, environment
from tests.integration.gateway.conftest import Chain
from tests.testbed.javascript import find_bun

HOOKS = 200
AT_ONCE = 200

PYTHON = """
from maand import *
with semaphore("counter", capacity=3, timeout_seconds=110) as slot:
    while True:
        stored = get_store_value("vars/job/api", "counter")
        if stored.ok:
            found = stored.json()
            done = put_job_variable("counter", str(int(found["value"]) + 1), if_version=found["version"])
        else:
            done = put_job_variable("counter", "1", if_absent=True)
        if done.status_code != 409:
            done.raise_for_status()
            break
print(slot.fencing_token)
"""

TYPESCRIPT = """
import { getStoreValue, putJobVariable, withSemaphore } from "./maand";
await withSemaphore("counter", async (slot) => {
  for (;;) {
    const stored = await getStoreValue("vars/job/api", "counter");
    const found = stored.ok ? stored.json() : undefined;
    const done = found
      ? await putJobVariable("counter", String(Number(found.value) + 1), { ifVersion: found.version })
      : await putJobVariable("counter", "1", { ifAbsent: true });
    if (done.statusCode === 409) continue;
    done.raiseForStatus();
    break;
  }
  console.log(slot.fencingToken);
}, { capacity: 3, timeoutSeconds: 110 });
"""


def command(language: str, directory: Path) -> list[str]:
    """Lay out a hook; return how it is run."""
    for file in SDK_FILES:
        shutil.copy(file, directory)
    if language == "python":
        (directory / "hook_count.py").write_text(PYTHON)
        return [sys.executable, "hook_count.py"]
    (directory / "hook_count.ts").write_text(TYPESCRIPT)
    return [str(find_bun()), "run", "hook_count.ts"]


@pytest.mark.parametrize("language", ["python", "typescript"])
async def test_two_hundred_hooks_count_to_two_hundred(chain: Chain, tmp_path: Path, language: str) -> None:
    words = command(language, tmp_path)
    room = asyncio.Semaphore(AT_ONCE)

    async def hook(token: str) -> tuple[int | None, bytes, bytes]:
        api = ServedApi(address=chain.gateway.address, tokens={"api": token}, identities=chain.identities)
        async with room:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd=tmp_path,
                env=environment(api, "api") | {"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, errors = await process.communicate()
        return process.returncode, output, errors

    ended = await asyncio.gather(*(hook(token) for token in await chain.begin("api", HOOKS)))

    assert [errors.decode() for code, _, errors in ended if code != 0] == []
    assert await chain.fleet.value("vars/job/api", "counter") == str(HOOKS)
    assert len({int(output) for _, output, _ in ended}) == HOOKS, "every grant has a fencing token of its own"
