"""What the local host can be told.

| Flag or variable     | Meaning                                                                  | Default |
|----------------------|--------------------------------------------------------------------------|---------|
| `--bucket DIR`       | the bucket to serve                                                      | required|
| `MAAND_IDLE_SECONDS` | stop after that long without a run, an open stream, or a call; 0 = never | 900     |
| `MAAND_METRICS_LISTEN` | loopback `host:port` for the metrics of all three services             | none    |
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self


class BadSetting(Exception):
    """A setting of the local host is wrong; the message names it."""

    code = "bad_setting"


@dataclass(frozen=True, kw_only=True)
class LocalSettings:
    """Everything the local host is told."""

    bucket: Path
    idle_for: timedelta | None = timedelta(seconds=900)
    """A quarter of an hour: long enough for a person at work, short enough to leave no processes behind. None = for ever."""
    metrics_listen: str | None = None
    stop_time: timedelta = timedelta(seconds=30)
    """How long an orderly stop may take before the process ends anyway; hooks get 10 s from TERM to KILL."""

    @classmethod
    def from_environment(cls, bucket: Path, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the variables of the table above."""
        text = environment.get("MAAND_IDLE_SECONDS") or "900"
        try:
            seconds = float(text)
        except ValueError:
            raise BadSetting(f"MAAND_IDLE_SECONDS is {text!r}; it must be a number of seconds") from None
        return cls(
            bucket=bucket,
            idle_for=timedelta(seconds=seconds) if seconds > 0 else None,
            metrics_listen=environment.get("MAAND_METRICS_LISTEN") or None,
        )
