"""What docs/grpc-callers.md shows is what the tested examples do, and its command lines work as they stand."""

import os
import re
import subprocess
import sys
from asyncio import to_thread
from pathlib import Path

import pytest

from tests.integration.client.conftest import Calling
from tests.testbed.javascript import ROOT

PAGE = (ROOT / "docs/grpc-callers.md").read_text()
EXAMPLES = {"python": ["python/caller.py"], "js": ["node/caller.js", "node/maand.js"]}


def blocks(language: str) -> list[str]:
    """Return the page's blocks of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("language", EXAMPLES)
def test_every_snippet_is_a_piece_of_a_tested_example(language: str) -> None:
    sources = [(ROOT / "examples/callers" / name).read_text() for name in EXAMPLES[language]]
    assert blocks(language)
    assert [block for block in blocks(language) if not any(block in source for source in sources)] == []


async def test_the_command_lines_work_as_they_stand(calling: Calling) -> None:
    calling.bed.write_job("api", {})
    await calling.bed.build()
    (lines,) = blocks("sh")
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **calling.environment(), "MAAND_CATALOG_ADDRESS": calling.addresses[0], "PATH": tools}
    ran = await to_thread(
        subprocess.run, ["sh", "-eu", "-c", lines], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert "maand.catalog.v1.RunService/CreateRun" in ran.stdout
    assert f'"name": "{calling.bed.hosts[0]}"' in ran.stdout
