"""`maand services start|stop|status|logs`."""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from maand_cli.click_groups import LazyGroup
from maand_cli.coroutines import runs_coroutine, takes_flags
from maand_cli.errors import NotThere, Usage
from maand_cli.flags import Flags

if TYPE_CHECKING:
    from maand_cli.local.bucket import Bucket

services = LazyGroup(name="services", help="Control the local services of this bucket; commands start them when they need them.")

LOOK_SECONDS = 0.2
"""How often a log that is followed is looked at for new lines."""


def bucket_from_flags(flags: Flags) -> "Bucket":
    """Find the bucket."""
    from maand_cli.local.bucket import find_bucket

    return find_bucket(flags.bucket, environment=os.environ, start=Path.cwd())


@services.command()
@takes_flags
def start(flags: Flags) -> int:
    """Start catalog, executor and runtime gateway in one background process, unless they run."""
    from dataclasses import asdict

    from maand_cli.local.services import ensure_services
    from maand_cli.output.rows import print_note, show_values

    running = ensure_services(bucket_from_flags(flags), lambda text: print_note(flags, f"maand: {text}"))
    if flags.is_human:
        print_note(flags, f"running: process {running.pid}, hook API on {running.hook_api}")
    else:
        show_values(flags, "services", {"running": True, **asdict(running)})
    return 0


@services.command()
@click.option("--within", type=float, default=60, show_default=True, metavar="SECONDS", help="How long to wait for the end.")
@takes_flags
def stop(flags: Flags, *, within: float) -> int:
    """Stop the local services. Runs in progress are interrupted; they go on when the services start again."""
    from maand_cli.local.services import stop_services
    from maand_cli.output.rows import print_note, show_values

    for run_id in find_runs_in_progress(bucket_from_flags(flags)):
        print_note(flags, f"run {run_id} is interrupted; it goes on when the services start again")
    pid = stop_services(bucket_from_flags(flags), limit_seconds=within)
    if flags.is_human:
        print_note(flags, f"stopped process {pid}" if pid else "not running")
    else:
        show_values(flags, "services", {"running": False, "stopped_pid": pid})
    return 0


def find_runs_in_progress(bucket: "Bucket") -> list[str]:
    """Return the runs that a stop interrupts, as far as the services tell."""
    from maand_cli.local.services import find_services

    running = find_services(bucket)
    if running is None:
        return []
    import asyncio

    from maand_cli.remote.catalog import get_executor_status

    told = asyncio.run(get_executor_status(running.executor))
    return list(told.get("run_ids", []))


@services.command()
@runs_coroutine
async def status(flags: Flags) -> int:
    """Tell whether the local services run, since when, and what they do. Starts nothing."""
    from dataclasses import asdict

    from maand_cli.local.services import find_services
    from maand_cli.output.rows import show_values

    running = find_services(bucket_from_flags(flags))
    if running is None:
        show_values(flags, "services", {"running": False})
        return 0
    from maand_cli.remote.catalog import get_executor_status

    values = {"running": True, **asdict(running), **await get_executor_status(running.executor)}
    show_values(flags, "services", values)
    return 0


@services.command()
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, show_default=True, help="The last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as they are written.")
@takes_flags
def logs(flags: Flags, *, lines: int, follow: bool) -> int:
    """Print the services' own log."""
    from maand_cli.output.rows import show_rows
    from maand_cli.output.streams import is_reader_gone
    from maand_cli.output.terminal import write_line

    log = bucket_from_flags(flags).services_log
    if not flags.is_human:
        if follow:
            raise Usage("--follow has no end, so no document", help="maand services logs -f, without -o")
        show_rows(flags, "lines", (), [{"line": line} for line in read_last_lines(log, lines)])
        return 0
    for line in read_last_lines(log, lines):
        write_line(line)
    if follow:
        for line in follow_file(log):
            write_line(line, flush=True)
            if is_reader_gone():
                break
    return 0


def read_last_lines(path: Path, number: int) -> list[str]:
    """Return the last lines. Raises NotThere when there is no file."""
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=number)]
    except FileNotFoundError:
        raise NotThere(f"{path} does not exist: the services never ran here") from None


def follow_file(path: Path) -> Iterator[str]:
    """Give lines as they are written, until interrupted."""
    with path.open(errors="replace") as file:
        file.seek(0, 2)
        while True:
            line = file.readline()
            if line:
                yield line.rstrip("\n")
            else:
                time.sleep(LOOK_SECONDS)
