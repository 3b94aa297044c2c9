"""Watching what a deploy does while it goes on."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.e2e.maand import Bucket
from tests.fleet.fleet import Fleet
from tests.testbed.worker import SshWorker


def started_deploy(fleet: Fleet) -> "subprocess.Popen[str]":
    """Begin a deploy."""
    return fleet.bucket.start("deploy")


def ended(deploying: "subprocess.Popen[str]", *, seconds: float) -> tuple[int, str]:
    """Wait for the end of a deploy: its exit code, and what it said."""
    out, err = deploying.communicate(timeout=seconds)
    return deploying.returncode, out + err


def wait_until_it_runs(worker: SshWorker, words: str, deploying: "subprocess.Popen[str]") -> None:
    """Return when the worker runs a command with these words."""

    def is_there() -> bool:
        assert deploying.poll() is None, "".join(deploying.communicate())
        return any(words in line for line in worker.processes())

    wait_for(is_there, f"{words} on {worker.host}")


def wait_for(condition: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Return when a condition holds."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"waited {seconds} s in vain: {what}"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, also when its parent has not noticed yet."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def hooks_alive(bucket: Bucket) -> list[str]:
    """Return the processes of hooks of this bucket: those whose working directory is below it and is a hook's."""
    alive = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            directory = str((entry / "cwd").readlink())
            if directory.startswith(str(bucket.path)) and "/_hooks" in directory:
                alive.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return alive
