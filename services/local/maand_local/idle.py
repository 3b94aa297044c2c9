"""When the host is not needed any more: a rule over what the services are doing, and nothing else."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What the services are doing. Times are monotonic seconds."""

    active_runs: int
    open_streams: int
    last_call_at: float


def remaining(activity: Activity, *, now: float, idle_for: timedelta) -> timedelta:
    """Return how long the host is to live on if nothing more happens; zero or less = it may stop.

    A run or an open stream keeps it alive; else it lives for `idle_for` after the last call.
    """
    if activity.active_runs or activity.open_streams:
        return idle_for
    return idle_for - timedelta(seconds=now - activity.last_call_at)
