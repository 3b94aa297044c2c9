"""`maand semaphore list|release`."""

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine
from maand_cli.flags import Flags
from maand_cli.options import complete_jobs

semaphore = LazyGroup(name="semaphore", help="Look at the locks that hooks take, and take one away from its holder.")


@semaphore.command("list")
@runs_coroutine
async def list_semaphores(flags: Flags) -> int:
    """List who holds which semaphore and who waits for it, in order."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.key_values import semaphore_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await semaphore_rows(session.catalog)
    if not flags.is_human:
        show_rows(flags, "semaphores", (), rows)
        return 0
    claims = [
        {**row, **claim, "is": state}
        for row in rows
        for state, claims in (("holds", row["holders"]), ("waits", row["waiters"]))
        for claim in claims
    ]
    show_rows(
        flags, "semaphores", ("job", "event", "name", "capacity", "is", "worker", "since", "fencing_token", "run_id"), claims
    )
    return 0


@semaphore.command()
@click.argument("job", shell_complete=complete_jobs)
@click.argument("event")
@click.argument("name")
@click.option("--allocation", default="", metavar="ID", help="The holder's allocation, when there are several holders.")
@runs_coroutine
async def release(flags: Flags, *, job: str, event: str, name: str, allocation: str) -> int:
    """Take a slot of semaphore NAME (of JOB on EVENT) away from its holder. The holder is not told: be sure that it is gone."""
    from maand_cli.output.rows import ask_confirmation_at_terminal, show_rows
    from maand_cli.remote.key_values import force_release
    from maand_cli.remote.session import open_session
    from maand_cli.runs.run_names import parse_enum_words
    from maand_contracts.catalog.v1 import job_pb2, semaphore_pb2

    (number,) = parse_enum_words(job_pb2.HookEvent, [event], "event")
    ask_confirmation_at_terminal(flags, f"Release {name} of {job} on {event} by force?")
    request = semaphore_pb2.ForceReleaseRequest(job=job, event=number, name=name, allocation_id=allocation)
    async with open_session(flags) as session:
        released = await force_release(session.catalog, request)
    show_rows(flags, "released", ("worker", "allocation_id", "run_id", "since", "fencing_token"), released)
    return 0
