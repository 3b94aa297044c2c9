"""The KV store on both databases: versions, preconditions, lifetimes, repeats, listings, changes."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from maand_catalog.database.database import Database
from maand_catalog.errors import InvalidArgument, NotFound, OutOfRange
from maand_catalog.rules.kv_writes import KeyNotFound, KvPreconditionLost, Precondition
from maand_catalog.store.kv import entries as store
from maand_catalog.store.kv.batched_store import KvStore
from tests.contracts.catalog.conftest import OpenReplica, ShiftedClock
from tests.contracts.catalog.kv_builders import SECRETS, VARS, Bench, a_keyring, a_write
from tests.contracts.catalog.run_builders import NOWHERE, a_bucket


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(KvStore.on(database, a_keyring(tmp_path)), await a_bucket(database))


async def test_versions_count_from_one_and_an_equal_value_makes_none(bench: Bench) -> None:
    versions = [(await bench.put("k", value)).version for value in ("a", "b", "b", "a")]

    assert versions == [1, 2, 2, 3]
    assert await bench.value("k") == "a"
    assert await bench.value("k", version=2) == "b"


async def test_an_empty_value_is_a_value(bench: Bench) -> None:
    await bench.put("k", "")

    assert await bench.value("k") == ""


async def test_any_text_is_kept_exactly(bench: Bench) -> None:
    texts = ["ü🦆", "line\r\nend\t", " padded ", "a" * 1024 * 1024, "'; DROP TABLE kv_versions; --", "\x1b[0m\x7f\ufeff"]

    for number, text in enumerate(texts):
        await bench.put(f"k{number}", text)

    assert [await bench.value(f"k{number}") for number in range(len(texts))] == texts


async def test_a_deleted_key_is_absent_and_its_history_remains(bench: Bench) -> None:
    await bench.put("k", "a")

    assert (await bench.delete("k")).version == 2
    assert await bench.value("k") is None
    assert await bench.value("k", version=1) == "a"
    assert await bench.value("k", version=2) is None
    assert (await bench.put("k", "a")).version == 3


@pytest.mark.parametrize("secret", [False, True])
async def test_what_is_absent_cannot_be_deleted(bench: Bench, secret: bool) -> None:
    with pytest.raises(KeyNotFound):
        await bench.delete("k", secret=secret)


async def test_an_entry_is_absent_from_the_moment_it_expires(bench: Bench, clock: ShiftedClock) -> None:
    await bench.put("k", "a", ttl=timedelta(hours=1))
    await bench.put("forever", "a")
    clock.advance(timedelta(minutes=59))
    assert await bench.value("k") == "a"

    clock.advance(timedelta(minutes=1))

    assert await bench.value("k") is None
    assert await bench.value("k", version=1) is None
    keys = await bench.kv.database.read(lambda tx: store.list_keys(tx, bench.bucket_id, VARS))
    entries, _ = await bench.kv.database.read(lambda tx: store.list_entries(tx, bench.bucket_id, "", limit=9, after=None))
    assert keys == ["forever"]
    assert [entry.key for entry in entries] == ["forever"]
    assert (await bench.put("k", "a", condition=Precondition(version=None))).version == 2


async def test_an_equal_value_with_a_new_ttl_moves_the_expiry_and_not_the_version(bench: Bench, clock: ShiftedClock) -> None:
    first = await bench.put("k", "a", ttl=timedelta(hours=1))
    clock.advance(timedelta(minutes=50))

    second = await bench.put("k", "a", ttl=timedelta(hours=1))

    assert second.version == first.version
    assert second.revision > first.revision
    clock.advance(timedelta(minutes=50))
    assert await bench.value("k") == "a"
    await bench.put("k", "a")
    clock.advance(timedelta(days=1))
    assert await bench.value("k") == "a"


async def test_a_precondition_decides_a_race(bench: Bench) -> None:
    await bench.put("k", "a", condition=Precondition(version=None))
    await bench.put("k", "b", condition=Precondition(version=1))

    for condition in (Precondition(version=None), Precondition(version=1), Precondition(version=3)):
        with pytest.raises(KvPreconditionLost) as caught:
            await bench.put("k", "c", condition=condition)
        assert caught.value.facts == {"current_version": 2}
    with pytest.raises(KvPreconditionLost):
        await bench.delete("k", condition=Precondition(version=1))
    assert (await bench.delete("k", condition=Precondition(version=2))).version == 3


async def test_of_many_at_once_exactly_one_creates_a_key(bench: Bench) -> None:
    outcomes = await asyncio.gather(
        *(bench.put("k", f"{number}", condition=Precondition(version=None)) for number in range(50)), return_exceptions=True
    )

    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert all(isinstance(outcome, KvPreconditionLost) for outcome in outcomes if isinstance(outcome, Exception))


async def test_a_counter_kept_with_if_version_counts_exactly(bench: Bench) -> None:
    async def add_one() -> None:
        while True:
            entry = await bench.kv.get(bench.bucket_id, VARS, "counter")
            try:
                await bench.put("counter", str(int(entry.value or 0) + 1), condition=Precondition(version=entry.version))
            except KvPreconditionLost:
                continue
            return

    await bench.put("counter", "0")
    await asyncio.gather(*(add_one() for _ in range(40)))

    assert await bench.value("counter") == "40"


async def test_two_writes_to_one_key_in_one_batch_make_two_versions(bench: Bench) -> None:
    written = await asyncio.gather(*(bench.put("k", f"{number}", ttl=timedelta(hours=number % 2)) for number in range(20)))

    assert sorted(each.version for each in written) == list(range(1, 21))
    assert len({each.revision for each in written}) == 20
    values = [await bench.value("k", version=version) for version in range(1, 21)]
    assert sorted(values, key=lambda value: int(value or -1)) == [str(number) for number in range(20)]


async def test_a_repeated_request_returns_the_first_outcome(bench: Bench) -> None:
    first = await bench.put("k", "a", request_id="q1")
    await bench.put("k", "b")

    assert await bench.put("k", "a", request_id="q1") == first
    assert await bench.value("k") == "b"
    together = await asyncio.gather(*(bench.put("k", "c", request_id="q2") for _ in range(5)))
    assert len(set(together)) == 1
    with pytest.raises(InvalidArgument):
        await bench.put("other", "a", request_id="q1")


async def test_a_repeated_delete_is_answered_as_the_first(bench: Bench) -> None:
    await bench.put("k", "a")
    first = await bench.delete("k", request_id="q1")

    assert await bench.delete("k", request_id="q1") == first


async def test_a_request_is_forgotten_after_a_day(bench: Bench, clock: ShiftedClock) -> None:
    await bench.put("k", "a", request_id="q1")
    clock.advance(timedelta(days=2))
    await bench.put("other", "a", request_id="q2")
    await bench.put("k", "b")

    assert (await bench.put("k", "a", request_id="q1")).version == 3


async def test_nothing_is_written_for_a_bucket_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.kv.write(a_write(NOWHERE))


async def test_a_write_that_is_refused_disturbs_nobody_in_its_batch(bench: Bench) -> None:
    outcomes = await asyncio.gather(
        bench.put("a", "1"),
        bench.delete("none"),
        bench.put("b", "2", condition=Precondition(version=7)),
        bench.kv.write(a_write(NOWHERE)),
        bench.put("c", "3"),
        return_exceptions=True,
    )

    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Written",
        "KeyNotFound",
        "KvPreconditionLost",
        "NotFound",
        "Written",
    ]


async def test_listing_pages_by_names_and_leaves_out_secrets_and_what_is_absent(bench: Bench) -> None:
    for name in ("vars/job/b", "vars/job/a", "vars/job/a/x", "vars/jobs"):
        for key in ("z", "a", "m"):
            await bench.put(key, name, namespace=name)
    await bench.delete("m", namespace="vars/job/a")
    await bench.put("s", "hidden", namespace=SECRETS, secret=True)

    pages: list[list[tuple[str, str]]] = []
    after: tuple[str, str] | None = None
    while True:
        at = after
        page, more = await bench.kv.database.read(
            lambda tx, at=at: store.list_entries(tx, bench.bucket_id, "vars/job", limit=2, after=at)  # type: ignore[misc]
        )
        pages.append([(entry.namespace, entry.key) for entry in page])
        if not more:
            break
        after = pages[-1][-1]

    names = [name for page in pages for name in page]
    assert [len(page) for page in pages] == [2, 2, 2, 2]
    assert names == sorted(names)
    assert ("vars/job/a", "m") not in names
    assert {namespace for namespace, _ in names} == {"vars/job/a", "vars/job/a/x", "vars/job/b"}


async def test_a_page_of_large_values_is_cut_by_size(bench: Bench) -> None:
    for number in range(12):
        await bench.put(f"k{number:02}", f"{number}" + "x" * 1_000_000)

    page, more = await bench.kv.database.read(lambda tx: store.list_entries(tx, bench.bucket_id, "", limit=1000, after=None))

    assert more
    assert len(page) == 9


async def test_names_are_listed_in_the_order_of_their_bytes_on_every_database(bench: Bench) -> None:
    keys = ["a", "B", "b", "_", "ä", "Z", "a b", "a-b", "é", "0"]
    for key in keys:
        await bench.put(key, "v")

    assert await bench.kv.database.read(lambda tx: store.list_keys(tx, bench.bucket_id, VARS)) == sorted(keys)


async def test_the_history_of_a_key_is_listed_newest_first(bench: Bench) -> None:
    for value in ("a", "b", None, "c"):
        await bench.put("k", value)

    page, more = await bench.kv.database.read(
        lambda tx: store.list_versions(tx, bench.bucket_id, VARS, "k", limit=3, before=None)
    )
    rest, end = await bench.kv.database.read(lambda tx: store.list_versions(tx, bench.bucket_id, VARS, "k", limit=3, before=2))

    assert [(entry.version, entry.value, entry.is_tombstone) for entry in page] == [
        (4, "c", False),
        (3, None, True),
        (2, "b", False),
    ]
    assert [entry.version for entry in rest] == [1]
    assert (more, end) == (True, False)


async def test_changes_are_told_in_revision_order_below_a_prefix(bench: Bench) -> None:
    for number in range(3):
        await bench.put("k", f"{number}")
        await bench.put("k", f"{number}", namespace="vars/job/web")
    await bench.delete("k")

    changes, told = await bench.kv.database.read(lambda tx: store.list_changes(tx, bench.bucket_id, VARS, 0))
    after, _ = await bench.kv.database.read(lambda tx: store.list_changes(tx, bench.bucket_id, VARS, changes[1].revision))

    assert [entry.value for entry in changes] == ["0", "1", "2", None]
    assert [entry.revision for entry in changes] == sorted(entry.revision for entry in changes)
    assert after == changes[2:]
    assert told == changes[-1].revision


async def test_a_watch_cannot_resume_from_the_future(bench: Bench) -> None:
    await bench.put("k", "a")

    with pytest.raises(OutOfRange):
        await bench.kv.database.read(lambda tx: store.list_changes(tx, bench.bucket_id, "", 1000))


async def test_a_namespace_of_ten_thousand_keys_is_listed_whole(bench: Bench) -> None:
    await asyncio.gather(*(bench.put(f"k{number:05}", f"{number}") for number in range(10_000)))

    keys = await bench.kv.database.read(lambda tx: store.list_keys(tx, bench.bucket_id, VARS))

    assert keys == [f"k{number:05}" for number in range(10_000)]


async def test_two_replicas_hand_out_revisions_that_become_visible_in_order(open_replica: OpenReplica, tmp_path: Path) -> None:
    replicas = [await open_replica(), await open_replica()]
    keyring, bucket_id = a_keyring(tmp_path), await a_bucket(replicas[0])
    benches = [Bench(KvStore.on(replica, keyring), bucket_id) for replica in replicas]
    seen: list[int] = []
    done = asyncio.Event()

    async def watch() -> None:
        told = 0
        while not (done.is_set() and told == await replicas[0].read(lambda tx: store.read_revision(tx, bucket_id))):
            after = told
            entries, told = await replicas[0].read(
                lambda tx, after=after: store.list_changes(tx, bucket_id, "", after)  # type: ignore[misc]
            )
            seen.extend(entry.revision for entry in entries)

    watching = asyncio.create_task(watch())
    written = await asyncio.gather(*(benches[number % 2].put(f"k{number}", "v") for number in range(400)))
    done.set()
    await watching

    assert seen == sorted(each.revision for each in written)


async def test_a_counter_is_exact_across_two_replicas(open_replica: OpenReplica, tmp_path: Path) -> None:
    replicas = [await open_replica(), await open_replica()]
    keyring, bucket_id = a_keyring(tmp_path), await a_bucket(replicas[0])
    benches = [Bench(KvStore.on(replica, keyring), bucket_id) for replica in replicas]
    await benches[0].put("counter", "0")

    async def add_one(bench: Bench) -> None:
        while True:
            entry = await bench.kv.get(bucket_id, VARS, "counter")
            try:
                await bench.put("counter", str(int(entry.value or 0) + 1), condition=Precondition(version=entry.version))
            except KvPreconditionLost:
                continue
            return

    await asyncio.gather(*(add_one(benches[number % 2]) for number in range(50)))

    assert await benches[1].value("counter") == "50"
