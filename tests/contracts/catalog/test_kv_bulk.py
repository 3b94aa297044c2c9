"""What build and gc do to the KV store: replace, merge, purge, trim."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy

from maand_catalog.database.database import Database
from maand_catalog.errors import InvalidArgument, OutOfRange
from maand_catalog.sealing.keyring import Plaintext
from maand_catalog.store.kv import entries as store
from maand_catalog.store.kv.batched_store import KvStore
from maand_catalog.store.kv.bulk import (
    KEEP,
    Changed,
    WantedKeys,
    merge_namespaces,
    purge_namespaces,
    read_sealed,
    replace_owned_namespaces,
    trim_history,
)
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.kv_builders import SECRETS, VARS, Bench, a_keyring
from tests.contracts.catalog.run_builders import a_bucket

ALLOCATION = "maand/job/api/worker/10.0.0.1"
KEY = "certs/web.key"


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(KvStore.on(database, a_keyring(tmp_path)), await a_bucket(database))


async def replace(bench: Bench, wanted: Mapping[str, WantedKeys], *, spared: frozenset[str] = frozenset()) -> Changed:
    return await bench.kv.database.write(
        lambda tx: replace_owned_namespaces(
            tx, bench.kv.keyring, bucket_id=bench.bucket_id, wanted=wanted, spared=spared, writer="build"
        ),
        alone=True,
    )


async def merge(bench: Bench, wanted: Mapping[str, WantedKeys], **stale: list[str]) -> Changed:
    return await bench.kv.database.write(
        lambda tx: merge_namespaces(
            tx, bench.kv.keyring, bucket_id=bench.bucket_id, wanted=wanted, stale={VARS: stale.get("stale", [])}, writer="build"
        )
    )


async def everything(bench: Bench) -> dict[str, dict[str, str | None]]:
    entries, more = await bench.kv.database.read(lambda tx: store.list_entries(tx, bench.bucket_id, "", limit=10_000, after=None))
    assert not more
    found: dict[str, dict[str, str | None]] = {}
    for entry in entries:
        found.setdefault(entry.namespace, {})[entry.key] = entry.value
    return found


async def test_owned_namespaces_hold_exactly_what_is_wanted(bench: Bench) -> None:
    first = {"maand/bucket": {"a": "1", "b": "2"}, "vars/bucket/job/api": {"x": "y"}}
    second = {"maand/bucket": {"b": "2", "c": "3"}, "maand/worker": {"n": ""}}

    assert await replace(bench, first) == Changed(written=3)
    assert await everything(bench) == first
    assert await replace(bench, second) == Changed(written=2, deleted=2)
    assert await everything(bench) == second


async def test_an_unchanged_build_writes_nothing(bench: Bench) -> None:
    wanted = {f"maand/job/j{number}": {f"k{key}": f"{number}" for key in range(20)} for number in range(50)}
    await replace(bench, wanted)
    before = await bench.kv.database.read(lambda tx: store.read_revision(tx, bench.bucket_id))

    assert await replace(bench, wanted) == Changed()

    assert await bench.kv.database.read(lambda tx: store.read_revision(tx, bench.bucket_id)) == before


async def test_what_people_and_hooks_own_is_left_alone(bench: Bench) -> None:
    await bench.put("k", "hook's")
    await bench.put("s", "secret", namespace=SECRETS, secret=True)
    await bench.put("k", "mine", namespace="vars/bucketeer")

    await replace(bench, {"maand/bucket": {"a": "1"}})

    assert await bench.value("k") == "hook's"
    assert await bench.value("s", namespace=SECRETS) == "secret"
    assert await bench.value("k", namespace="vars/bucketeer") == "mine"


async def test_a_rollout_order_that_a_hook_wrote_is_reset_by_the_next_build(bench: Bench) -> None:
    wanted = {"maand/job/api": {"rollout_order": "a,b"}}
    await replace(bench, wanted)
    await bench.put("rollout_order", "b,a", namespace="maand/job/api")

    assert await replace(bench, wanted) == Changed(written=1)
    assert await bench.value("rollout_order", namespace="maand/job/api") == "a,b"


async def test_a_stale_key_that_comes_back_goes_on_counting(bench: Bench) -> None:
    for wanted in ({"a": "1"}, {}, {"a": "1"}):
        await replace(bench, {"maand/bucket": wanted})

    assert (await bench.kv.get(bench.bucket_id, "maand/bucket", "a")).version == 3


async def test_spared_namespaces_stay_until_they_are_purged(bench: Bench) -> None:
    await replace(bench, {ALLOCATION: {"version": "1", KEY: Plaintext("pem")}})

    assert await replace(bench, {}, spared=frozenset({ALLOCATION})) == Changed()
    assert await bench.value("version", namespace=ALLOCATION) == "1"
    purged = await bench.kv.database.write(lambda tx: purge_namespaces(tx, bench.bucket_id, [ALLOCATION]))

    assert purged == 2
    assert await bench.value("version", namespace=ALLOCATION) is None


async def test_private_keys_are_kept_without_being_at_hand(bench: Bench) -> None:
    await replace(bench, {ALLOCATION: {"version": "1", KEY: Plaintext("pem 1")}})

    assert await replace(bench, {ALLOCATION: {"version": "1", KEY: KEEP}}) == Changed()
    assert await replace(bench, {ALLOCATION: {"version": "1", KEY: Plaintext("pem 1")}}) == Changed()
    assert await replace(bench, {ALLOCATION: {"version": "1", KEY: Plaintext("pem 2")}}) == Changed(written=1)
    sealed = await bench.kv.database.read(lambda tx: read_sealed(tx, bench.kv.keyring, bench.bucket_id, [ALLOCATION]))
    assert {name: text.reveal() for name, text in sealed.items()} == {(ALLOCATION, KEY): "pem 2"}
    assert await replace(bench, {ALLOCATION: {"version": "1"}}) == Changed(deleted=1)
    assert not await bench.kv.database.read(lambda tx: read_sealed(tx, bench.kv.keyring, bench.bucket_id, [ALLOCATION]))


async def test_one_sealed_value_is_put_beside_others(bench: Bench) -> None:
    await replace(bench, {ALLOCATION: {"version": "1"}})

    assert await merge(bench, {ALLOCATION: {KEY: Plaintext("pem")}}) == Changed(written=1)
    assert await bench.value(KEY, namespace=ALLOCATION) == "pem"
    assert (await bench.kv.get(bench.bucket_id, ALLOCATION, KEY)).value is None


async def test_merged_variables_leave_the_keys_of_hooks(bench: Bench) -> None:
    await bench.put("by_hook", "1")
    await bench.put("both", "hook")

    assert await merge(bench, {VARS: {"by_file": "2", "both": "file"}}) == Changed(written=2)
    assert await merge(bench, {VARS: {"both": "file"}}, stale=["by_file", "never"]) == Changed(deleted=1)

    assert await everything(bench) == {VARS: {"by_hook": "1", "both": "file"}}


@pytest.mark.parametrize("wanted", [{"maand/b\n": {"a": "1"}}, {"maand/b": {"": "1"}}, {"maand/b": {"a": "\0"}}])
async def test_what_cannot_be_kept_is_refused_and_nothing_changes(bench: Bench, wanted: dict[str, dict[str, str]]) -> None:
    with pytest.raises(InvalidArgument):
        await replace(bench, {"maand/a": {"a": "1"}, **wanted})

    assert await everything(bench) == {}


async def test_a_watch_sees_what_a_build_wrote(bench: Bench) -> None:
    await replace(bench, {"maand/bucket": {"a": "1", "b": "1"}})
    await replace(bench, {"maand/bucket": {"a": "2"}})

    changes, _ = await bench.kv.database.read(lambda tx: store.list_changes(tx, bench.bucket_id, "maand", 0))

    assert [(entry.key, entry.value, entry.version) for entry in changes] == [
        ("a", "1", 1),
        ("b", "1", 1),
        ("a", "2", 2),
        ("b", None, 2),
    ]


async def test_history_keeps_the_latest_seven_and_everything_young(bench: Bench, clock: ShiftedClock) -> None:
    for number in range(10):
        await bench.put("k", f"{number}")
    await bench.put("other", "v")
    clock.advance(timedelta(days=40))
    for number in range(10, 12):
        await bench.put("k", f"{number}")

    assert await trim(bench, days=60) == 0
    assert await trim(bench, days=30) == 5

    kept, _ = await bench.kv.database.read(lambda tx: store.list_versions(tx, bench.bucket_id, VARS, "k", limit=100, before=None))
    assert [entry.version for entry in kept] == [12, 11, 10, 9, 8, 7, 6]
    assert await bench.value("other") == "v"
    assert (await bench.put("k", "next")).version == 13


async def test_everything_young_stays_however_much_it_is(bench: Bench) -> None:
    for number in range(20):
        await bench.put("k", f"{number}")

    assert await trim(bench, days=1) == 0


async def test_a_watch_cannot_resume_from_before_what_was_trimmed(bench: Bench, clock: ShiftedClock) -> None:
    revisions = [(await bench.put("k", f"{number}")).revision for number in range(10)]
    clock.advance(timedelta(days=40))
    await trim(bench, days=30)

    with pytest.raises(OutOfRange):
        await bench.kv.database.read(lambda tx: store.list_changes(tx, bench.bucket_id, "", revisions[0]))
    changes, _ = await bench.kv.database.read(lambda tx: store.list_changes(tx, bench.bucket_id, "", revisions[2]))
    assert [entry.value for entry in changes] == ["3", "4", "5", "6", "7", "8", "9"]


async def trim(bench: Bench, *, days: int) -> int:
    return await bench.kv.database.write(lambda tx: trim_history(tx, bench.bucket_id, retain=timedelta(days=days)), alone=True)


async def test_a_build_of_many_keys_takes_few_statements(bench: Bench) -> None:
    wanted = {f"maand/job/j/worker/10.0.0.{number}": {f"k{key}": "v" for key in range(60)} for number in range(100)}
    statements = []

    def count(*arguments: object) -> None:
        statements.append(str(arguments[2])[:40])

    sqlalchemy.event.listen(bench.kv.database.engines.write, "before_cursor_execute", count)
    await replace(bench, wanted)
    sqlalchemy.event.remove(bench.kv.database.engines.write, "before_cursor_execute", count)

    assert len(statements) < 20
