"""Workers of the demo: SSH servers on loopback addresses inside this process, each with its own root directory as HOME.

A command runs as `bash -c` in its own session. When its channel closes, its input ends, and what is still there after a moment
is ended with its whole process group, as a connection lost to a real worker would.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from maand_cli.errors import MissingPrerequisite

ADDRESSES = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
MARK = "MAAND_DEMO"
"""Environment variable that every process of a demo's workers carries, so that none is left behind."""
GRACE_SECONDS = 3.0

SYSTEMCTL = """\
#!/bin/sh
# Stands in for systemd on the demo's workers.
echo active
"""


@dataclass(frozen=True, kw_only=True)
class DemoWorker:
    """One worker that serves."""

    host: str
    port: int
    root: Path


@asynccontextmanager
async def serve_workers(place: Path, authorized_keys: Path, mark: str) -> AsyncIterator[tuple[DemoWorker, ...]]:
    """Serve three workers while the block runs; then end every process that ran on them."""
    keys = asyncssh.read_authorized_keys(str(authorized_keys))
    async with AsyncExitStack() as stack:
        stack.callback(end_processes, mark)
        workers = []
        for host in ADDRESSES:
            worker, server = await _start(host, place / host, keys, mark)
            stack.push_async_callback(_stop, server)
            workers.append(worker)
        yield tuple(workers)


async def _start(host: str, root: Path, keys: asyncssh.SSHAuthorizedKeys, mark: str) -> tuple[DemoWorker, asyncssh.SSHAcceptor]:
    """Start one worker on a free port."""
    fill_worker_directory(root)
    environment = worker_environment(root, mark, os.environ)

    async def serve(process: "asyncssh.SSHServerProcess[bytes]") -> None:
        await run_client_command(process, root, environment)

    try:
        server = await asyncssh.listen(
            host,
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=keys,
            process_factory=serve,
            encoding=None,
            config=None,
        )
    except OSError as error:
        raise MissingPrerequisite(
            f"the demo needs the loopback addresses {', '.join(ADDRESSES)}: {error.strerror or error}",
            help=f"on macOS: sudo ifconfig lo0 alias {host}",
        ) from error
    return DemoWorker(host=host, port=server.get_port(), root=root), server


def fill_worker_directory(root: Path) -> None:
    """Make a worker's own directory, with a stand-in for systemctl first on its PATH."""
    (root / "bin").mkdir(parents=True)
    systemctl = root / "bin" / "systemctl"
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)


async def _stop(server: asyncssh.SSHAcceptor) -> None:
    server.close()
    await server.wait_closed()


def worker_environment(root: Path, mark: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a command finds: its own HOME, its own systemctl, and this Python as python3."""
    search = [str(root / "bin"), str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    return {"HOME": str(root), "USER": "demo", "PATH": os.pathsep.join(search), "LANG": "C.UTF-8", MARK: mark}


async def run_client_command(process: "asyncssh.SSHServerProcess[bytes]", root: Path, environment: Mapping[str, str]) -> None:
    """Run the command a client asked for, to its end or the client's."""
    command = ["bash", "--noprofile", "--norc", *(["-c", process.command] if process.command else [])]
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=root,
        env=dict(environment),
        start_new_session=True,
    )
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    ends, closes = asyncio.create_task(child.wait()), asyncio.create_task(process.wait_closed())
    await asyncio.wait({ends, closes}, return_when=asyncio.FIRST_COMPLETED)
    if not ends.done():
        await end_child(child, ends)
        return
    await process.stdout.drain()
    process.exit(shell_exit_status(ends.result()))
    await closes


async def end_child(child: asyncio.subprocess.Process, ends: "asyncio.Task[int]") -> None:
    """End a command whose client is gone: its input first, then, if that does not do, the whole process group."""
    if child.stdin is not None:
        child.stdin.close()
    with suppress(TimeoutError):
        await asyncio.wait_for(ends, GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def shell_exit_status(code: int) -> int:
    """Return the exit code as a shell tells it."""
    return 128 - code if code < 0 else code


def end_processes(mark: str) -> None:
    """End every process that a demo's workers left behind, known by the mark in its environment."""
    for pid in find_marked_processes(mark, Path("/proc")):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def find_marked_processes(mark: str, proc: Path) -> Sequence[int]:
    """Find the processes that carry the mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in proc.glob("[0-9]*/environ"):
        with suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def find_missing_programs() -> dict[str, str]:
    """Return the programs a demo needs and this machine lacks, each with how to get it."""
    return {name: how for name, how in PROGRAMS.items() if shutil.which(name) is None}


PROGRAMS = {
    "rsync": "apt-get install rsync, dnf install rsync, or brew install rsync",
    "make": "apt-get install make, dnf install make, or xcode-select --install",
    "bash": "apt-get install bash, dnf install bash, or brew install bash",
}
