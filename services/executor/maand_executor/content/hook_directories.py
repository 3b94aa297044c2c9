"""The private directory of an invocation: the job as built, the SDK beside the script, the allocation's certificates.

It belongs to the hook, which may do with it what it likes: everything in it is a copy, but for what `node_modules` links to.

<state_dir>/invocations/<invocation id>/        0700, gone when the invocation ended
    _hooks/…            the job's hooks, maand.py, maand.ts, __pycache__/maand.…pyc
    certs/…             keys 0600, ca.crt
    everything else of the job
<state_dir>/kept/<job>-<worker>-<hook>-<id>/    what `--keep-workdir` keeps
"""

import asyncio
import py_compile
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from maand_executor.content.allocation_trees import HOOKS, certificate_files, digests_of, tree_of
from maand_executor.content.content_store import ContentDamaged, ContentStore, TreeEntry
from maand_executor.rules.facts import Certificates, Hook, JobFile
from maand_wire.errors import RemoteError

SDK_FILES = ("maand.py", "maand.ts")


@dataclass(frozen=True, kw_only=True)
class HookDirectoryContent:
    """What a private directory is filled with; the same for every invocation of an event but for the certificates."""

    bucket_id: str
    files: tuple[JobFile, ...]
    certificates: Certificates
    node_modules: Path | None = None


class HookDirectories:
    """Makes and removes private directories. One per executor."""

    def __init__(self, state_dir: Path, content: ContentStore) -> None:
        self._invocations = state_dir / "invocations"
        self._kept = state_dir / "kept"
        self._content = content
        self._sdk = sdk_files()
        for directory in (self._invocations, self._kept):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def make(self, invocation_id: str, allocation_id: str, content: HookDirectoryContent) -> Path:
        """Make the directory of one invocation and return it.

        Raises OSError, `ContentDamaged`; then, and when cancelled, nothing is left.
        """
        await self._have_content(content)
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

    async def _have_content(self, content: HookDirectoryContent) -> None:
        """Have the files on disk: an event had them, but may last for hours, and its hooks run on this host."""
        try:
            await self._content.ensure(content.bucket_id, digests_of(content.files))
        except RemoteError as error:
            raise ContentDamaged(
                f"stored content was lost or changed on this host, and the catalog does not give it: {error}"
            ) from error

    def _fill(self, directory: Path, allocation_id: str, content: HookDirectoryContent) -> None:
        directory.mkdir(mode=0o700)
        certificates = certificate_files(content.certificates, allocation_id)
        made_here = [*certificates, *self._sdk]
        job = tree_of(content.files, except_for=(entry.path for entry in made_here))
        self._content.materialise([*job, *made_here], directory)
        if content.node_modules:
            (directory / HOOKS / "node_modules").symlink_to(content.node_modules)


def sdk_files() -> tuple[TreeEntry, ...]:
    """Return the SDK, held in memory where no hook can get at it, with its bytecode, which halves the start of a hook.

    The bytecode is of the unchecked kind: it is valid whatever modification time a copy shows. Other versions of Python
    ignore it.
    """
    sources = [TreeEntry(path=f"{HOOKS}/{name}", data=files("maand_hook_sdk").joinpath(name).read_bytes()) for name in SDK_FILES]
    bytecode = TreeEntry(path=f"{HOOKS}/__pycache__/maand.{sys.implementation.cache_tag}.pyc", data=compiled_sdk())
    return (*sources, bytecode)


def compiled_sdk() -> bytes:
    """Return the bytecode of `maand.py` for the Python that runs this executor, and hooks without one of their own."""
    with TemporaryDirectory() as directory:
        compiled = Path(directory, "maand.pyc")
        py_compile.compile(
            str(files("maand_hook_sdk").joinpath("maand.py")),
            cfile=str(compiled),
            dfile="maand.py",
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        return compiled.read_bytes()


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
