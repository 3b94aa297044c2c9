"""The host's life once it holds the bucket: serve, watch for idleness and signals, stop in order."""

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import structlog

from maand_local.bucket_services import Activity, RunningHost, remove_announcement, run_services
from maand_local.layout import Layout, place_of
from maand_local.settings import LocalSettings
from maand_wire.supervision import until_asked_to_stop

log = structlog.get_logger("maand.local")

SHORTEST_LOOK = timedelta(seconds=0.2)
MOVED_LOOK = timedelta(seconds=0.5)
"""How often the host looks whether its bucket is still where it was."""


async def serve_until_done(layout: Layout, settings: LocalSettings) -> None:
    """Serve until nobody needs the services any more or somebody asks them to stop."""
    began = time.monotonic()
    async with run_services(layout, metrics_listen=settings.metrics_listen) as host:
        log.info(
            "serving", bucket=str(layout.bucket), hook_api=host.gateway.address, start_seconds=round(time.monotonic() - began, 2)
        )
        try:
            await until_not_needed(host, layout, settings.idle_for)
        finally:
            remove_announcement(layout)
            asyncio.get_running_loop().call_later(settings.stop_time.total_seconds(), exit_at_once)
    log.info("stopped")


async def until_not_needed(host: RunningHost, layout: Layout, idle_for: timedelta | None) -> None:
    """Return at a signal, when the services have been idle for long enough, or when their bucket is no longer where it was.

    Raises when they cannot be of use any more, or nobody can tell: the next command starts them again.
    """
    reasons = {
        asyncio.create_task(until_asked_to_stop(host.gateway.serving, *host.executor.loops)): "asked to",
        asyncio.create_task(until_moved(layout.bucket)): "moved",
    }
    if idle_for is not None:
        reasons[asyncio.create_task(until_idle(host, idle_for))] = "idle"
    done, pending = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
    log.info("stopping", reason=next(reason for task, reason in reasons.items() if task in done))


async def until_moved(bucket: Path) -> None:
    """Return when another directory, or none, is at the bucket's path.

    Database, keys and caches are opened by path: a host that went on would work on whatever bucket is put there next.
    """
    ours = place_of(bucket)
    while ours is not None and place_of(bucket) == ours:  # noqa: ASYNC110 - a rename tells nobody
        await asyncio.sleep(MOVED_LOOK.total_seconds())


async def until_idle(host: RunningHost, idle_for: timedelta) -> None:
    """Return when nothing ran, streamed or called for `idle_for`."""
    while True:
        left = compute_remaining_time(host.activity(), now=time.monotonic(), idle_for=idle_for)
        if left <= timedelta(0):
            return
        await asyncio.sleep(max(left, SHORTEST_LOOK).total_seconds())


def compute_remaining_time(activity: Activity, *, now: float, idle_for: timedelta) -> timedelta:
    """Return how long the host is to live on if nothing more happens; zero or less = it may stop.

    A run or an open stream keeps it alive; else it lives for `idle_for` after the last call.
    """
    if activity.active_runs or activity.open_streams:
        return idle_for
    return idle_for - timedelta(seconds=now - activity.last_call_at)


def exit_at_once() -> None:
    """End the process though a service did not stop in time; what matters was durable before it was announced."""
    log.error("a service did not stop in time")
    os._exit(1)
