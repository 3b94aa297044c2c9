"""`python -m maand_local --bucket DIR`: hold the bucket, serve it, leave when idle or asked to.

Exit codes: 0 stopped in order, 3 no bucket or a bad setting, 75 another host serves the bucket, 1 anything else. The last line
of an unsuccessful start begins with `error: `; the command line shows it to whoever waits.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from maand_local.bucket_lock import HeldByAnother, hold_lock
from maand_local.layout import Layout
from maand_local.settings import BadSetting, LocalSettings

NO_BUCKET = 3
HELD_BY_ANOTHER = 75

LARGEST_LOG_BYTES = 10 * 1024 * 1024
"""A log that has grown longer is put aside at the next start."""


def main() -> None:
    """Serve one bucket until it is not needed any more."""
    parser = argparse.ArgumentParser(prog="maand_local", description="Serve one bucket: catalog, executor, runtime gateway.")
    parser.add_argument("--bucket", type=Path, required=True, help="bucket directory, the one with maand.conf")
    sys.exit(run_host(parser.parse_args().bucket.resolve()))


def run_host(bucket: Path) -> int:
    """Serve a bucket and return the exit code."""
    layout = Layout(bucket=bucket)
    try:
        settings = LocalSettings.from_environment(bucket)
    except BadSetting as error:
        return refuse_to_serve(str(error), NO_BUCKET)
    if not layout.conf.is_file():
        return refuse_to_serve(f"{bucket} is no bucket: it has no maand.conf", NO_BUCKET)
    os.umask(0o077)  # what a host makes is the bucket's owner's, whatever umask the first command had
    for directory in layout.own_directories():
        directory.mkdir(mode=0o700, exist_ok=True)
    follow_agent(layout.agent_link, os.environ)
    try:
        with hold_lock(layout.lock, since=datetime.now(tz=UTC).isoformat(timespec="seconds")):
            return serve_into_log(layout, settings)
    except HeldByAnother as error:
        print(error)  # noqa: T201 - for whoever started this one in vain
        return HELD_BY_ANOTHER


def follow_agent(link: Path, environment: MutableMapping[str, str]) -> None:
    """Have SSH, and programs that it runs, ask whatever agent the bucket's link leads to by then, not the starter's for ever."""
    named = environment.get("SSH_AUTH_SOCK")
    if named and not link.is_symlink():
        with suppress(OSError):  # a command was quicker, or the disk is full
            link.symlink_to(named)
    environment["SSH_AUTH_SOCK"] = str(link)


def serve_into_log(layout: Layout, settings: LocalSettings) -> int:
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
        return refuse_to_serve(f"{type(error).__name__}: {error}", 1)
    return 0


def rotate_log(log: Path, *, largest_bytes: int = LARGEST_LOG_BYTES) -> None:
    """Rename a log that is too long to `<name>.1`; the one before is dropped. Only whoever holds the lock may do so."""
    try:
        if log.stat().st_size > largest_bytes:
            log.replace(log.with_name(f"{log.name}.1"))
    except FileNotFoundError:
        return


def redirect_output(log: Path) -> None:
    """Send standard output and error of this process to the log, whatever the starter had them at."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
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


def refuse_to_serve(message: str, code: int) -> int:
    """Say why nothing is served."""
    with suppress(OSError):  # the log's disk may be full
        print(f"error: {message}", file=sys.stderr)  # noqa: T201 - read by the command line from the log
    return code


if __name__ == "__main__":
    main()
