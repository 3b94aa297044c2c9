"""What a person who follows a run wants to know and its events do not tell: how long it may take, and who holds up its hooks."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC
from typing import Any

from maand_cli.output.text import format_list
from maand_cli.output.view import RunView, short_id
from maand_cli.remote.catalog import RemoteError
from maand_cli.remote.session import Session
from maand_contracts.catalog.v1 import run_pb2, run_spec_pb2

LOOKED_THROUGH = 20
"""How many runs of the kind back one that did the same is looked for."""

LOOK_SECONDS = 2.0
"""How often it is asked who waits for which semaphore, while hooks run."""


async def expect_duration(session: Session, run: run_pb2.Run, view: RunView) -> None:
    """Find out how long the last run took that did the same."""
    if not session.flags.is_human:
        return
    with suppress(RemoteError):  # nice to know, no more
        earlier = await session.catalog.list_runs(kinds=[run.kind], states=[run_pb2.RUN_STATE_SUCCEEDED], limit=LOOKED_THROUGH)
        spec = without_content(run.spec)
        alike = (one for one in earlier if one.run_id != run.run_id and without_content(one.spec) == spec)
        view.expected_seconds = next((compute_run_seconds(one) for one in alike), None)


def without_content(spec: run_spec_pb2.RunSpec) -> run_spec_pb2.RunSpec:
    """Return what was asked without the workspace it was asked for, which every build uploads anew."""
    bare = run_spec_pb2.RunSpec()
    bare.CopyFrom(spec)
    bare.ClearField("timeout_seconds")
    if bare.HasField("build"):
        bare.build.snapshot_id = ""
    if bare.HasField("deploy") and bare.deploy.build_snapshot_id:
        bare.deploy.build_snapshot_id = "any"
    return bare


def compute_run_seconds(run: run_pb2.Run, *, at_most: float | None = None) -> float | None:
    """Return how long a run took, when it has begun and ended; `at_most` is what was measured beside it.

    Its times are the database's, whose clock may be set between them.
    """
    if not run.HasField("started_at") or not run.HasField("finished_at"):
        return None
    seconds = (run.finished_at.ToDatetime(tzinfo=UTC) - run.started_at.ToDatetime(tzinfo=UTC)).total_seconds()
    return max(seconds if at_most is None else min(seconds, at_most), 0.0)


async def look_for_semaphore_waits(session: Session, view: RunView) -> None:
    """Keep in the view which hooks of the run wait for a semaphore, for as long as the run is followed."""
    while session.flags.is_human:
        await asyncio.sleep(LOOK_SECONDS)
        if not any(step.startswith("hook_") for _, _, step in view.running):
            view.semaphore_waits = {}
            continue
        with suppress(RemoteError):  # nice to know, no more
            from maand_cli.remote.key_values import semaphore_rows  # here, because few runs have hooks that take so long

            view.semaphore_waits = describe_semaphore_waits(await semaphore_rows(session.catalog), view.run_id)


def describe_semaphore_waits(semaphores: Iterable[Mapping[str, Any]], run_id: str) -> dict[tuple[str, str], str]:
    """Say what hooks of a run wait for, by job and worker; a holder of another run is named with it."""
    return {
        (semaphore["job"], waiter["worker"]): f"waits for {semaphore['name']}{describe_holders(semaphore['holders'], run_id)}"
        for semaphore in semaphores
        for waiter in semaphore["waiters"]
        if waiter["run_id"] == run_id
    }


def describe_holders(holders: Iterable[Mapping[str, Any]], run_id: str) -> str:
    """Say who holds a semaphore; nothing when it was just given back."""
    names = [
        holder["worker"] + ("" if holder["run_id"] == run_id else f" of run {short_id(holder['run_id'])}") for holder in holders
    ]
    return f", held by {format_list(names, 3)}" if names else ""
