"""Workspaces in memory, with good defaults: a fleet of two, one job that is placed on both.

In expected text a `§` marks the place of the problem: it is taken out before the file is compiled.
"""

import hashlib
from collections.abc import Mapping

from maand_catalog.building.documents.compiler import Compiled, compile_config, compile_workspace
from maand_catalog.errors import Problem
from maand_catalog.rules.build.checked_workspace import Workspace
from maand_catalog.rules.workspace.bucket_facts import CONFIG_FILE, BucketConfig
from maand_catalog.rules.workspace.tree import TreeEntry, accept_tree

BUCKET_ID = "5f0c3c1e-6f6c-4b0e-9f52-000000000001"
MARK = "§"

WORKERS = '[{"host": "10.0.0.1", "labels": ["api"]}, {"host": "10.0.0.2", "labels": ["api"]}]'

BASE: Mapping[str, str | bytes] = {
    "workers.json": WORKERS,
    "jobs/api/manifest.json": "{}",
    "jobs/api/Makefile": "start:\n",
}

Files = Mapping[str, str | bytes | None]


def maand_conf(extra: str = "") -> str:
    return f'bucket_id = "{BUCKET_ID}"\n{extra}'


def entries(files: Files, links: Mapping[str, str] | None = None) -> tuple[list[TreeEntry], dict[bytes, bytes]]:
    contents: dict[bytes, bytes] = {}
    listed: list[TreeEntry] = []
    for path, text in files.items():
        if text is not None:
            content = text.encode() if isinstance(text, str) else text
            digest = hashlib.sha256(content).digest()
            contents[digest] = content
            listed.append(TreeEntry(path=path, sha256=digest, size=len(content)))
    listed += [TreeEntry(path=path, mode=0o777, link_target=target) for path, target in (links or {}).items()]
    return listed, contents


def compile_files(files: Files, *, conf: str = "", links: Mapping[str, str] | None = None) -> Compiled:
    """Compile the base workspace with these files laid over it (None removes one)."""
    listed, contents = entries({**BASE, **files}, links)
    content = maand_conf(conf).encode()
    config = compile_config(content, BUCKET_ID)
    assert isinstance(config, BucketConfig), config
    return compile_workspace(accept_tree(listed), contents, config, content)


def problems(files: Files, *, conf: str = "", links: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    return compile_files(files, conf=conf, links=links).problems


def workspace(files: Files, *, conf: str = "") -> Workspace:
    compiled = compile_files(files, conf=conf)
    assert compiled.workspace is not None, compiled.problems
    return compiled.workspace


def unmark(files: Files) -> tuple[dict[str, str | bytes | None], tuple[str, int, int]]:
    """Take the mark out; return the files, and where it stood."""
    place = ("", 0, 0)
    plain: dict[str, str | bytes | None] = {}
    for path, text in files.items():
        if isinstance(text, str) and MARK in text:
            offset = text.index(MARK)
            line, column = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
            place = (path if path == CONFIG_FILE else f"workspace/{path}", line, column)
            text = text.replace(MARK, "")
        plain[path] = text
    return plain, place
