"""The private directory of an invocation: the job as built, the SDK beside the script, the allocation's certificates.

<state_dir>/invocations/<invocation id>/        0700, gone when the invocation ended
    _hooks/…            hard links, read-only   maand.py, maand.ts, __pycache__/maand.…pyc
    certs/…             keys 0600, ca.crt
    everything else of the job
<state_dir>/kept/<job>-<worker>-<hook>-<id>/    what `--keep-workdir` keeps
"""

import asyncio
import importlib.util
import os
import py_compile
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from maand_executor.content import ContentStore, TreeEntry
from maand_executor.facts import Certificates, Hook, JobFile

HOOKS = "_hooks"
SDK_FILES = ("maand.py", "maand.ts")


@dataclass(frozen=True, kw_only=True)
class WorkspaceContent:
    """What a private directory is filled with; the same for every invocation of an event but for the certificates."""

    files: tuple[JobFile, ...]
    certificates: Certificates
    node_modules: Path | None = None


class Workspaces:
    """Makes and removes private directories. One per executor."""

    def __init__(self, state_dir: Path, content: ContentStore) -> None:
        self._invocations = state_dir / "invocations"
        self._kept = state_dir / "kept"
        self._content = content
        self._sdk = stage_sdk(state_dir / "sdk")
        for directory in (self._invocations, self._kept):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def make(self, invocation_id: str, allocation_id: str, content: WorkspaceContent) -> Path:
        """Make the directory of one invocation and return it. Raises OSError; then, and when cancelled, nothing is left."""
        directory = self._invocations / invocation_id
        making = asyncio.ensure_future(asyncio.to_thread(self._fill, directory, allocation_id, content))
        try:
            await asyncio.shield(making)
        except BaseException:
            await asyncio.wait({making})
            await self.remove(directory)
            raise
        return directory

    async def remove(self, directory: Path) -> None:
        """Delete a directory, whatever the hook did to its permissions."""
        await asyncio.to_thread(remove_tree, directory)

    def keep(self, directory: Path, *, hook: Hook, worker: str) -> Path:
        """Move a directory to where it stays and return it."""
        kept = self._kept / f"{hook.job}-{worker}-{hook.name}-{directory.name}".replace("/", "_")
        return directory.rename(kept)

    def remove_leftovers(self) -> None:
        """Delete the directories of an earlier executor that was killed."""
        for directory in self._invocations.iterdir():
            remove_tree(directory)

    def _fill(self, directory: Path, allocation_id: str, content: WorkspaceContent) -> None:
        directory.mkdir(mode=0o700)
        certificates = certificate_files(content.certificates, allocation_id)
        made_here = {entry.path for entry in certificates} | {f"{HOOKS}/{name}" for name in SDK_FILES}
        self._content.materialise(tree_of(content.files, except_for=made_here), directory, read_only=True)
        self._content.materialise(certificates, directory)
        link_tree(self._sdk, directory / HOOKS)
        if content.node_modules:
            (directory / HOOKS / "node_modules").symlink_to(content.node_modules)


def tree_of(job_files: Iterable[JobFile], *, except_for: Iterable[str] = ()) -> list[TreeEntry]:
    """Return the stored files of a job as a tree."""
    left_out = frozenset(except_for)
    return [
        TreeEntry(path=file.path, mode=file.mode, sha256=file.sha256, link_target=file.link_target)
        for file in job_files
        if file.path not in left_out
    ]


def certificate_files(certificates: Certificates, allocation_id: str) -> list[TreeEntry]:
    """Return `certs/` of one allocation; keys are readable by the owner only."""
    entries = [TreeEntry(path="certs/ca.crt", data=certificates.ca_certificate_pem.encode())]
    for leaf in certificates.of(allocation_id):
        entries.append(TreeEntry(path=f"certs/{leaf.name}.crt", data=leaf.certificate_pem.encode()))
        entries.append(TreeEntry(path=f"certs/{leaf.name}.key", data=leaf.private_key_pem.encode(), mode=0o600))
    return entries


def digests_of(job_files: Sequence[JobFile]) -> list[bytes]:
    """Return the contents that the files of a job need."""
    return [file.sha256 for file in job_files if not file.link_target]


def stage_sdk(directory: Path) -> Path:
    """Copy the SDK where it can be linked from, with its bytecode beside it, which halves the start of a hook.

    The bytecode is of the unchecked kind: it is valid whatever modification time a link shows. Other versions of Python
    ignore it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(mkdtemp(dir=directory.parent, prefix="sdk-"))
    for name in SDK_FILES:
        source = files("maand_hook_sdk").joinpath(name)
        (staging / name).write_bytes(source.read_bytes())
        (staging / name).chmod(0o444)
    module = staging / "maand.py"
    compiled = Path(importlib.util.cache_from_source(str(module)))
    py_compile.compile(
        str(module),
        cfile=str(compiled),
        dfile="maand.py",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    compiled.chmod(0o444)
    remove_tree(directory)
    return staging.rename(directory)


def link_tree(source: Path, target: Path) -> None:
    """Hard-link a small tree into another; copy where links do not reach."""
    for folder, _, names in os.walk(source):
        into = target / Path(folder).relative_to(source)
        into.mkdir(parents=True, exist_ok=True)
        for name in names:
            try:
                os.link(Path(folder, name), into / name)
            except OSError:
                shutil.copy2(Path(folder, name), into / name)


def remove_tree(directory: Path) -> None:
    """Delete a tree, or nothing; a folder without permissions gets them first."""
    shutil.rmtree(directory, onerror=allow_and_retry)


def allow_and_retry(action: Callable[[str], Any], path: str, _: object) -> None:
    """Open up the folder that kept something from being deleted, and try once more; what still resists stays."""
    with suppress(OSError):
        Path(path).parent.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            Path(path).chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            action(path)
