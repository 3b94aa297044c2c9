"""A command's run from start to end: summary for people, document for programs, exit code for the shell.

start_own_run ── the bucket is free ──▶ run ──▶ follow_run ──▶ conclude_run
  ▲  │ an interrupted run of this kind is being continued
  │  ▼
  └─ follow it to its end, tell how it ended
"""

import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TextIO

from maand_cli.errors import CliError, Problem
from maand_cli.exits import Exit, RunEnd, exit_of_run
from maand_cli.output.causes import Failure
from maand_cli.output.failures import problem_from_message, write_problems
from maand_cli.output.message_dicts import field_word, to_dict
from maand_cli.output.problems import problem_record
from maand_cli.output.rows import print_note
from maand_cli.output.summary import SAID, Ending, summary_lines
from maand_cli.output.terminal import write_line, write_output
from maand_cli.output.view import UNTOUCHED, RunView
from maand_cli.remote.catalog import RemoteError
from maand_cli.remote.session import Session
from maand_cli.runs.follow import Followed, follow_run, start_run
from maand_cli.runs.look_beside import compute_run_seconds
from maand_contracts.catalog.v1 import run_pb2, run_spec_pb2


async def run_to_end(session: Session, spec: run_spec_pb2.RunSpec, *, detach: bool = False, changes_matter: bool = False) -> int:
    """Start a run, follow it, print its end; `detach` prints its id instead and leaves."""
    run = await start_own_run(session, spec, detach=detach)
    if detach:
        return print_detached_run(session, run)
    return conclude_run(session, await follow_run(session, run), changes_matter=changes_matter)


class NotBegun(CliError):
    """The run that this command waited for was asked to stop, so its own was not begun. Type it again to begin it."""

    code = "not_begun"
    exit_code = Exit.INTERRUPTED


async def start_own_run(session: Session, spec: run_spec_pb2.RunSpec, *, detach: bool) -> run_pb2.Run:
    """Start a run; where an interrupted one of its kind holds the bucket and is being continued, follow that one first.

    Raises NotBegun when that one is asked to stop meanwhile, here by Ctrl-C or elsewhere. A command that detaches follows none,
    and is refused as by any other holder.
    """
    while True:
        try:
            return await start_run(session, spec)
        except RemoteError as error:
            if detach or not is_continued_twin(error, spec):
                raise
            await follow_continued_run(session, await session.catalog.get_run(error.facts["run_id"]))


def is_continued_twin(error: RemoteError, spec: run_spec_pb2.RunSpec) -> bool:
    """Whether a run was refused because one of its kind, which lost its executor, is being continued."""
    facts = error.facts
    return error.code == "bucket_held" and facts.get("continued") == "yes" and facts["kind"] == spec.WhichOneof("spec")


async def follow_continued_run(session: Session, run: run_pb2.Run) -> None:
    """Attach to a run, say so, and tell how it ended. Raises NotBegun when it was asked to stop."""
    kind = field_word(run, "kind")
    words = f"{kind} run {run.run_id} of {run.requested_by or 'somebody'} was interrupted and is being continued"
    print_note(session.flags, f"maand: {words}: followed to its end first, then your own begins (Ctrl-C stops it)")
    followed = await follow_run(session, run)
    if session.flags.output != "json":  # the one document is of the command's own run
        conclude_run(session, followed)
    if followed.run.cancel or followed.run.state == run_pb2.RUN_STATE_CANCELLED:
        message = f"{kind} run {run.run_id} was asked to stop, so your own {kind} was not begun"
        raise NotBegun(message, help="type the command again to begin it")


NOTHING_MORE: Mapping[str, Any] = MappingProxyType({})


def print_detached_run(session: Session, run: run_pb2.Run, more: Mapping[str, Any] = NOTHING_MORE) -> int:
    """Print a detached run's id and how to attach to it; programs are told `more` besides."""
    if session.flags.is_human:
        write_line(run.run_id)
        write_line(f"follow it: maand runs watch {run.run_id}", sys.stderr)
        return Exit.DONE
    from maand_cli.output.rows import show_values

    show_values(session.flags, "run", {**to_dict(run), **more})
    return Exit.DONE


def conclude_run(
    session: Session, followed: Followed, more: Mapping[str, Any] = NOTHING_MORE, *, changes_matter: bool = False
) -> int:
    """Print how a run ended and return the exit code; programs are told `more` besides."""
    flags, run = session.flags, followed.run
    code = exit_of_run(end_from_run(run), changes_matter=changes_matter)
    followed.screen.result({**make_result_document(run, followed.view, code), **more})
    if not flags.is_human:
        return code
    problems = problems_from_run(run)
    write_problems(problems, flags)
    if problems and code in (Exit.INVALID, Exit.BUCKET_HELD):
        return code
    if not flags.quiet or code not in (Exit.DONE, Exit.CHANGES):
        sys.stdout.flush()
        write_summary(ending_from_run(run, followed.view, seconds=followed.seconds), sys.stderr, color=flags.color)
    return code


def write_summary(ending: Ending, to: TextIO, *, color: str) -> None:
    """Write a run's end for people; `color` as `--color` says."""
    for line in summary_lines(ending):
        if line.startswith(SAID):
            write_output(line, to, own=len(SAID), color=color)
        else:
            write_line(line, to)


def end_from_run(run: run_pb2.Run) -> RunEnd:
    """Reduce a run to what decides the exit code."""
    return RunEnd(
        state=field_word(run, "state"),
        failure_kinds=frozenset(field_word(failure, "kind") for failure in run.result.failures),
        counts=dict(run.result.counts),
        left_out=bool(run.result.unreachable_workers),
        changes=run.result.changes,
    )


def ending_from_run(run: run_pb2.Run, view: RunView, *, seconds: float | None = None) -> Ending:
    """Reduce a run and what was seen of it to what the summary tells; `seconds` is how long it was followed from its start."""
    result = run.result
    return Ending(
        kind=field_word(run, "kind"),
        run_id=run.run_id,
        state=field_word(run, "state"),
        seconds=compute_run_seconds(run, at_most=seconds),
        message=result.message if run.state != run_pb2.RUN_STATE_INTERRUPTED else run.message,
        counts={word: number for word, number in sorted(result.counts.items()) if not SIZES.search(word)},
        failures=tuple(_failure(failure) for failure in result.failures),
        unreached=list_unreached(run, view),
        notices=tuple(result.notices),
        slowest=tuple(slow for slow in view.slow if slow.seconds >= SLOW_SECONDS),
        next_command=result.next_command or format_resume_command(run),
    )


SIZES = re.compile(r"jobs|workers|allocations")
"""Counts that tell the size of what was built; the others are outcomes."""

SLOW_SECONDS = 1.0
"""Quicker steps are not worth a line."""


def format_resume_command(run: run_pb2.Run) -> str:
    """Name the command that lets an interrupted run go on."""
    return f"maand runs resume {run.run_id}" if run.state == run_pb2.RUN_STATE_INTERRUPTED else ""


def list_unreached(run: run_pb2.Run, view: RunView) -> tuple[str, ...]:
    """Name the workers left out, and the allocations that were planned but never got a step."""
    touched = {(job, worker) for job, worker, _ in view.outcomes}
    waiting = []
    if field_word(run, "state") in ("failed", "cancelled"):
        for job, planned in view.plans.items():
            waiting += [
                f"{job}@{allocation.worker}"
                for allocation in planned.allocations
                if field_word(allocation, "action") not in UNTOUCHED and (job, allocation.worker) not in touched
            ]
    return (*run.result.unreachable_workers, *waiting)


def problems_from_run(run: run_pb2.Run) -> tuple[Problem, ...]:
    """Return what was refused before anything was done: positions in user files, else the failures that say so."""
    if run.result.problems:
        return tuple(problem_from_message(problem) for problem in run.result.problems)
    refusals = [failure for failure in run.result.failures if field_word(failure, "kind") in REFUSALS and not failure.worker]
    return tuple(Problem(code=field_word(failure, "kind"), message=failure.message, help=failure.help) for failure in refusals)


REFUSALS = ("invalid", "bucket_held")
"""Kinds of failure that are told like a refused command: nothing was done."""


def make_result_document(run: run_pb2.Run, view: RunView, code: int) -> dict[str, Any]:
    """Return everything a program wants to know of a run's end."""
    return {
        "run": to_dict(run),
        "exit_code": int(code),
        "plan": {job: to_dict(planned) for job, planned in view.plans.items()},
        "workers": {worker: to_dict(report) for worker, report in view.reports.items()},
        "errors": [problem_record(problem) for problem in problems_from_run(run)],
    }


def _failure(failure: Any) -> Failure:
    return Failure(
        kind=field_word(failure, "kind"),
        job=failure.job,
        worker=failure.worker,
        step=failure.step,
        exit_code=failure.exit_code,
        message=failure.message,
        help=failure.help,
        last_lines=tuple(failure.last_lines),
    )
