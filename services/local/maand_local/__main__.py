"""`python -m maand_local --bucket DIR`: hold the bucket, serve it, leave when idle or asked to.

Exit codes: 0 stopped in order, 3 no bucket or a bad setting, 75 another host serves the bucket, 1 anything else. The last line
of an unsuccessful start begins with `error: `; the command line shows it to whoever waits.
"""

import argparse
import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from maand_local.layout import Layout
from maand_local.lock import HeldByAnother, held
from maand_local.logfile import rotate, write_to
from maand_local.settings import BadSetting, LocalSettings

NO_BUCKET = 3
HELD_BY_ANOTHER = 75


def main() -> None:
    """Serve one bucket until it is not needed any more."""
    parser = argparse.ArgumentParser(prog="maand_local", description="Serve one bucket: catalog, executor, runtime gateway.")
    parser.add_argument("--bucket", type=Path, required=True, help="bucket directory, the one with maand.conf")
    sys.exit(run(parser.parse_args().bucket.resolve()))


def run(bucket: Path) -> int:
    """Serve a bucket and return the exit code."""
    layout = Layout(bucket=bucket)
    try:
        settings = LocalSettings.from_environment(bucket)
    except BadSetting as error:
        return refuse(str(error), NO_BUCKET)
    if not layout.conf.is_file():
        return refuse(f"{bucket} is no bucket: it has no maand.conf", NO_BUCKET)
    for directory in layout.own_directories():
        directory.mkdir(mode=0o700, exist_ok=True)
    try:
        with held(layout.lock, since=datetime.now(tz=UTC).isoformat(timespec="seconds")):
            return serve(layout, settings)
    except HeldByAnother as error:
        print(error)  # noqa: T201 - for whoever started this one in vain
        return HELD_BY_ANOTHER


def serve(layout: Layout, settings: LocalSettings) -> int:
    """Serve, with everything said in the bucket's log. The services are imported only now: a second host leaves at once."""
    from maand_local.serving import serve_until_done
    from maand_wire.logs import configure_logs

    rotate(layout.log)
    write_to(layout.log)
    configure_logs(format=log_format(layout.conf))
    try:
        asyncio.run(serve_until_done(layout, settings))
    except Exception as error:  # noqa: BLE001 - the last place where a failed start can be explained
        import traceback

        with suppress(OSError):
            traceback.print_exception(error)
        return refuse(f"{type(error).__name__}: {error}", 1)
    return 0


def log_format(conf: Path) -> str:
    """Read how records are written; a file that cannot be read is the catalog's to complain about."""
    import tomllib

    try:
        chosen = tomllib.loads(conf.read_text()).get("log_format", "kv")
    except (OSError, ValueError):
        return "kv"
    return "json" if chosen == "json" else "kv"


def refuse(message: str, code: int) -> int:
    """Say why nothing is served."""
    with suppress(OSError):  # the log's disk may be full
        print(f"error: {message}", file=sys.stderr)  # noqa: T201 - read by the command line from the log
    return code


if __name__ == "__main__":
    main()
