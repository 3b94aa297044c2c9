"""`python -m maand_local --bucket DIR`: hold the bucket, serve it, leave when idle or asked to.

Exit codes: 0 stopped in order, 3 no bucket or a bad setting, 75 another host serves the bucket, 1 anything else. What keeps it
from serving it says on the standard error it was started with, in a line that begins with `error: ` and one with `  help: `; the
command line shows them to whoever waits. Nothing depends on the log: its disk may be full, or it may not be there.
"""

import argparse
import asyncio
import os
import resource
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from maand_local.bucket_lock import HeldByAnother, hold_lock
from maand_local.layout import Layout
from maand_local.settings import BadSetting, LocalSettings
from maand_wire.utf8_mode import ensure_utf8_mode

NO_BUCKET = 3
HELD_BY_ANOTHER = 75

LEAST_ADDRESS_SPACE = 1536 * 1024 * 1024
"""What the services reserve, most of it stacks of threads that are never touched. With less they stop or hang anywhere."""

LARGEST_LOG_BYTES = 10 * 1024 * 1024
"""A log that has grown longer is put aside at the next start."""


def main() -> None:
    """Serve one bucket until it is not needed any more."""
    ensure_utf8_mode()
    parser = argparse.ArgumentParser(prog="maand_local", description="Serve one bucket: catalog, executor, runtime gateway.")
    parser.add_argument("--bucket", type=Path, required=True, help="bucket directory, the one with maand.conf")
    sys.exit(run_host(parser.parse_args().bucket.resolve()))


def run_host(bucket: Path) -> int:
    """Serve a bucket and return the exit code."""
    layout = Layout(bucket=bucket)
    starter = Starter()
    try:
        settings = LocalSettings.from_environment(bucket)
    except BadSetting as error:
        return starter.refuse(str(error), NO_BUCKET)
    if not layout.conf.is_file():
        return starter.refuse(f"{bucket} is no bucket: it has no maand.conf", NO_BUCKET)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= space < LEAST_ADDRESS_SPACE:
        help_ = f"raise `ulimit -v` where the services are started: {LEAST_ADDRESS_SPACE // 1024} at least, or unlimited"
        return starter.refuse(f"{space // 1024} KiB of address space are too few", 1, help=help_)
    os.umask(0o077)  # what a host makes is the bucket's owner's, whatever umask the first command had
    try:
        for directory in layout.own_directories():
            directory.mkdir(mode=0o700, exist_ok=True)
        follow_agent(layout.agent_link, os.environ)
        with suppress(OSError):  # no log is no reason not to serve
            layout.log.parent.mkdir(mode=0o700, exist_ok=True)
        with hold_lock(layout.lock, since=datetime.now(tz=UTC).isoformat(timespec="seconds")):
            return serve_into_log(layout, settings, starter)
    except HeldByAnother as error:
        print(error)  # noqa: T201 - for whoever started this one in vain
        return HELD_BY_ANOTHER
    except OSError as error:
        return starter.refuse_error(error)


class Starter:
    """Whoever started this process: hears on its first standard error why nothing is served, whatever becomes of the log."""

    def __init__(self) -> None:
        self._hears = os.dup(2)

    def refuse(self, message: str, code: int, *, help: str = "") -> int:  # noqa: A002 - the contract's word
        """Say why nothing is served, and return the exit code."""
        text = f"error: {message}\n" + (f"  help: {help}\n" if help else "")
        with suppress(OSError):
            os.write(self._hears, text.encode(errors="replace"))
        return code

    def refuse_error(self, error: Exception) -> int:
        """Say what kept the services from serving, or ended them."""
        from maand_wire.host_faults import find_host_fault

        told = find_host_fault(error) or error
        is_ours = hasattr(told, "code") or isinstance(told, OSError)
        return self.refuse(str(told) if is_ours else f"{type(told).__name__}: {told}", 1, help=getattr(told, "help", ""))


def follow_agent(link: Path, environment: MutableMapping[str, str]) -> None:
    """Have SSH, and programs that it runs, ask whatever agent the bucket's link leads to by then, not the starter's for ever."""
    named = environment.get("SSH_AUTH_SOCK")
    if named and not link.is_symlink():
        with suppress(OSError):  # a command was quicker, or the disk is full
            link.symlink_to(named)
    environment["SSH_AUTH_SOCK"] = str(link)


def serve_into_log(layout: Layout, settings: LocalSettings, starter: Starter) -> int:
    """Serve, with everything said in the bucket's log. The services are imported only now: a second host leaves at once."""
    from maand_local.lifetime import serve_until_done
    from maand_wire.logs import configure_logs

    rotate_log(layout.log)
    redirect_output(layout.log)
    configure_logs(format=read_log_format(layout.conf))
    try:
        asyncio.run(serve_until_done(layout, settings))
    except Exception as error:  # noqa: BLE001 - the last place where a failed start can be explained
        import traceback

        with suppress(OSError):
            traceback.print_exception(error)
        return starter.refuse_error(error)
    return 0


def rotate_log(log: Path, *, largest_bytes: int = LARGEST_LOG_BYTES) -> None:
    """Rename a log that is too long to `<name>.1`; the one before is dropped. Only whoever holds the lock may do so."""
    with suppress(OSError):  # there is none yet, or it cannot be: then it grows on
        if log.stat().st_size > largest_bytes:
            log.replace(log.with_name(f"{log.name}.1"))


def redirect_output(log: Path) -> None:
    """Send standard output and error of this process to the log, whatever the starter had them at; nowhere, if there is none."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def read_log_format(conf: Path) -> str:
    """Read how records are written; a file that cannot be read is the catalog's to complain about."""
    import tomllib

    try:
        chosen = tomllib.loads(conf.read_text()).get("log_format", "kv")
    except (OSError, ValueError):
        return "kv"
    return "json" if chosen == "json" else "kv"


if __name__ == "__main__":
    main()
