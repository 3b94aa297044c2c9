"""Trees about to be copied, on this executor's disk, in a directory that is private and goes with the run.

trees/<job>/<digest>/        allocations whose digest is equal share one tree: links to contents, rendered files beside them
contents/<sha256>.<mode>     verified copies of what is stored, made once per run; nobody but rsync, which reads, gets at them
"""

import asyncio
import shutil
from collections import defaultdict
from pathlib import Path

from maand_executor.content.allocation_trees import AllocationTree, own_contents
from maand_executor.content.content_store import ContentStore


class StagedTrees:
    """Makes trees under one run's staging directory."""

    def __init__(self, bucket_id: str, content: ContentStore, directory: Path) -> None:
        self._bucket_id = bucket_id
        self._content = content
        self._directory = directory
        self._made: dict[tuple[str, bytes], Path] = {}
        self._locks: defaultdict[tuple[str, bytes], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def stage_tree(self, job: str, digest: bytes, tree: AllocationTree) -> Path:
        """Return the directory that holds a tree, made when it is the first of its digest."""
        key = (job, digest)
        async with self._locks[key]:
            if key not in self._made:
                await self._content.ensure(self._bucket_id, [entry.sha256 for entry in tree.entries if entry.sha256])
                self._made[key] = await asyncio.to_thread(self._make, job, digest, tree)
            return self._made[key]

    def _make(self, job: str, digest: bytes, tree: AllocationTree) -> Path:
        contents = self._directory / "contents"
        contents.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = self._directory / "trees" / job / digest.hex()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, mode=0o700)
        directory.chmod(0o755)  # what the job's directory becomes on the worker; the run's own directory above is private
        self._content.materialise(tree.entries, directory, shared=contents)
        self._remember(tree)
        return directory

    def _remember(self, tree: AllocationTree) -> None:
        """Keep rendered content without secrets, so that a later dry run can show what changed."""
        for data in own_contents(tree).values():
            self._content.keep(data)
