"""`maand cat workers|jobs|allocations|deployments|hooks|ports|certs|kv`."""

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine
from maand_cli.flags import Flags
from maand_cli.options import jobs_option, list_option, workers_option

cat = LazyGroup(name="cat", help="Show what was built and what runs where.")

removed_option = click.option("--removed", is_flag=True, help="List what left the workspace too.")


@cat.command()
@list_option("--labels", "-l", help="Only workers with any of these labels.")
@removed_option
@runs_coroutine
async def workers(flags: Flags, *, labels: tuple[str, ...], removed: bool) -> int:
    """List workers by position."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.listings import worker_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await worker_rows(session.catalog, labels=labels, include_removed=removed)
    show_rows(flags, "workers", ("name", "hostname", "position", "labels", "memory_mb", "cpu_mhz", "disabled"), rows)
    return 0


@cat.command()
@jobs_option
@removed_option
@runs_coroutine
async def jobs(flags: Flags, *, jobs: tuple[str, ...], removed: bool) -> int:
    """List jobs by name."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.listings import job_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await job_rows(session.catalog, jobs=jobs, include_removed=removed)
    shown = [{**row, "hooks": [hook["name"] for hook in row["hooks"]]} for row in rows] if flags.is_human else rows
    show_rows(flags, "jobs", ("name", "version", "deployment_seq", "selectors", "demanded_jobs", "hooks"), shown)
    return 0


@cat.command()
@jobs_option
@workers_option
@removed_option
@runs_coroutine
async def allocations(flags: Flags, *, jobs: tuple[str, ...], workers: tuple[str, ...], removed: bool) -> int:
    """List allocations by job and index: where each job is, in which state, since when, why."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.listings import allocation_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await allocation_rows(session.catalog, jobs=jobs, workers=workers, include_removed=removed)
    columns = ("job", "worker", "index", "state", "current_version", "new_version", "disabled", "state_since", "message")
    show_rows(flags, "allocations", columns, rows)
    return 0


@cat.command()
@jobs_option
@runs_coroutine
async def deployments(flags: Flags, *, jobs: tuple[str, ...]) -> int:
    """Sum up by job: version built, versions running, allocations by state."""
    from maand_cli.output.rows import show_rows
    from maand_cli.output.text import format_tally
    from maand_cli.remote.listings import deployment_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await deployment_rows(session.catalog, jobs=jobs)
    shown = [{**row, "states": format_tally(row["states"])} for row in rows] if flags.is_human else rows
    show_rows(flags, "deployments", ("job", "version", "running", "deployment_seq", "allocations", "states", "since"), shown)
    return 0


@cat.command()
@jobs_option
@runs_coroutine
async def hooks(flags: Flags, *, jobs: tuple[str, ...]) -> int:
    """List hooks: on which events each runs, and whom it demands."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.listings import hook_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await hook_rows(session.catalog, jobs=jobs)
    columns = ("job", "name", "executed_on", "runtime", "scope", "timeout_seconds", "demands_job", "demands_hook")
    show_rows(flags, "hooks", columns, rows)
    return 0


@cat.command()
@runs_coroutine
async def ports(flags: Flags) -> int:
    """List ports by name."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.listings import port_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await port_rows(session.catalog)
    show_rows(flags, "ports", ("name", "number", "job", "fixed"), rows)
    return 0


@cat.command()
@jobs_option
@runs_coroutine
async def certs(flags: Flags, *, jobs: tuple[str, ...]) -> int:
    """List certificates, without keys: how much of each is left, and of the bucket's CA, the row without a job."""
    from maand_cli.output.rows import print_note, show_rows
    from maand_cli.remote.listings import certificate_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows, authority = await certificate_rows(session.catalog, jobs=jobs)
    if authority:
        rows.append({"job": "", "name": "ca", "worker": "", **authority})
    columns = ("job", "name", "worker", "common_name", "not_before", "not_after", "days_left", "state", "serial")
    show_rows(flags, "certs", columns, rows)
    for help_ in dict.fromkeys(row["help"] for row in rows if row["help"]):
        print_note(flags, f"help: {help_}")
    return 0


@cat.command()
@click.argument("prefix", default="")
@runs_coroutine
async def kv(flags: Flags, *, prefix: str) -> int:
    """List variables with values, of all namespaces or those below PREFIX. Secrets are not among them."""
    from maand_cli.output.rows import show_rows
    from maand_cli.remote.key_values import entry_rows
    from maand_cli.remote.session import open_session

    async with open_session(flags) as session:
        rows = await entry_rows(session.catalog, prefix)
    show_rows(flags, "entries", ("namespace", "key", "value", "version", "expires_at"), rows)
    return 0
