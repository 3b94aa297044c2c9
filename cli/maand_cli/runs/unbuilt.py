"""Whether the workspace is what was built. A deploy rolls out the build: edits that no build took in would wait unnoticed.

The id of the workspace is computed here and compared with the one that the catalog built; only where they differ is the built
file list asked for. Nothing here stops a deploy, whatever the workspace looks like.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from maand_cli.errors import CliError, Problem
from maand_cli.local.bucket import Bucket, toml_problem
from maand_cli.local.workspace_scan import ScannedFile, compute_snapshot_id, scan_workspace
from maand_cli.output.problems import format_position, problem_record
from maand_cli.output.text import format_count, format_list
from maand_cli.remote.catalog import RemoteError
from maand_cli.remote.session import Session

if TYPE_CHECKING:
    from maand_contracts.catalog.v1.workspace_pb2 import WorkspaceFile

MOST_PATHS = 100
"""Changed files that are named to programs; people see the first few."""

JSON_FILE = re.compile(r"workers\.json|disabled\.json|jobs/[^/]+/manifest\.json")
TOML_FILE = re.compile(r"bucket\.conf|bucket\.jobs(\..+)?\.conf|jobs/[^/]+/vars\.toml")


@dataclass(frozen=True, kw_only=True)
class Unbuilt:
    """What of a workspace no build has taken in. `paths` are new, changed and gone files, None = not known."""

    built_at: datetime
    paths: tuple[str, ...] | None = None
    problems: tuple[Problem, ...] = ()

    def sentence(self, now: datetime) -> str:
        """Say it in one line, with the command that takes it in."""
        files = f" ({format_count(len(self.paths), 'file')} changed: {format_list(self.paths, 3)})" if self.paths else ""
        words = f"the workspace differs from the build of {format_local_time(self.built_at, now)}{files}"
        if self.problems:
            told = format_list([f"{format_position(problem)}: {problem.message}" for problem in self.problems], 2)
            return escape_controls(f"{words} and cannot be built as it is: {told}")
        return escape_controls(f"{words}; `maand deploy --build` takes {'it' if len(self.paths or ()) == 1 else 'them'} in")

    def record(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "built_at": self.built_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "changed_files": None if self.paths is None else len(self.paths),
            "paths": list((self.paths or ())[:MOST_PATHS]),
            "problems": [problem_record(problem) for problem in self.problems],
        }


async def find_unbuilt(session: Session) -> Unbuilt | None:
    """Compare the workspace with the last build; None where they are equal, and where one of the two is not there."""
    if not session.bucket.workspace.is_dir():
        return None
    try:
        built = await session.catalog.get_bucket()
    except RemoteError:
        return None
    if not built.built_snapshot_id:
        return None
    built_at = built.built_at.ToDatetime(tzinfo=UTC)
    try:
        files = await asyncio.to_thread(scan_workspace, session.bucket.workspace, session.bucket.workspace_digests)
    except CliError as error:
        return Unbuilt(built_at=built_at, problems=error.problems())
    except OSError as error:
        problem = Problem(code="unreadable_file", message=f"cannot be read: {error.strerror}", file="workspace")
        return Unbuilt(built_at=built_at, problems=(problem,))
    if compute_snapshot_id(files) == built.built_snapshot_id:
        return None
    paths = await find_changed_paths(session, built.built_snapshot_id, files)
    return Unbuilt(built_at=built_at, paths=paths, problems=tuple(find_broken_files(session.bucket, paths or ())))


async def find_changed_paths(session: Session, built: str, files: Iterable[ScannedFile]) -> tuple[str, ...] | None:
    """Name what differs from a built tree, None when the catalog does not tell."""
    try:
        before = set(map(state_of_file, await session.catalog.get_snapshot(built)))
    except RemoteError:
        return None
    after = set(map(state_of_file, files))
    return tuple(sorted({path for path, *_ in before ^ after}))


def state_of_file(file: "ScannedFile | WorkspaceFile") -> tuple[str, bytes, int, str, bool]:
    """Return what two trees are compared by, path first."""
    return file.path, file.sha256, file.mode, file.link_target, file.directory


def find_broken_files(bucket: Bucket, paths: Iterable[str]) -> Iterator[Problem]:
    """Find settings files that are not even JSON or TOML; what else is wrong with them, the build tells."""
    for path in paths:
        file = f"workspace/{path}"
        try:
            content = (bucket.workspace / path).read_bytes()
            if JSON_FILE.fullmatch(path):
                json.loads(content)
            elif TOML_FILE.fullmatch(path):
                import tomllib

                tomllib.loads(content.decode())
        except OSError:
            continue  # gone; the build tells whether it may be
        except UnicodeDecodeError:
            yield Problem(code="not_utf8", message="the file is not UTF-8 text", file=file)
        except json.JSONDecodeError as error:
            yield Problem(code="json_syntax", message=f"not JSON: {error.msg}", file=file, line=error.lineno, column=error.colno)
        except ValueError as error:
            yield toml_problem(str(error), content, file=file)


def format_local_time(time: datetime, now: datetime) -> str:
    """Write a time as people say it: the time of day today, else with the date."""
    here = time.astimezone()
    return here.strftime("%H:%M" if here.date() == now.astimezone().date() else "%Y-%m-%d %H:%M")


def escape_controls(text: str) -> str:
    """Return a line as a terminal may see it: names of files can hold anything."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
