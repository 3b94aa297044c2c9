"""The storage seam: what a transaction promises, alone and in a group, and who is woken."""

import asyncio
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from maand_catalog.database.database import Database, Transaction
from maand_catalog.database.engine import make_engines, parse_database_url
from maand_catalog.database.filelock import DatabaseInUse
from maand_catalog.database.metadata import UtcMicros
from maand_catalog.errors import InvalidArgument, Unavailable
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.probe_table import LONG, PROBE, add_one, content, put, two_replicas
from tests.testbed.postgres import PostgresCluster, running_postgres


@pytest.fixture
async def probe(database: Database) -> Database:
    await database.write(lambda tx: tx.connection.execute(text(PROBE)))
    return database


async def test_a_write_returns_what_its_intention_returned_and_is_seen_by_the_next_read(probe: Database) -> None:
    assert await probe.write(put("a", 1)) == "a"
    assert await probe.read(content) == {"a": 1}


async def test_an_exception_undoes_its_own_write_and_no_other_of_the_group(probe: Database) -> None:
    await probe.write(put("b"))
    outcomes = await asyncio.gather(*(probe.write(put(key)) for key in ("a", "b", "c", "b", "d")), return_exceptions=True)
    assert [isinstance(outcome, IntegrityError) for outcome in outcomes] == [False, True, False, True, False]
    assert set(await probe.read(content)) == {"a", "b", "c", "d"}


async def test_a_lone_write_that_fails_halfway_leaves_nothing(probe: Database) -> None:
    def halfway(tx: Transaction) -> None:
        put("a")(tx)
        raise InvalidArgument("changed its mind")

    for alone in (False, True):
        with pytest.raises(InvalidArgument, match="changed its mind"):
            await probe.write(halfway, alone=alone)
    assert await probe.read(content) == {}


async def test_many_writers_lose_nothing(probe: Database) -> None:
    await probe.write(put("n", 0))
    await asyncio.gather(*(probe.write(add_one("n"), alone=number % 50 == 0) for number in range(500)))
    assert await probe.read(content) == {"n": 500}


async def test_a_read_sees_one_moment_while_others_write(probe: Database) -> None:
    await probe.write(put("a"))
    began, go_on = threading.Event(), threading.Event()

    def look_twice(tx: Transaction) -> tuple[int, int]:
        first = len(content(tx))
        began.set()
        go_on.wait(10)
        return first, len(content(tx))

    reading = asyncio.create_task(probe.read(look_twice))
    await asyncio.to_thread(began.wait, 10)
    await probe.write(put("b"))
    go_on.set()
    assert await reading == (1, 1)


async def test_a_subscriber_is_woken_after_the_commit_and_only_for_its_topic(probe: Database) -> None:
    with probe.bus.subscribe("probe:a") as mine, probe.bus.subscribe("probe:other") as other:
        await probe.write(put("a"))
        await mine.wait(LONG)
        assert await probe.read(content) == {"a": 0}
        before = asyncio.get_running_loop().time()
        await other.wait(timedelta(milliseconds=50))
        assert asyncio.get_running_loop().time() - before >= 0.04


async def test_a_write_that_was_undone_wakes_nobody(probe: Database) -> None:
    await probe.write(put("a"))
    with probe.bus.subscribe("probe:a") as subscription:
        with pytest.raises(IntegrityError):
            await probe.write(put("a"))
        before = asyncio.get_running_loop().time()
        await subscription.wait(timedelta(milliseconds=50))
        assert asyncio.get_running_loop().time() - before >= 0.04


async def test_the_clock_is_read_once_per_transaction_and_moves_between_them(database: Database, clock: ShiftedClock) -> None:
    first, again = await database.read(lambda tx: (tx.now, tx.now))
    assert first == again
    assert first.tzinfo is UTC
    clock.advance(timedelta(hours=1))
    assert await database.read(lambda tx: tx.now) - first >= timedelta(hours=1)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - bounds
def test_times_are_kept_to_the_microsecond(moment: datetime) -> None:
    kind, dialect = UtcMicros(), sqlite.dialect()
    assert kind.process_result_value(kind.process_bind_param(moment, dialect), dialect) == moment


async def test_a_closed_database_takes_no_more_writes_and_has_finished_those_it_took(database_url: str) -> None:
    database = await Database.open(database_url)
    await database.write(lambda tx: tx.connection.execute(text(PROBE)))
    taken = [asyncio.create_task(database.write(put(str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*taken) == [str(number) for number in range(20)]
    with pytest.raises(Unavailable):
        await database.write(put("late"))


async def test_a_second_process_cannot_open_a_sqlite_database_and_is_told_who_has_it(sqlite_url: str) -> None:
    script = (
        "import asyncio, sys\n"
        "from maand_catalog.database.database import Database\n"
        "async def hold():\n"
        "    database = await Database.open(sys.argv[1])\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.read()\n"
        "    await database.close()\n"
        "asyncio.run(hold())\n"
    )
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, sqlite_url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"open\n"
    with pytest.raises(DatabaseInUse, match=f"is open in process {holder.pid}"):
        await Database.open(sqlite_url)
    holder.kill()
    await holder.wait()
    database = await Database.open(sqlite_url)
    await database.close()


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite:///"])
async def test_a_database_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match="is no database the catalog knows"):
        await Database.open(url)


async def test_a_database_that_is_away_is_said_to_be_away() -> None:
    with pytest.raises(Unavailable):
        await Database.open("postgresql://maand@127.0.0.1:1/none")


# -- several replicas on one PostgreSQL -------------------------------------------------------------------------------------


async def test_a_write_on_one_replica_wakes_subscribers_on_another(open_replica: OpenReplica) -> None:
    one, two = await two_replicas(open_replica)
    loop = asyncio.get_running_loop()
    with two.bus.subscribe("probe:a") as subscription:
        await one.write(put("a"))
        before = loop.time()
        await subscription.wait(LONG)
        assert loop.time() - before < 0.9, "woken, not by its own re-read"
        assert await two.read(content) == {"a": 0}


async def test_a_waiter_whose_notification_was_lost_looks_again_within_about_a_second(open_replica: OpenReplica) -> None:
    one, _ = await two_replicas(open_replica)
    loop = asyncio.get_running_loop()
    with one.bus.subscribe("never") as subscription:
        before = loop.time()
        await subscription.wait(LONG)
        assert 0.9 < loop.time() - before < 5


async def test_replicas_that_lock_the_same_rows_in_opposite_order_both_succeed(open_replica: OpenReplica) -> None:
    one, two = await two_replicas(open_replica)
    await asyncio.gather(one.write(put("a")), one.write(put("b")))
    forth, back = add_one("a", "b"), add_one("b", "a")
    await asyncio.gather(*(one.write(forth) for _ in range(40)), *(two.write(back) for _ in range(40)))
    assert await one.read(content) == {"a": 80, "b": 80}


async def test_a_row_held_elsewhere_delays_only_whoever_wants_it(open_replica: OpenReplica) -> None:
    one, two = await two_replicas(open_replica)
    await one.write(put("held"))
    holding, let_go = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        add_one("held")(tx)
        holding.set()
        let_go.wait(10)

    holder = asyncio.create_task(two.write(hold, alone=True))
    await asyncio.to_thread(holding.wait, 10)
    delayed = asyncio.create_task(one.write(add_one("held")))
    for number in range(10):
        await asyncio.wait_for(one.write(put(f"free{number}")), 5)
    assert not delayed.done()
    let_go.set()
    await asyncio.gather(holder, delayed)
    assert (await one.read(content))["held"] == 2


async def test_a_replica_outlives_the_loss_of_all_its_connections(
    open_replica: OpenReplica, postgres: PostgresCluster, postgres_url: str
) -> None:
    one, two = await two_replicas(open_replica)
    await asyncio.gather(*(one.read(content) for _ in range(4)))
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{postgres_url.rpartition('/')[2]}'"
    )
    assert await one.read(content) == {}
    await one.write(put("a"))
    with two.bus.subscribe("probe:b") as subscription:
        await one.write(put("b"))
        await subscription.wait(LONG)
    assert "b" in await two.read(content)


async def test_a_stopped_server_means_unavailable_and_a_started_one_that_all_goes_on() -> None:
    with running_postgres() as cluster:
        database = await Database.open(cluster.create_database("maand"))
        await database.write(lambda tx: tx.connection.execute(text(PROBE)))
        await asyncio.to_thread(cluster.stop)
        with pytest.raises(Unavailable):
            await database.write(put("a"))
        with pytest.raises(Unavailable):
            await database.read(content)
        await asyncio.to_thread(cluster.start)
        await database.write(put("a"))
        assert await database.read(content) == {"a": 0}
        await database.close()


def test_connections_carry_the_limits_that_keep_a_frozen_replica_from_holding_locks(postgres_url: str) -> None:
    engines = make_engines(parse_database_url(postgres_url))
    with engines.write.begin() as connection:
        assert setting(connection, "idle_in_transaction_session_timeout") == "5s"
        assert setting(connection, "statement_timeout") == "1min"
    engines.dispose()


def setting(connection: Connection, name: str) -> str:
    return str(connection.execute(text(f"SHOW {name}")).scalar_one())
