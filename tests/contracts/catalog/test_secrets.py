"""Secrets at rest on both databases: encrypted, bound to their place, rotated while serving, masked."""

import asyncio
import base64
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from maand_catalog.database.database import Database
from maand_catalog.sealing.keyring import CannotDecrypt, Keyring, Plaintext
from maand_catalog.store.kv import entries as store
from maand_catalog.store.kv import secrets
from maand_catalog.store.kv.batched_store import KvStore
from maand_catalog.store.kv.bulk import merge_namespaces, trim_history
from maand_catalog.store.kv.secrets import MaskPage, Rotated
from maand_catalog.store.tables.kv import kv_versions
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.kv_builders import SECRETS, Bench, a_keyring
from tests.contracts.catalog.run_builders import a_bucket
from tests.testbed.postgres import PostgresCluster

KNOWN = "hunter2-hunter2-hunter2-hunter2"


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(KvStore.on(database, a_keyring(tmp_path)), await a_bucket(database))


async def put(bench: Bench, key: str, value: str | None, **more: object) -> int:
    return (await bench.put(key, value, namespace=SECRETS, secret=True, **more)).version


async def rotate(bench: Bench, *, after: int = 0) -> Rotated:
    return await bench.kv.database.write(
        lambda tx: secrets.rotate_page(tx, bench.kv.keyring, bench.bucket_id, after_revision=after, actor="ada")
    )


async def mask_page(bench: Bench, after: int = 0, *, whole: bool = True) -> MaskPage:
    return await bench.kv.database.read(
        lambda tx: secrets.read_mask_page(tx, bench.kv.keyring, bench.bucket_id, after, whole=whole)
    )


async def masks_after(bench: Bench, after: int = 0) -> tuple[int, list[str]]:
    """Read page after page, as one stream does; return the revision reached and the values."""
    values, whole = set[str](), not after
    while True:
        page = await mask_page(bench, after, whole=whole)
        values |= page.values
        after = page.revision
        if not page.more:
            return after, sorted(values)


async def test_a_secret_is_read_back_and_an_equal_one_is_no_new_version(bench: Bench) -> None:
    assert [await put(bench, "token", value) for value in ("a", "a", "b", "")] == [1, 1, 2, 3]
    assert await bench.value("token", namespace=SECRETS, version=2) == "b"
    assert await bench.value("token", namespace=SECRETS) == ""


async def test_an_entry_of_a_secret_carries_no_plaintext(bench: Bench) -> None:
    await put(bench, "token", KNOWN)

    entry = await bench.kv.get(bench.bucket_id, SECRETS, "token")

    assert entry.value is None
    assert KNOWN not in repr(entry)


@pytest.mark.parametrize("moved", [{"key": "other"}, {"namespace": "secrets/job/web"}, {"version": 9}])
async def test_a_ciphertext_that_was_moved_does_not_open(bench: Bench, moved: dict[str, object]) -> None:
    await put(bench, "token", KNOWN)
    await bench.kv.database.write(lambda tx: tx.connection.execute(update(kv_versions).values(moved)))
    place = {"namespace": SECRETS, "key": "token", **moved}

    entry = await bench.kv.get(bench.bucket_id, str(place["namespace"]), str(place["key"]))

    with pytest.raises(CannotDecrypt):
        entry.text(bench.kv.keyring)


async def test_a_secret_whose_key_is_lost_can_be_written_anew(bench: Bench, tmp_path: Path) -> None:
    await put(bench, "token", KNOWN)
    (tmp_path / "kv.key").unlink()
    bench = Bench(KvStore.on(bench.kv.database, a_keyring(tmp_path, "k2")), bench.bucket_id)

    with pytest.raises(CannotDecrypt):
        await bench.value("token", namespace=SECRETS)
    assert await put(bench, "token", KNOWN) == 2
    assert await bench.value("token", namespace=SECRETS) == KNOWN


async def test_masks_change_with_every_secret_and_hold_old_versions_until_they_are_trimmed(
    bench: Bench, clock: ShiftedClock
) -> None:
    assert await masks_after(bench) == (0, [])
    for number in range(9):
        await put(bench, "token", f"value {number}")
    await put(bench, "empty", "")
    await bench.put("k", "no secret")

    revision, values = await masks_after(bench)

    assert values == [f"value {number}" for number in range(9)]
    assert await masks_after(bench, revision) == (revision, [])
    await put(bench, "token", None)
    clock.advance(timedelta(days=40))
    await bench.kv.database.write(lambda tx: trim_history(tx, bench.bucket_id, retain=timedelta(days=30)))
    assert (await masks_after(bench))[1] == [f"value {number}" for number in range(3, 9)]


async def test_a_secret_written_before_the_question_is_in_the_answer(bench: Bench) -> None:
    known = 0
    for number in range(20):
        await put(bench, f"token{number}", f"value {number}")
        known, values = await masks_after(bench, known)
        assert values == [f"value {number}"]


@pytest.mark.parametrize("whole", [True, False])
async def test_masks_come_page_by_page_and_none_slips_between_two_when_an_expiry_is_moved(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(secrets, "PAGE_BYTES", 300)
    await put(bench, "first", "first", ttl=timedelta(hours=1))
    for number in range(20):
        await put(bench, f"token{number}", f"value {number}", ttl=timedelta(hours=1))
        await bench.put(f"k{number}", "no secret")
    page = await mask_page(bench, 0, whole=whole)
    seen, moved = set(page.values), page.revision

    while page.more:
        moved += 1
        await put(bench, "token19", "value 19", ttl=timedelta(hours=2, seconds=moved))  # now the newest revision of all
        page = await mask_page(bench, page.revision, whole=whole)
        assert len(page.values) < 20
        seen |= page.values

    assert seen == {"first", *(f"value {number}" for number in range(20))}
    assert await masks_after(bench, page.revision) == (page.revision, [])


@pytest.mark.parametrize("whole", [True, False])
async def test_a_value_larger_than_a_page_is_a_page_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(secrets, "PAGE_BYTES", 300)
    values = [f"{number}" * size for number, size in enumerate((10, 1_000, 20, 5_000, 5_000))]
    for number, value in enumerate(values):
        await put(bench, f"token{number}", value)

    pages = [await mask_page(bench, 0, whole=whole)]
    while pages[-1].more:
        pages.append(await mask_page(bench, pages[-1].revision, whole=whole))

    assert [page.values for page in pages] == [frozenset({value}) for value in values]


async def test_a_caller_ahead_of_a_restored_database_gets_every_mask(bench: Bench) -> None:
    await put(bench, "token", KNOWN)
    revision, _ = await masks_after(bench)

    assert await masks_after(bench, revision + 100) == (revision, [KNOWN])
    assert await masks_after(bench, 2**64 - 1) == (revision, [KNOWN])


async def lose_key(bench: Bench, directory: Path, *key_ids: str) -> Bench:
    """Replace the key file; what was encrypted before cannot be opened any more."""
    (directory / "kv.key").unlink()
    return Bench(KvStore.on(bench.kv.database, a_keyring(directory, *key_ids)), bench.bucket_id)


async def test_versions_whose_key_is_lost_are_no_masks_and_are_named(bench: Bench, tmp_path: Path) -> None:
    for value in ("old one", "older than that"):
        await put(bench, "token", value)
    await put(bench, "deleted", "gone")
    await put(bench, "deleted", None)
    bench = await lose_key(bench, tmp_path, "k2")
    await put(bench, "token", KNOWN)
    await put(bench, "other", "other value")

    page = await mask_page(bench)

    assert page.values == {KNOWN, "other value"}
    named = [(entry.key, entry.version, entry.sealed and entry.sealed.key_id) for entry in page.unreadable]
    assert sorted(named) == [("deleted", 1, "k1"), ("token", 1, "k1"), ("token", 2, "k1")]
    assert await masks_after(bench, page.revision) == (page.revision, [])


async def test_a_moved_ciphertext_is_no_mask_and_stops_none_of_its_key(bench: Bench) -> None:
    await put(bench, "token", "somewhere else")
    await put(bench, "good", KNOWN)
    await bench.kv.database.write(
        lambda tx: tx.connection.execute(update(kv_versions).where(kv_versions.c.key == "token").values(key="moved"))
    )

    page = await mask_page(bench)

    assert page.values == {KNOWN}
    assert [entry.key for entry in page.unreadable] == ["moved"]


async def test_a_missing_key_is_looked_for_in_the_file_once_a_page(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        await put(bench, "token", f"value {number}")
    bench = await lose_key(bench, tmp_path, "k2")
    looks = 0
    reload = bench.kv.keyring.reload

    def counted() -> None:
        nonlocal looks
        looks += 1
        reload()

    monkeypatch.setattr(bench.kv.keyring, "reload", counted)

    assert len((await mask_page(bench)).unreadable) == 50
    assert looks == 1


async def test_rotation_goes_on_past_versions_whose_key_is_lost_and_names_them(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "ROTATED_AT_ONCE", 2)
    for key in ("lost", "lost too"):
        await put(bench, key, KNOWN)
    bench = await lose_key(bench, tmp_path, "k2")
    for key in ("lost", "kept", "kept too"):
        await put(bench, key, KNOWN)
    a_keyring(tmp_path, "k3")
    bench.kv.keyring.reload()

    pages = [await rotate(bench)]
    while pages[-1].next_revision is not None:
        pages.append(await rotate(bench, after=pages[-1].next_revision))

    unreadable = [(entry.key, entry.version) for page in pages for entry in page.unreadable]
    assert unreadable == [("lost", 1), ("lost too", 1)]
    assert (sum(page.rotated for page in pages), pages[-1].remaining) == (3, 2)
    assert [await bench.value(key, namespace=SECRETS) for key in ("lost", "kept", "kept too")] == [KNOWN] * 3
    assert await put(bench, "lost too", KNOWN) == 2


async def test_a_page_of_a_rotation_or_a_list_is_bounded_by_size_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE_BYTES", 2_000)
    for number in range(6):
        await put(bench, f"token{number}", f"{number}" * 1_000)

    listed, more = await bench.kv.database.read(
        lambda tx: store.list_entries(tx, bench.bucket_id, "secrets", limit=1_000, after=None, secrets=True)
    )

    assert ([entry.key for entry in listed], more) == (["token0", "token1"], True)


async def test_reading_a_secret_whose_key_is_lost_names_it_and_says_what_to_do(bench: Bench, tmp_path: Path) -> None:
    await put(bench, "token", KNOWN)
    bench = await lose_key(bench, tmp_path, "k2")

    with pytest.raises(CannotDecrypt) as caught:
        await bench.value("token", namespace=SECRETS)

    assert str(caught.value) == "secrets/job/api token version 1 cannot be opened: the key k1 is not in kv.key"
    assert "put the key it was encrypted with back" in caught.value.help
    assert "write a new version" in caught.value.help
    assert caught.value.facts["key_id"] == "k1"


async def test_private_keys_are_no_masks(bench: Bench) -> None:
    await bench.kv.database.write(
        lambda tx: merge_namespaces(
            tx,
            bench.kv.keyring,
            bucket_id=bench.bucket_id,
            wanted={"maand/job/api/worker/10.0.0.1": {"certs/web.key": Plaintext("pem")}},
            writer="build",
        )
    )
    await put(bench, "token", KNOWN)

    assert (await masks_after(bench))[1] == [KNOWN]


async def test_rotation_re_encrypts_every_version_in_place(bench: Bench, tmp_path: Path) -> None:
    for number in range(5):
        await put(bench, "token", f"value {number}")
    before = await bench.kv.database.read(lambda tx: ciphertexts(tx.connection))
    a_keyring(tmp_path, "k2")
    bench.kv.keyring.reload()

    assert await rotate(bench) == Rotated(rotated=5, remaining=0, next_revision=None)

    after = await bench.kv.database.read(lambda tx: ciphertexts(tx.connection))
    assert {key_id for key_id, _ in after} == {"k2"}
    assert not {data for _, data in before} & {data for _, data in after}
    assert [await bench.value("token", namespace=SECRETS, version=number + 1) for number in range(5)] == [
        f"value {number}" for number in range(5)
    ]
    assert await rotate(bench) == Rotated(rotated=0, remaining=0, next_revision=None)


async def test_an_interrupted_rotation_is_resumed_and_skips_what_is_done(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "ROTATED_AT_ONCE", 4)
    for number in range(10):
        await put(bench, f"token{number}", f"value {number}")
    a_keyring(tmp_path, "k2")
    bench.kv.keyring.reload()

    first = await rotate(bench)
    begun_anew = await rotate(bench)
    assert begun_anew.next_revision is not None
    last = await rotate(bench, after=begun_anew.next_revision)

    assert [first.rotated, begun_anew.rotated, last.rotated] == [4, 4, 2]
    assert (last.remaining, last.next_revision) == (0, None)


async def test_secrets_are_read_and_written_while_they_are_rotated(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "ROTATED_AT_ONCE", 7)
    for number in range(60):
        await put(bench, f"token{number}", "0")
    a_keyring(tmp_path, "k2")
    bench.kv.keyring.reload()
    rotating = asyncio.create_task(rotate_all(bench))
    rounds = 0

    while not rotating.done() or rounds == 0:
        rounds += 1
        await asyncio.gather(*(put(bench, f"token{number}", f"{rounds}") for number in range(60)))
        values = [await bench.value(f"token{number}", namespace=SECRETS) for number in range(60)]
        assert values == [f"{rounds}"] * 60

    await rotating
    assert (await rotate(bench)).remaining == 0


async def rotate_all(bench: Bench) -> None:
    page = await rotate(bench)
    while page.next_revision is not None:
        page = await rotate(bench, after=page.next_revision)


def ciphertexts(connection: object) -> set[tuple[str, bytes]]:
    rows = connection.execute(select(kv_versions.c.key_id, kv_versions.c.sealed).where(kv_versions.c.sealed.is_not(None)))  # type: ignore[attr-defined]
    return {(row.key_id, bytes(row.sealed)) for row in rows}


def test_the_bytes_of_a_secret_are_nowhere_in_the_database(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> None:
    asyncio.run(write_known_secret(database_url, a_keyring(tmp_path)))
    stored = database_bytes(request, database_url)

    assert b"vars/job/known" in stored
    for form in forms_of(KNOWN):
        assert form not in stored


async def write_known_secret(database_url: str, keyring: Keyring) -> None:
    database = await Database.open(database_url)
    bench = Bench(KvStore.on(database, keyring), await a_bucket(database))
    await put(bench, "token", KNOWN, request_id="q")
    await put(bench, "token", KNOWN + "2")
    await put(bench, "token", None)
    await bench.put("k", "v", namespace="vars/job/known")
    await bench.kv.database.write(lambda tx: store.read_revision(tx, bench.bucket_id))
    await database.close()


def database_bytes(request: pytest.FixtureRequest, database_url: str) -> bytes:
    """Return every byte that the database keeps in files, its log of changes included."""
    if database_url.startswith("sqlite"):
        path = Path(database_url.removeprefix("sqlite:///"))
        return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    cluster.execute("CHECKPOINT")
    return b"".join(file.read_bytes() for file in sorted(cluster.data.rglob("*")) if file.is_file())


def forms_of(secret: str) -> list[bytes]:
    raw = secret.encode()
    shifted = [base64.b64encode(b"x" * shift + raw)[4 : 4 + len(raw)] for shift in range(3)]
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), *shifted, raw.decode().encode("utf-16-le")]
