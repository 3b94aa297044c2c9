"""One rule of the workspace as a row: the file with the mistake (a `§` marks its place), its code, and words of the answer."""

from dataclasses import dataclass, field

from tests.unit.catalog.workspaces import Files

MANIFEST = "jobs/api/manifest.json"
DB = {
    "jobs/db/manifest.json": '{"version": "2.0.0", "selectors": ["api"], "hooks": {"hook_s": {"executed_on": ["cli"]}}}',
    "jobs/db/Makefile": "start:\n",
    "jobs/db/_hooks/hook_s.py": "",
}
HOOK = {"jobs/api/_hooks/hook_a.py": ""}


@dataclass(frozen=True, kw_only=True)
class Row:
    rule: str
    code: str
    files: Files
    message: str = ""
    help: str = ""
    conf: str = ""
    links: dict[str, str] = field(default_factory=dict)


def manifest(rule: str, code: str, text: str, *, message: str = "", help: str = "", **files: str) -> Row:  # noqa: A002
    return Row(rule=rule, code=code, files={MANIFEST: text}, message=message, help=help)


def hooked(rule: str, code: str, text: str, *, message: str = "", help: str = "") -> Row:  # noqa: A002
    """A manifest with a hook `hook_a` whose script is there, beside a job `db` with `hook_s`."""
    return Row(rule=rule, code=code, files={**HOOK, **DB, MANIFEST: text}, message=message, help=help)


def demand(text: str) -> str:
    return '{"version": "1.0.0", "hooks": {"hook_a": {"executed_on": ["cli"], "demands": ' + text + "}}}"
