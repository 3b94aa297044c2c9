"""Dependencies of hooks: installed once per content of the file that names them, kept in the state directory, shared by all.

    <state_dir>/dependencies/python-<key>/bin/python       requirements.txt
    <state_dir>/dependencies/node-<key>/node_modules       package.json and its lock file

A directory counts only with its `.complete` file, which is written last: what a killed executor left half-done is made anew.

Hooks of all jobs use the same installation, at the same time: a copy for each would take seconds. What is installed is therefore
read-only, so that no hook changes it by accident (a hook whose executor runs as root still could), and shares no file with the
installer's own cache.
"""

import asyncio
import hashlib
import importlib.util
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from maand_executor.content.allocation_trees import HOOKS, tree_of
from maand_executor.content.content_store import ContentStore, TreeEntry
from maand_executor.content.hook_directories import remove_tree
from maand_executor.hooks.errors import DependenciesNotInstalled
from maand_executor.hooks.process import Command, GroupProcess, supervise_process
from maand_executor.hooks.subreaper import Subreaper
from maand_executor.rules.facts import InvocationOutcome, JobFile
from maand_executor.rules.hook_outcomes import sentence_of
from maand_executor.rules.output_lines import Tail, tail_lines

INSTALL_TIMEOUT = timedelta(minutes=15)
"""Limit of one installer: some packages are compiled."""
KEPT_UNUSED = timedelta(days=90)
"""How long an installation stays that no hook uses; its `.complete` file shows when one last did."""
REQUIREMENTS = f"{HOOKS}/requirements.txt"
PACKAGE = f"{HOOKS}/package.json"
BUN_LOCKS = (f"{HOOKS}/bun.lock", f"{HOOKS}/bun.lockb")
LOCKS = (*BUN_LOCKS, f"{HOOKS}/package-lock.json", f"{HOOKS}/yarn.lock")
OWN_VARIABLES = "MAAND_"
"""Prefix of variables that an installer does not get: they say where the catalog and the API token are."""


class Dependencies:
    """Installs and remembers. One per executor; equal wishes wait for one installation."""

    def __init__(self, state_dir: Path, content: ContentStore, subreaper: Subreaper) -> None:
        self._directory = state_dir / "dependencies"
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._content = content
        self._subreaper = subreaper
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        for unused in self._directory.iterdir():
            if unused_for(unused) > KEPT_UNUSED:
                remove_tree(unused)

    async def python_for(self, job: str, files: Sequence[JobFile]) -> Path:
        """Return the interpreter of a virtual environment with what `requirements.txt` names."""
        requirements = {file.path: file for file in files}[REQUIREMENTS]
        key = short_digest(sys.version, *self._mentioned(requirements, files))
        directory = self._directory / f"python-{key}"
        python = directory / "bin" / "python"
        async with self._locks[key]:
            if not (is_complete(directory) and python.exists()):  # the python it links to may have left this machine
                await self._make_environment(job, directory, files)
        mark_complete(directory)
        return python

    async def node_modules_for(self, job: str, files: Sequence[JobFile], bun: Path) -> Path:
        """Return the `node_modules` with what `package.json` and its lock file name."""
        named = {file.path: file for file in files}
        locks = [path for path in LOCKS if path in named]
        key = short_digest(*(named[path].sha256.hex() for path in (PACKAGE, *locks)))
        directory = self._directory / f"node-{key}"
        async with self._locks[key]:
            if not is_complete(directory):
                await self._make_node_modules(job, directory, files, bun, frozen=any(path in named for path in BUN_LOCKS))
        mark_complete(directory)
        return directory / HOOKS / "node_modules"

    def _mentioned(self, requirements: JobFile, files: Sequence[JobFile]) -> Iterable[str]:
        """Yield digests of `requirements.txt` and of the job's own files it mentions: wheels, constraints, further lists."""
        yield requirements.sha256.hex()
        text = self._content.read(requirements.sha256).decode(errors="replace")
        for file in files:
            name = file.path.removeprefix(f"{HOOKS}/")
            if name != file.path and name in text:
                yield file.path + file.sha256.hex()

    async def _make_environment(self, job: str, directory: Path, files: Sequence[JobFile]) -> None:
        remove_tree(directory)
        with TemporaryDirectory(dir=self._directory, prefix="sources-") as sources:
            await asyncio.to_thread(self._content.materialise, hook_files(files), Path(sources))
            for arguments in environment_commands(directory):
                await self._install(job, REQUIREMENTS, arguments, Path(sources, HOOKS))
        await asyncio.to_thread(make_read_only, directory)

    async def _make_node_modules(self, job: str, directory: Path, files: Sequence[JobFile], bun: Path, *, frozen: bool) -> None:
        remove_tree(directory)
        await asyncio.to_thread(self._content.materialise, hook_files(files), directory)
        arguments = (str(bun), "install", "--backend=copyfile", *(("--frozen-lockfile",) if frozen else ("--no-save",)))
        await self._install(job, PACKAGE, arguments, directory / HOOKS)
        await asyncio.to_thread(make_read_only, directory)

    async def _install(self, job: str, path: str, arguments: Sequence[str], directory: Path) -> None:
        """Run one installer. Raises `DependenciesNotInstalled` with its last words."""
        tail = Tail()
        command = Command(arguments=arguments, directory=directory, environment=installer_environment(os.environ))
        process = GroupProcess.start(command, subreaper=self._subreaper, on_output=lambda _, data: tail.feed(data))
        never: asyncio.Future[InvocationOutcome] = asyncio.get_running_loop().create_future()
        end = await supervise_process(process, limit=INSTALL_TIMEOUT, asked_to_end=never)
        if end.return_code != 0 or end.ended_as:
            reason = sentence_of(end.ended_as or InvocationOutcome.FAILED, end.return_code, INSTALL_TIMEOUT)
            raise DependenciesNotInstalled(job=job, path=path, reason=reason, last_lines=tail_lines(tail.text()))


def environment_commands(directory: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return how to make a virtual environment and install into it.

    With the pip of this interpreter, when it has one: putting a pip into the environment takes longer than all the rest.
    """
    python, pip_here = str(directory / "bin" / "python"), importlib.util.find_spec("pip") is not None
    make = (sys.executable, "-m", "venv", *(("--without-pip",) if pip_here else ()), str(directory))
    pip = (sys.executable, "-m", "pip", "--python", python) if pip_here else (python, "-m", "pip")
    return make, (*pip, "install", "--disable-pip-version-check", "--no-input", "-r", "requirements.txt")


def hook_files(files: Sequence[JobFile]) -> list[TreeEntry]:
    """Return the tree of `_hooks`, for installers that are told of files in it."""
    return tree_of(file for file in files if file.path.startswith(f"{HOOKS}/"))


def installer_environment(host: Mapping[str, str]) -> dict[str, str]:
    """Return what an installer may know: proxies, indexes and caches of the host, but nothing of maand's own."""
    return {name: value for name, value in host.items() if not name.startswith(OWN_VARIABLES)}


def make_read_only(directory: Path) -> None:
    """Take the write bits from everything below a directory; links lead elsewhere and stay as they are."""
    for folder, folders, names in os.walk(directory):
        for path in (Path(folder, name) for name in (*folders, *names)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o555)


def is_complete(directory: Path) -> bool:
    """Whether an installation was finished."""
    return (directory / ".complete").exists()


def mark_complete(directory: Path) -> None:
    """Say that an installation was finished, and is in use now."""
    (directory / ".complete").touch()


def unused_for(directory: Path) -> timedelta:
    """Return for how long no hook used an installation; one that was never finished is used by nobody."""
    if not is_complete(directory):
        return timedelta.max
    return timedelta(seconds=time.time() - (directory / ".complete").stat().st_mtime)


def short_digest(*parts: str) -> str:
    """Return a short name for a combination of inputs."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
