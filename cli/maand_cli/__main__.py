"""`maand`: parse, act, and end with the documented exit code; every error leaves through one door."""

import sys
from collections.abc import Sequence

from maand_cli.exits import Exit
from maand_cli.flags import Flags
from maand_cli.output.streams import close_streams, hold_streams
from maand_cli.root import root


def main() -> None:
    """Run the command line of this process."""
    if sys.getfilesystemencoding() != "utf-8":  # an import less on the way to --help
        from maand_wire.utf8_mode import ensure_utf8_mode

        ensure_utf8_mode()
    hold_streams()
    sys.exit(close_streams(run_command_line(sys.argv[1:])))


def run_command_line(args: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    flags = Flags(output=find_output_form(args))
    try:
        code = root.main(args=list(args), prog_name="maand", standalone_mode=False, obj=flags)
    except SystemExit as left:  # Click ends so after completion
        return int(left.code or Exit.DONE)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one door for every error
        from maand_cli.output.failures import report_error

        return report_error(error, flags)
    return int(code) if isinstance(code, int) else Exit.DONE


def find_output_form(args: Sequence[str]) -> str:
    """Find `-o` before parsing, so that wrong usage is reported in the form asked for."""
    for flag, value in zip(args, args[1:], strict=False):  # noqa: RUF007 - itertools is one import more on the way to --help
        if flag in ("-o", "--output") and value in ("json", "jsonl"):
            return value
    return next((form for form in ("json", "jsonl") if f"--output={form}" in args or f"-o{form}" in args), "human")


if __name__ == "__main__":
    main()
