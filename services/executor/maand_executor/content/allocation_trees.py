"""What goes to a worker for one allocation: plain files, rendered templates, certificates, as one tree of content.

    job files --split_job--> plain entries (the same for every allocation) + templates --`renderer`--> rendered files
    + certificates --make_tree--> AllocationTree --files--> digest, plan;  --entries--> copy

Hooks, what is for monitoring, `manifest.json` and `vars.toml` stay with maand: editing them restarts nothing.
"""

import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from maand_executor.content.content_store import TreeEntry
from maand_executor.content.templates import SUFFIX, RenderedFile
from maand_executor.errors import CannotRender
from maand_executor.rules.decisions import digest_of_content, runtime_digest
from maand_executor.rules.facts import Certificates, JobFile, PlannedFile

STAYS_WITH_MAAND = frozenset({"manifest.json", "vars.toml"})
HOOKS = "_hooks"
MONITORING = "_prometheus"
"""Scrape targets, alerts, runbooks, dashboards of a job: for those who monitor it, not for its workers."""
CERTIFICATES = "certs/"
LINK_MODE = stat.S_IFLNK | 0o777
"""Mode of every symbolic link: it has no permissions of its own."""


class PathClash(CannotRender):
    """Two sources make the same path on a worker, for example `app.conf` and `app.conf.j2`. Rename or delete one of them."""

    code = "path_clash"


@dataclass(frozen=True, kw_only=True)
class JobContent:
    """Files of a job that go to workers: those that are the same everywhere, and the templates."""

    job: str
    plain: tuple[TreeEntry, ...]
    templates: tuple[JobFile, ...]

    @property
    def varies(self) -> bool:
        """Whether allocations may differ."""
        return bool(self.templates)


@dataclass(frozen=True, kw_only=True)
class AllocationTree:
    """Everything that goes to a worker for one allocation. `secret_paths` were rendered with a secret."""

    entries: tuple[TreeEntry, ...] = field(repr=False)
    files: tuple[PlannedFile, ...] = field(repr=False)
    digest: bytes
    secret_paths: frozenset[str] = frozenset()


def tree_of(job_files: Iterable[JobFile], *, except_for: Iterable[str] = ()) -> list[TreeEntry]:
    """Return the stored files of a job as a tree."""
    left_out = frozenset(except_for)
    return [
        TreeEntry(path=file.path, mode=file.mode, sha256=file.sha256, link_target=file.link_target, directory=file.directory)
        for file in job_files
        if file.path not in left_out
    ]


def certificate_files(certificates: Certificates, allocation_id: str) -> list[TreeEntry]:
    """Return `certs/` of one allocation; keys are readable by the owner only."""
    entries = [TreeEntry(path=f"{CERTIFICATES}ca.crt", data=certificates.ca_certificate_pem.encode())]
    for leaf in certificates.of(allocation_id):
        entries.append(TreeEntry(path=f"{CERTIFICATES}{leaf.name}.crt", data=leaf.certificate_pem.encode()))
        entries.append(TreeEntry(path=f"{CERTIFICATES}{leaf.name}.key", data=leaf.private_key_pem.encode(), mode=0o600))
    return entries


def digests_of(job_files: Sequence[JobFile]) -> list[bytes]:
    """Return the contents that the files of a job need."""
    return [file.sha256 for file in job_files if file.sha256]


def split_job(job: str, job_files: Iterable[JobFile]) -> JobContent:
    """Sort the stored files of a job by what happens to them."""
    sent = [file for file in job_files if goes_to_workers(file.path)]
    return JobContent(
        job=job,
        plain=tuple(tree_of(file for file in sent if not is_template(file))),
        templates=tuple(file for file in sent if is_template(file)),
    )


def goes_to_workers(path: str) -> bool:
    """Whether a file of a job goes to its workers."""
    return path not in STAYS_WITH_MAAND and path.split("/", 1)[0] not in (HOOKS, MONITORING)


def is_template(file: JobFile) -> bool:
    """Whether a file is rendered; a symbolic link is a link, and a directory one, whatever its name."""
    return file.path.endswith(SUFFIX) and bool(file.sha256)


def make_tree(
    content: JobContent, rendered: Sequence[RenderedFile], certificates: Certificates, *, allocation_id: str
) -> AllocationTree:
    """Put the tree of one allocation together. Raises `PathClash`. Hashes: run it in a thread."""
    own = [TreeEntry(path=one.path, mode=one.mode, data=one.data) for one in rendered]
    if certificates.of(allocation_id):
        own += certificate_files(certificates, allocation_id)
    entries = (*content.plain, *own)
    refuse_clashes(content.job, entries)
    files = tuple(map(planned_file_of_entry, entries))
    return AllocationTree(
        entries=entries,
        files=files,
        digest=runtime_digest(files),
        secret_paths=frozenset(one.path for one in rendered if one.secret),
    )


def refuse_clashes(job: str, entries: Sequence[TreeEntry]) -> None:
    """Raise `PathClash` when two entries have the same path."""
    path, number = Counter(entry.path for entry in entries).most_common(1)[0] if entries else ("", 0)
    if number > 1:
        raise PathClash(f"job {job}: {number} sources make the file {path} on a worker (a file and a template, or `certs/`)")


def planned_file_of_entry(entry: TreeEntry) -> PlannedFile:
    """Describe an entry as the catalog remembers it."""
    if entry.link_target:
        return PlannedFile(path=entry.path, mode=LINK_MODE, sha256=digest_of_content(entry.link_target.encode()))
    if entry.directory:
        return PlannedFile(path=entry.path, mode=stat.S_IFDIR | entry.mode, sha256=b"")
    digest = entry.sha256 if entry.data is None else digest_of_content(entry.data)
    return PlannedFile(path=entry.path, mode=stat.S_IFREG | entry.mode, sha256=digest)


def own_contents(tree: AllocationTree) -> Mapping[bytes, bytes]:
    """Return contents made for this allocation that hold no secret, by digest: what a later dry run compares with."""
    return {
        digest_of_content(entry.data): entry.data
        for entry in tree.entries
        if entry.data is not None and entry.path not in tree.secret_paths and not entry.path.startswith(CERTIFICATES)
    }
