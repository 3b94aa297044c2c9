"""Following a deploy; for a dry run the plan is the data: a table with actions and reasons, diffs with `-v`."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from maand_cli.output.message_dicts import field_word
from maand_cli.output.terminal import write_line
from maand_cli.output.text import format_list, table_lines
from maand_cli.output.view import RunView
from maand_cli.remote.session import Session
from maand_cli.runs.conclude import conclude_run
from maand_cli.runs.follow import follow_run

if TYPE_CHECKING:
    from maand_contracts.catalog.v1 import run_pb2


async def follow_deploy(
    session: Session, run: "run_pb2.Run", more: Mapping[str, Any], *, dry_run: bool, changes_matter: bool
) -> int:
    """Follow a deploy to its end; print the plan of a dry run. Programs are told `more` besides."""
    followed = await follow_run(session, run)
    if dry_run and session.flags.is_human:
        for line in plan_lines(followed.view, diffs=session.flags.verbose > 0):
            write_line(line)
    return conclude_run(session, followed, more, changes_matter=changes_matter)


def plan_lines(view: RunView, *, diffs: bool) -> Iterator[str]:
    """Lay out what a deploy would do."""
    if not view.plans:
        return
    rows = [
        (
            job,
            allocation.worker,
            field_word(allocation, "action"),
            allocation.reason,
            format_list(list(allocation.changed_paths), 3),
        )
        for job, planned in view.plans.items()
        for allocation in planned.allocations
    ]
    yield from table_lines(("job", "worker", "action", "why", "changed files"), rows)
    for job, planned in view.plans.items():
        if planned.may_change:
            yield f"{job}: a hook may still change this"
    if diffs:
        yield from _diff_lines(view)


def _diff_lines(view: RunView) -> Iterator[str]:
    for job, planned in view.plans.items():
        for allocation in planned.allocations:
            if allocation.diff:
                yield ""
                yield f"{job}@{allocation.worker}:"
                yield from allocation.diff.rstrip("\n").splitlines()
