"""The routes of docs/where-things-are.md run as told: what a row names is executed by a hook run, its KV write, and an update."""

import ast
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from maand_contracts.catalog.v1 import run_spec_pb2
from tests.integration.executor.deploy_bed import deploy_bed
from tests.testbed.sshd import SshTestBed

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| `(services/[^`]+[.]py)` \| `([^`]+)` \|", re.MULTILINE)
ROWS = sorted(set(ROW.findall((ROOT / "docs/where-things-are.md").read_text())))

WRITES = """
from maand import put_job_variable
put_job_variable("seen", "yes").raise_for_status()
"""


@contextmanager
def seen_calls() -> Iterator[set[tuple[str, str]]]:
    """Collect file and qualified name of every function that is called in this process, in threads made from now on too."""
    seen: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def runs_at_all(path: str, name: str) -> bool:
    """Whether a name stands for code: a function, or a class with methods of its own; not a table, nor a value."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.ClassDef) and node.name == name:
            return any(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body)
    return False


async def test_what_the_rows_name_is_executed(tmp_path: Path, test_bed: SshTestBed) -> None:
    with seen_calls() as seen:
        async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
            await bed.start_gateway()
            manifest = {"max_concurrent_upgrades": 1, "hooks": {"hook_write": {"executed_on": ["cli"]}}}
            bed.write_job("api", manifest, {"_hooks/hook_write.py": WRITES, "app.conf": "one"})
            await bed.build()
            assert (await bed.deploy()).state == "succeeded"
            bed.write_job("api", manifest, {"_hooks/hook_write.py": WRITES, "app.conf": "two"})
            await bed.build()
            assert (await bed.deploy()).batches("update") == [[host] for host in bed.hosts]
            hooked = await bed.run(run_spec_pb2.RunSpec(hooks=run_spec_pb2.HooksSpec(hook="hook_write", job="api")))
            assert hooked.state == "succeeded", hooked.result

    executed = {(file, part) for file, name in seen for part in name.split(".")}
    told = [row for row in ROWS if runs_at_all(*row)]
    assert len(told) > 30
    assert [row for row in told if (str(ROOT / row[0]), row[1]) not in executed] == []
