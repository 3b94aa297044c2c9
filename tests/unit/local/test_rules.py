import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maand_local.__main__ import follow_agent, rotate_log
from maand_local.bucket_lock import HeldByAnother, hold_lock
from maand_local.bucket_services import Activity
from maand_local.layout import Layout, make_socket_directory, remove_if_empty, socket_directory
from maand_local.lifetime import compute_remaining_time, until_not_needed
from maand_local.settings import BadSetting, LocalSettings
from maand_wire.supervision import EndedByItself

QUARTER = timedelta(minutes=15)


@pytest.mark.parametrize(
    ("activity", "left"),
    [
        (Activity(active_runs=0, open_streams=0, last_call_at=100), timedelta(minutes=10)),
        (Activity(active_runs=0, open_streams=0, last_call_at=-1000), timedelta(seconds=-500)),
        (Activity(active_runs=1, open_streams=0, last_call_at=-1000), QUARTER),
        (Activity(active_runs=0, open_streams=1, last_call_at=-1000), QUARTER),
    ],
)
def test_a_host_lives_on_while_something_runs_or_was_asked_lately(activity: Activity, left: timedelta) -> None:
    assert compute_remaining_time(activity, now=400, idle_for=QUARTER) == left


def test_sockets_live_in_the_bucket_unless_their_path_is_too_long(tmp_path: Path) -> None:
    short = Layout(bucket=Path("/srv/bucket"))
    assert socket_directory(short, temporary=tmp_path, uid=7) == Path("/srv/bucket/run")
    long = Layout(bucket=Path("/srv") / ("b" * 90))
    assert socket_directory(long, temporary=Path("/tmp"), uid=7) == Path("/tmp/maand-7-0a8323099a3d053e")


def test_a_host_asks_the_agent_that_the_bucket_leads_to(tmp_path: Path) -> None:
    link, environment = tmp_path / "agent.sock", {"SSH_AUTH_SOCK": "/tmp/ssh-mine/agent.1"}

    follow_agent(link, environment)
    link.unlink()
    link.symlink_to("/tmp/ssh-later/agent.2")
    follow_agent(link, {"SSH_AUTH_SOCK": "/tmp/ssh-mine/agent.1"})

    assert environment == {"SSH_AUTH_SOCK": str(link)}
    assert str(link.readlink()) == "/tmp/ssh-later/agent.2"


def test_a_host_that_was_started_without_an_agent_follows_one_that_comes_later(tmp_path: Path) -> None:
    environment: dict[str, str] = {}

    follow_agent(tmp_path / "agent.sock", environment)

    assert environment == {"SSH_AUTH_SOCK": str(tmp_path / "agent.sock")}
    assert list(tmp_path.iterdir()) == []


def test_the_socket_directory_is_private(tmp_path: Path) -> None:
    made = make_socket_directory(tmp_path / "sockets")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    assert make_socket_directory(made).stat().st_mode & 0o777 == 0o700


def test_an_emptied_socket_directory_goes_and_one_in_use_stays(tmp_path: Path) -> None:
    used, emptied = tmp_path / "used", tmp_path / "emptied"
    for directory in (used, emptied):
        directory.mkdir()
    (used / "catalog.sock").touch()

    for directory in (used, emptied, tmp_path / "never-made"):
        remove_if_empty(directory)

    assert list(tmp_path.iterdir()) == [used]


def test_a_socket_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(PermissionError):
        make_socket_directory(tmp_path / "link")


def test_a_second_holder_is_told_who_holds_the_bucket(tmp_path: Path) -> None:
    lock = tmp_path / "services.lock"
    with (
        hold_lock(lock, since="noon"),
        pytest.raises(HeldByAnother, match=f'"pid": {os.getpid()}'),
        hold_lock(lock, since="later"),
    ):
        pass
    with hold_lock(lock, since="after"):
        assert "after" in lock.read_text()


def test_a_long_log_is_put_aside_at_start(tmp_path: Path) -> None:
    log = tmp_path / "services.log"
    rotate_log(log, largest_bytes=3)
    log.write_text("four")
    rotate_log(log, largest_bytes=4)
    assert log.exists()
    rotate_log(log, largest_bytes=3)
    assert not log.exists()
    assert (tmp_path / "services.log.1").read_text() == "four"


def test_idle_seconds_come_from_the_environment() -> None:
    assert LocalSettings.from_environment(Path("/b"), {}).idle_for == QUARTER
    assert LocalSettings.from_environment(Path("/b"), {"MAAND_IDLE_SECONDS": "2.5"}).idle_for == timedelta(seconds=2.5)
    assert LocalSettings.from_environment(Path("/b"), {"MAAND_IDLE_SECONDS": "0"}).idle_for is None
    with pytest.raises(BadSetting, match="MAAND_IDLE_SECONDS"):
        LocalSettings.from_environment(Path("/b"), {"MAAND_IDLE_SECONDS": "soon"})


class Host:
    """A host as far as its end needs one: what lasts as long as it does, and what the services are doing."""

    def __init__(
        self,
        serving: Coroutine[Any, Any, None],
        activity: Callable[[], Activity],
        *loops: Coroutine[Any, Any, None],
    ) -> None:
        self.gateway = SimpleNamespace(serving=asyncio.create_task(serving, name="the server of the hook API"))
        self.executor = SimpleNamespace(loops=[asyncio.create_task(loop, name="claims") for loop in loops])
        self.activity = activity


async def lasts() -> None:
    await asyncio.Event().wait()


async def breaks() -> None:
    raise OSError("the listener is gone")


def busy() -> Activity:
    return Activity(active_runs=1, open_streams=0, last_call_at=0)


def unknown() -> Activity:
    raise KeyError("nobody can tell")


async def test_a_host_whose_hook_api_ends_by_itself_does_not_live_on_without_it(tmp_path: Path) -> None:
    host: Any = Host(breaks(), busy)
    with pytest.raises(EndedByItself, match="the server of the hook API ended by itself"):
        await until_not_needed(host, Layout(bucket=tmp_path), QUARTER)


async def test_a_host_that_claims_no_runs_any_more_does_not_live_on(tmp_path: Path) -> None:
    host: Any = Host(lasts(), busy, breaks())
    with pytest.raises(EndedByItself, match="claims ended by itself"):
        await until_not_needed(host, Layout(bucket=tmp_path), QUARTER)
    host.gateway.serving.cancel()


async def test_a_host_that_cannot_tell_whether_it_is_idle_ends_by_an_error_and_not_as_idle(tmp_path: Path) -> None:
    host: Any = Host(lasts(), unknown)
    with pytest.raises(KeyError):
        await until_not_needed(host, Layout(bucket=tmp_path), QUARTER)
    host.gateway.serving.cancel()
