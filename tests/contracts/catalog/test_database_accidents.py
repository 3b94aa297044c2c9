"""Full disks, accidents of the writer and of listening: told to whom they concern, and work goes on."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from maand_catalog.database.batching import Batcher
from maand_catalog.database.database import Database, Transaction
from maand_catalog.database.writer import GroupWriter, QueuedWrite
from maand_catalog.errors import DiskFailed
from tests.contracts.catalog.conftest import OpenReplica
from tests.contracts.catalog.probe_table import LONG, PROBE, content, put, two_replicas


@pytest.fixture
async def probe(database: Database) -> Database:
    await database.write(lambda tx: tx.connection.execute(text(PROBE)))
    return database


def full_at(pages: int) -> Callable[[Transaction], None]:
    """Let the file grow no further than by that many pages: what SQLite says then is what it says of a full disk."""

    def intention(tx: Transaction) -> None:
        used = tx.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {used + pages}")

    return intention


def fill(tx: Transaction) -> None:
    tx.connection.execute(text("CREATE TABLE filling (data BLOB)"))
    tx.connection.execute(text("INSERT INTO filling VALUES (zeroblob(1000000))"))


@pytest.fixture
async def on_disk(sqlite_url: str) -> AsyncIterator[Database]:
    database = await Database.open(sqlite_url)
    await database.write(lambda tx: tx.connection.execute(text(PROBE)))
    yield database
    await database.close()


async def test_a_full_disk_is_told_with_the_file_and_what_to_do_and_writes_go_on_once_there_is_space(
    on_disk: Database, sqlite_url: str
) -> None:
    await on_disk.write(full_at(4))
    with pytest.raises(DiskFailed, match="the disk is full") as raised:
        await on_disk.write(fill)
    assert sqlite_url.removeprefix("sqlite:///") in str(raised.value)
    assert "free some space" in raised.value.help
    await on_disk.write(put("a", 1))  # on a fresh connection, which knows of no limit
    assert await on_disk.read(content) == {"a": 1}


async def test_everybody_in_the_group_of_a_write_that_met_a_full_disk_is_told_so(on_disk: Database) -> None:
    await on_disk.write(full_at(4))
    writes: list[Callable[[Transaction], object]] = [put("early"), fill, *(put(f"late-{number}") for number in range(5))]
    gathered = await asyncio.gather(*(on_disk.write(write) for write in writes), return_exceptions=True)
    refused = [each for each in gathered if isinstance(each, Exception)]
    assert refused
    assert {type(each) for each in refused} == {DiskFailed}
    await on_disk.write(put("a", 1))
    kept = await on_disk.read(content)
    assert set(kept) == {str(each) for each in gathered if isinstance(each, str)} | {"a"}, "what was acknowledged, and no more"


@pytest.mark.parametrize(
    ("code", "words", "remedy"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full", "free some space"),
        (sqlite3.SQLITE_IOERR_FSYNC, "the disk fails", "look at the disk"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "the file cannot be written", "writable"),
        (sqlite3.SQLITE_CANTOPEN, "the file cannot be opened", "directory"),
    ],
)
async def test_what_a_disk_does_is_told_in_words(on_disk: Database, code: int, words: str, remedy: str) -> None:
    with pytest.raises(DiskFailed, match=words) as raised:
        await on_disk.write(lambda _: fail_with(code))
    assert remedy in raised.value.help
    with pytest.raises(DiskFailed, match=words):
        await on_disk.read(lambda _: fail_with(code))


def fail_with(code: int) -> None:
    """Raise what SQLAlchemy raises for a result code of SQLite's."""
    error = sqlite3.OperationalError("SQLite's own words")
    error.sqlite_errorcode = code
    raise OperationalError("SELECT 1", None, error)


async def test_another_error_of_sqlite_is_not_blamed_on_the_disk(on_disk: Database) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        await on_disk.write(lambda tx: tx.connection.execute(text("SELECT 1 FROM nowhere")))


async def test_an_accident_of_the_writer_is_told_to_its_callers_and_the_next_write_is_made(
    probe: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = GroupWriter._write_group

    def once(self: GroupWriter, writes: list[QueuedWrite]) -> None:
        monkeypatch.setattr(GroupWriter, "_write_group", whole)
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(GroupWriter, "_write_group", once)
    async with asyncio.timeout(20):
        with pytest.raises(RuntimeError, match="nobody foresaw this"):
            await probe.write(put("a"))
        await probe.write(put("b"))
    assert await probe.read(content) == {"b": 0}


async def test_a_batch_with_too_few_outcomes_leaves_nobody_waiting(probe: Database) -> None:
    batcher: Batcher[str, str] = Batcher(probe.write, lambda _tx, items: list(items)[1:])
    async with asyncio.timeout(20):
        for told in await asyncio.gather(batcher.submit("a"), batcher.submit("b"), return_exceptions=True):
            assert isinstance(told, RuntimeError)


async def test_an_accident_while_listening_is_seen_and_listening_goes_on(
    open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await two_replicas(open_replica)
    broke, deliver = asyncio.Event(), two.bus.deliver

    def once(topics: Iterable[str]) -> None:
        monkeypatch.setattr(two.bus, "deliver", deliver)
        broke.set()
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(two.bus, "deliver", once)
    with capture_logs() as logs, two.bus.subscribe("probe:b") as subscription:
        await one.write(put("a"))
        await broke.wait()
        woken = asyncio.create_task(subscription.wait(LONG))
        await woken  # everyone is woken when it listens again, or looks by itself
        while await heard(one, two) is False:
            pass
    assert [line["loop"] for line in logs if "loop" in line] == ["notifications"]


async def heard(one: Database, two: Database) -> bool:
    """Whether a write on one is heard on the other, sooner than the other would look by itself."""
    loop = asyncio.get_running_loop()
    with two.bus.subscribe("probe:heard") as subscription:
        await one.write(lambda tx: tx.notify("probe:heard"))
        before = loop.time()
        await subscription.wait(LONG)
        return loop.time() - before < 0.5
