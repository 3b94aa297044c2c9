"""Structured logs: one line a record (time, level, event, run, job, worker), as `key=value` or JSON, to standard error.

Logging never raises: records are written where errors are handled, and a disk that is full must not end what handles them. What
could not be written is counted, and the next record that can be says so in `log_lines_lost`.
"""

import logging
import sys
from collections.abc import Callable
from typing import TextIO

import structlog


class LogFile:
    """Where lines go. One that cannot be written is lost and counted."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lost = 0
        self._is_failing = False

    def write(self, line: str) -> None:
        """Write one line, if the file takes it."""
        self._is_failing = False
        self._attempt(lambda: self._file.write(line))

    def flush(self) -> None:
        """Pass on what was written, and count a line that was not."""
        self._attempt(self._file.flush)
        self._lost = self._lost + 1 if self._is_failing else 0

    def tell_lost(self, _logger: object, _level: str, record: structlog.types.EventDict) -> structlog.types.EventDict:
        """Add how many lines before this one were not written; a processor of structlog's."""
        return {**record, "log_lines_lost": self._lost} if self._lost else record

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (OSError, ValueError):  # ValueError: the file is closed, the process is about to end
            self._is_failing = True


def configure_logs(*, format: str = "kv", level: str = "info") -> None:  # noqa: A002 - the setting's word
    """Set up structlog for this process. Secrets are never bound to a logger; there is nothing here that could hide one."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.processors.KeyValueRenderer(key_order=["time", "level", "event"], drop_missing=True)
    )
    file = LogFile(sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            file.tell_lost,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=file),  # type: ignore[arg-type]  # it writes and flushes, no more
        cache_logger_on_first_use=True,
    )
