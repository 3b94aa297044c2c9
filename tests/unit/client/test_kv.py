"""Variables through the client: versions, conditions, lifetimes, history, and watches that lose nothing."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from maand_catalog.rules.identity import Role
from maand_catalog.store.kv.bulk import trim_history
from maand_client import Client
from maand_client.errors import Aborted, Invalid, LostRace, NotFound, OutOfRange
from tests.contracts.catalog.hook_callers import a_running_hook
from tests.unit.client.conftest import Bed, first

VARS = "vars/job/api"


@pytest.fixture
async def maand(bed: Bed) -> AsyncIterator[Client]:
    async with await bed.remote() as client:
        yield client


async def test_what_is_written_is_read_with_who_wrote_it_and_when(maand: Client) -> None:
    written = await maand.kv.put(VARS, "leader", "10.0.0.2")
    entry = await maand.kv.get(VARS, "leader")
    assert (entry.value, entry.version, entry.revision) == ("10.0.0.2", 1, written.revision)
    assert (entry.writer, entry.deleted, entry.expires_at) == ("test operator", False, None)
    assert abs(entry.created_at - datetime.now(tz=UTC)) < timedelta(minutes=5)


async def test_an_equal_value_is_no_new_version(maand: Client) -> None:
    assert [(await maand.kv.put(VARS, "k", value)).version for value in ("a", "a", "b")] == [1, 1, 2]


async def test_a_lost_race_carries_the_current_version(maand: Client) -> None:
    await maand.kv.put(VARS, "k", "mine", if_absent=True)
    await maand.kv.put(VARS, "k", "theirs", if_version=1)
    with pytest.raises(LostRace) as raised:
        await maand.kv.put(VARS, "k", "late", if_version=1)
    assert (raised.value.current_version, raised.value.code) == (2, "kv_precondition_lost")
    assert isinstance(raised.value, Aborted)
    with pytest.raises(LostRace):
        await maand.kv.put(VARS, "k", "late", if_absent=True)
    with pytest.raises(LostRace):
        await maand.kv.delete(VARS, "k", if_version=1)


async def test_two_conditions_are_one_too_many(maand: Client) -> None:
    with pytest.raises(ValueError, match="either if_version or if_absent"):
        await maand.kv.put(VARS, "k", "v", if_version=1, if_absent=True)


async def test_a_value_with_a_lifetime_says_when_it_ends(maand: Client) -> None:
    await maand.kv.put(VARS, "k", "v", ttl=timedelta(hours=1))
    entry = await maand.kv.get(VARS, "k")
    assert entry.expires_at is not None
    assert entry.expires_at - entry.created_at == timedelta(hours=1)


async def test_history_tells_every_version_and_an_older_one_comes_back(maand: Client) -> None:
    for value in ("a", "b"):
        await maand.kv.put(VARS, "k", value)
    assert await maand.kv.delete(VARS, "k") == 3
    with pytest.raises(NotFound):
        await maand.kv.get(VARS, "k")
    assert [(entry.version, entry.value, entry.deleted) for entry in await maand.kv.history(VARS, "k")] == [
        (3, "", True),
        (2, "b", False),
        (1, "a", False),
    ]
    assert (await maand.kv.get(VARS, "k", version=1)).value == "a"
    assert await maand.kv.restore(VARS, "k", 2) == 4
    assert [entry.version for entry in await maand.kv.history(VARS, "k", limit=2)] == [4, 3]


async def test_keys_and_entries_are_listed_in_order(maand: Client) -> None:
    for namespace, key in ((VARS, "b"), (VARS, "a"), ("vars/job/web", "c")):
        await maand.kv.put(namespace, key, key.upper())
    assert await maand.kv.keys(VARS) == ("a", "b")
    assert [(entry.namespace, entry.key, entry.value) for entry in await maand.kv.entries("vars/job")] == [
        (VARS, "a", "A"),
        (VARS, "b", "B"),
        ("vars/job/web", "c", "C"),
    ]


async def test_a_name_that_is_none_is_invalid(maand: Client) -> None:
    with pytest.raises(Invalid):
        await maand.kv.get(VARS, "k\n")


async def test_a_watch_loses_nothing_when_replicas_go_and_come(bed: Bed, maand: Client) -> None:
    begin = await maand.kv.put(VARS, "k", "0")
    seen: list[str] = []

    async def watch() -> None:
        async for entry in maand.kv.watch("vars/job", after_revision=begin.revision):
            seen.append(entry.value)
            if entry.value == "4":
                return

    watching = asyncio.create_task(watch())
    async with bed.local() as beside:
        await beside.kv.put(VARS, "k", "1")
        await bed.kill(0)
        await beside.kv.put(VARS, "k", "2")
        await bed.kill(1)
        await beside.kv.put(VARS, "k", "3")
        await bed.revive(1)
        await beside.kv.put(VARS, "k", "4")
    await watching
    assert seen == ["1", "2", "3", "4"]


async def test_a_watch_from_now_on_that_is_lost_before_its_first_change_loses_nothing_either(bed: Bed) -> None:
    async with bed.local() as beside, await bed.remote() as maand:
        await beside.kv.put(VARS, "k", "before")
        stands = asyncio.Event()
        watching = asyncio.create_task(first(maand.kv.watch(VARS, stands=stands)))
        await stands.wait()
        await bed.kill(0)
        await bed.kill(1)
        await beside.kv.put(VARS, "k", "meanwhile")
        await bed.revive(0)
        assert (await watching).value == "meanwhile"


async def test_a_watch_from_before_what_is_kept_says_what_to_do(bed: Bed, maand: Client) -> None:
    for number in range(10):
        await maand.kv.put(VARS, "k", str(number))
    await bed.database.write(lambda tx: trim_history(tx, bed.bucket_id, retain=timedelta(days=-1)))
    with pytest.raises(OutOfRange) as raised:
        await first(maand.kv.watch(after_revision=1))
    assert "list anew" in raised.value.help


async def test_a_hook_reads_and_writes_with_its_token_over_a_unix_socket(bed: Bed, tmp_path: Path) -> None:
    hook = await a_running_hook(bed.database, bed.bucket_id)
    token = hook.metadata[0][1].removeprefix("Bearer ")
    async with bed.local(token=token) as maand:
        await maand.kv.put(VARS, "k", "v")
        assert (await maand.kv.get(VARS, "k")).writer.startswith("hook api/hook_x on 10.0.0.1")


async def test_a_viewer_reads_and_watches(bed: Bed, maand: Client) -> None:
    before = await maand.kv.put(VARS, "before", "v")
    await maand.kv.put(VARS, "k", "v")
    async with await bed.remote(Role.VIEWER) as viewer:
        assert (await first(viewer.kv.watch(after_revision=before.revision))).key == "k"
