"""Starting a run and following it to its end, through lost connections and Ctrl-C.

    CreateRun -> WatchRun (resumed after the last sequence seen, services restarted in local mode) -> GetRun

Ctrl-C once: finish the current batch, then stop. Twice: stop now. A third time leaves; the run goes on stopping by itself.
"""

import asyncio
import shlex
import signal
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from maand_cli.errors import CliError
from maand_cli.exits import Exit
from maand_cli.local.bucket import others_may_read
from maand_cli.output.message_dicts import field_word
from maand_cli.output.rows import print_note
from maand_cli.output.screens import Screen, make_screen
from maand_cli.output.view import RunView
from maand_cli.remote.catalog import RemoteError
from maand_cli.remote.session import LOST, Session, recover_services, user_at_host
from maand_cli.runs.look_beside import expect_duration, look_for_semaphore_waits
from maand_contracts.catalog.v1 import run_pb2, run_spec_pb2

TICK_SECONDS = 0.2
ENDED = (
    run_pb2.RUN_STATE_SUCCEEDED,
    run_pb2.RUN_STATE_FAILED,
    run_pb2.RUN_STATE_CANCELLED,
    run_pb2.RUN_STATE_INTERRUPTED,
)
"""States in which a stream's end is the run's end. A run that another executor may take over keeps its stream open."""


class LeftRunning(CliError):
    """The command was left with Ctrl-C; the run goes on without it."""

    code = "interrupted"
    exit_code = Exit.INTERRUPTED


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A run at its end, with everything seen on the way."""

    run: run_pb2.Run
    screen: Screen
    seconds: float | None = None
    """How long the run took, measured here; None when it was under way before."""

    @property
    def view(self) -> RunView:
        """What the events told."""
        return self.screen.view


async def start_run(session: Session, spec: run_spec_pb2.RunSpec) -> run_pb2.Run:
    """Ask for an operation in this caller's name."""
    if session.is_local:
        _warn_of_an_open_key(session)
    if not spec.timeout_seconds:
        spec.timeout_seconds = session.flags.timeout_seconds
    return await session.catalog.create_run(
        run_pb2.CreateRunRequest(
            bucket_id=session.conf.bucket_id,
            spec=spec,
            requested_by=user_at_host(session.environment),
            hook_env=session.hook_env(),
            lock_timeout_seconds=session.flags.lock_timeout_seconds,
            parent_run_id=session.parent_run_id,
            request_id=str(uuid.uuid4()),
        )
    )


def _warn_of_an_open_key(session: Session) -> None:
    """Tell when others can read the SSH key that runs use: OpenSSH would refuse such a key."""
    key = session.bucket.secrets / session.conf.ssh_key
    if session.conf.ssh_key and others_may_read(key):
        print_note(session.flags, f"maand: others can read the SSH key {key}; close it: chmod 600 {shlex.quote(str(key))}")


async def follow_run(session: Session, run: run_pb2.Run) -> Followed:
    """Follow a run to its end on the screen that the flags ask for."""
    began = None if run.HasField("started_at") else time.monotonic()
    screen = make_screen(session.flags, RunView(kind=field_word(run, "kind"), run_id=run.run_id))
    try:
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(_tick(screen)),
                group.create_task(expect_duration(session, run, screen.view)),
                group.create_task(look_for_semaphore_waits(session, screen.view)),
                group.create_task(_cancel_on_interrupt(session, run, screen)),
            ]
            ended = await _watch_to_end(session, run, screen)
            for task in beside:
                task.cancel()
    except* CliError as errors:
        raise errors.exceptions[0] from None
    finally:
        screen.close()
    return Followed(run=ended, screen=screen, seconds=None if began is None else time.monotonic() - began)


async def _watch_to_end(session: Session, run: run_pb2.Run, screen: Screen) -> run_pb2.Run:
    """Show every event once, reconnecting as often as it takes, and return the run when it has ended."""
    while True:
        async with _reconnecting(session, screen):
            async for event in session.catalog.watch_run(run.run_id, after=screen.view.last_sequence):
                screen.event(event)
            run = await session.catalog.get_run(run.run_id)
            if run.state in ENDED:
                return run
            await asyncio.sleep(TICK_SECONDS)


@asynccontextmanager
async def _reconnecting(session: Session, screen: Screen) -> AsyncIterator[None]:
    """Survive a lost service: bring the local one back, or wait for a remote one. Raises ServiceUnreachable at last."""
    try:
        yield
    except RemoteError as error:
        if error.status not in LOST:
            raise
        screen.say("lost the services, reconnecting; the run goes on or is taken over")
        await recover_services(session)


async def _tick(screen: Screen) -> None:
    """Let time pass as the monotonic clock has it: what the screen says of durations bears a clock that is set."""
    began, began_at = datetime.now(tz=UTC), time.monotonic()
    while True:
        screen.tick(began + timedelta(seconds=time.monotonic() - began_at))
        await asyncio.sleep(TICK_SECONDS)


async def _cancel_on_interrupt(session: Session, run: run_pb2.Run, screen: Screen) -> None:
    """Turn Ctrl-C into CancelRun, and say what still runs."""
    pressed: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, pressed.put_nowait, None)
    try:
        for words in (
            "stopping after the current batch (Ctrl-C again stops now)",
            "stopping now: hooks and remote commands are ended (Ctrl-C again leaves)",
        ):
            await pressed.get()
            await _ask_to_stop(session, run, screen, words)
        await pressed.get()
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    raise LeftRunning(f"left {field_word(run, 'kind')} {run.run_id} while it stops", help=f"maand runs watch {run.run_id}")


async def _ask_to_stop(session: Session, run: run_pb2.Run, screen: Screen, words: str) -> None:
    try:
        await session.catalog.cancel_run(run.run_id, user_at_host(session.environment))
    except RemoteError as error:
        screen.say(f"could not be asked to stop: {error.message}")
        return
    running = screen.view.still_running()
    screen.say(f"{words}; still running: {', '.join(running) if running else 'nothing on a worker'}")
