"""What runs a script: found, or made, before anything of an event is started.

| Script       | First that is there                                                                                    |
|--------------|--------------------------------------------------------------------------------------------------------|
| `.py`        | the job's `_hooks/.venv` or `_hooks/venv` in the workspace; one cached for `requirements.txt`; `python3` |
| `.ts`, `.js` | `_hooks/node_modules/.bin/bun` (the workspace's, or installed for `package.json`); `bun` on PATH         |

`python3` is the one that runs this executor.

Scripts are run plainly, `python -u hook.py`: `-I` and `-P` would hide the `maand.py` beside them.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from maand_executor.content.allocation_trees import HOOKS
from maand_executor.content.content_store import ContentStore
from maand_executor.hooks.dependencies import PACKAGE, REQUIREMENTS, Dependencies
from maand_executor.hooks.errors import InterpreterMissing
from maand_executor.rules.facts import Hook, JobFile

VIRTUAL_ENVIRONMENTS = (".venv", "venv")
UNBUFFERED = "-u"
"""Python holds back 8 KiB of what goes into a pipe; people want to see a line when it is printed."""
BUN = Path("node_modules", ".bin", "bun")


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """What stands before the script on the command line, and the `node_modules` to be linked beside it."""

    arguments: tuple[str, ...]
    node_modules: Path | None = None


class Interpreters:
    """Finds interpreters for the hooks of a job. One per executor."""

    def __init__(self, content: ContentStore, dependencies: Dependencies, workspace_dir: Path | None) -> None:
        self._content = content
        self._dependencies = dependencies
        self._workspace_dir = workspace_dir

    async def interpreter_for(self, hook: Hook, files: Sequence[JobFile]) -> Interpreter:
        """Return what runs a hook. Raises `InterpreterMissing`, `DependenciesNotInstalled`."""
        if hook.runtime == "bun":
            return await self._bun(hook, files)
        return Interpreter(arguments=(str(await self._python(hook.job, files)), UNBUFFERED))

    async def _python(self, job: str, files: Sequence[JobFile]) -> Path:
        for name in VIRTUAL_ENVIRONMENTS:
            own = self._own_hooks(job) / name / "bin" / "python"
            if self._workspace_dir and os.access(own, os.X_OK):
                return own
        if any(file.path == REQUIREMENTS for file in files):
            return await self._dependencies.python_for(job, files)
        return Path(sys.executable)

    async def _bun(self, hook: Hook, files: Sequence[JobFile]) -> Interpreter:
        own = self._own_hooks(hook.job) / "node_modules"
        if self._workspace_dir and own.is_dir():
            return Interpreter(arguments=(str(find_bun(own.parent, hook)),), node_modules=own)
        if not self._has_packages(files):
            return Interpreter(arguments=(str(find_bun(None, hook)),))
        modules = await self._dependencies.node_modules_for(hook.job, files, find_bun(None, hook))
        return Interpreter(arguments=(str(find_bun(modules.parent, hook)),), node_modules=modules)

    def _own_hooks(self, job: str) -> Path:
        """Return the job's `_hooks` as people edit it, on a machine that has the workspace."""
        return (self._workspace_dir or Path()) / "jobs" / job / HOOKS

    def _has_packages(self, files: Sequence[JobFile]) -> bool:
        """Whether `package.json` asks for anything. One that cannot be read is the installer's to complain about."""
        package = next((file for file in files if file.path == PACKAGE), None)
        if package is None:
            return False
        try:
            content = json.loads(self._content.read(package.sha256))
            return bool(content.get("dependencies") or content.get("optionalDependencies"))
        except (ValueError, AttributeError):
            return True


def find_bun(hooks: Path | None, hook: Hook) -> Path:
    """Return the bun of a `_hooks` directory, else that on PATH."""
    if hooks and os.access(hooks / BUN, os.X_OK):
        return hooks / BUN
    found = which("bun")
    if found is None:
        raise InterpreterMissing("bun", job=hook.job, hook=hook.name)
    return Path(found)
