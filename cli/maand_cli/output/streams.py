"""Standard output and standard error that outlive their reader: a command goes on, and ends with its own exit code.

`maand deploy | head -1` closes the pipe in the middle of a run, a full disk refuses every byte. What cannot be written is dropped
from then on; what was asked for is done all the same. A reader that has left wanted no more, which is nobody's fault; where data
are lost otherwise, standard error says so and the exit code is not 0.
"""

import errno
import io
import os
import select
import sys
from typing import TextIO

from maand_cli.exits import Exit


class Outlet(io.FileIO):
    """The file behind a stream: remembers what kept it from writing, and drops everything from then on."""

    failure: OSError | None = None

    def write(self, data: object) -> int:
        """Write what the system takes; a terminal or pipe that takes nothing at the moment is waited for."""
        while self.failure is None:
            try:
                written: int | None = super().write(data)  # type: ignore[arg-type]
            except OSError as error:
                self.failure = error
            else:
                if written is not None:
                    return written
                select.select([], [self], [])
        return memoryview(data).nbytes  # type: ignore[arg-type]


def hold_streams() -> None:
    """Put outlets behind standard output and standard error of this process."""
    sys.stdout, sys.stderr = held_stream(sys.stdout, 1), held_stream(sys.stderr, 2)


def held_stream(stream: TextIO | None, descriptor: int) -> TextIO:
    """Return a stream that never fails, written as the given one; None is one that was closed before we began."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream or open(os.devnull, "w")  # noqa: PTH123 - it lives as long as the process
    return io.TextIOWrapper(
        io.BufferedWriter(Outlet(descriptor, "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def why_failed(stream: TextIO) -> OSError | None:
    """Return what kept a stream from being written, if something did."""
    outlet = getattr(getattr(stream, "buffer", None), "raw", None)
    return outlet.failure if isinstance(outlet, Outlet) else None


def is_reader_gone() -> bool:
    """Whether nobody takes standard output any more: what has no end but Ctrl-C ends then."""
    return why_failed(sys.stdout) is not None


def close_streams(code: int) -> int:
    """Write what is left and return the exit code: this one, unless data were asked for and are lost."""
    sys.stdout.flush()
    sys.stderr.flush()
    failure = why_failed(sys.stdout)
    if failure is None or failure.errno == errno.EPIPE:
        return code
    sys.stderr.write(f"error: standard output: {failure.strerror}\n")
    sys.stderr.flush()
    return code or Exit.FAILED
