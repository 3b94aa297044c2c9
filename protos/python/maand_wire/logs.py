"""Structured logs: one line a record (time, level, event, run, job, worker), as `key=value` or JSON, to standard error."""

import logging
import sys

import structlog


def configure_logs(*, format: str = "kv", level: str = "info") -> None:  # noqa: A002 - the setting's word
    """Set up structlog for this process. Secrets are never bound to a logger; there is nothing here that could hide one."""
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if format == "json"
        else structlog.processors.KeyValueRenderer(key_order=["time", "level", "event"], drop_missing=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
