"""Content on disk: fetched once, verified before it is used, and not to be spoilt by whoever gets a copy."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from maand_executor.catalog_client import BlobPiece
from maand_executor.content.content_store import SETTLED, ContentDamaged, ContentStore, TreeEntry
from tests.unit.executor.fake_catalog import FakeCatalog

FILES: dict[str, str | bytes] = {"Makefile": "start:\n\ttrue\n", "conf/app.toml": "a = 1\n", "bin/tool": b"\x7fELF", "empty": b""}


@pytest.fixture
def catalog() -> FakeCatalog:
    catalog = FakeCatalog()
    catalog.add_job("api", FILES, modes={"bin/tool": 0o755})
    return catalog


@pytest.fixture
def store(tmp_path: Path, catalog: FakeCatalog) -> ContentStore:
    return ContentStore(tmp_path / "blobs", catalog)


def tree(catalog: FakeCatalog) -> list[TreeEntry]:
    return [TreeEntry(path=file.path, mode=file.mode, sha256=file.sha256) for file in catalog.files["api"]]


def digests(catalog: FakeCatalog) -> list[bytes]:
    return [file.sha256 for file in catalog.files["api"]]


def link_counts(directory: Path) -> set[int]:
    """Return how many names the files below a directory have."""
    return {path.stat().st_nlink for path in directory.rglob("*") if path.is_file()}


async def test_a_tree_has_the_content_and_permission_bits_it_was_stored_with(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path
) -> None:
    await store.ensure("bucket", digests(catalog))
    store.materialise(tree(catalog), tmp_path / "tree")
    assert (tmp_path / "tree/bin/tool").read_bytes() == b"\x7fELF"
    assert (tmp_path / "tree/conf/app.toml").read_text() == "a = 1\n"
    assert oct((tmp_path / "tree/bin/tool").stat().st_mode) == "0o100755"
    assert oct((tmp_path / "tree/Makefile").stat().st_mode) == "0o100644"


async def test_trees_have_the_same_modes_whatever_the_umask(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = os.umask(0o077)
    request.addfinalizer(lambda: os.umask(before))
    await store.ensure("bucket", digests(catalog))
    own = [TreeEntry(path="deep/down/own", data=b"x", mode=0o666), TreeEntry(path="deep/link", link_target="down")]
    store.materialise([*tree(catalog), *own], tmp_path / "tree")
    modes = {path.name: f"{path.lstat().st_mode & 0o777:o}" for path in (tmp_path / "tree").rglob("*")}
    assert {modes[name] for name in ("conf", "bin", "deep", "down", "tool")} == {"755"}
    assert {modes[name] for name in ("Makefile", "app.toml", "empty")} == {"644"}
    assert modes["own"] == "666"


async def test_directories_have_the_modes_they_were_built_with_also_those_that_may_not_be_written_to(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    before = os.umask(0)
    request.addfinalizer(lambda: os.umask(before))
    await store.ensure("bucket", digests(catalog))
    own = [
        TreeEntry(path="sealed", mode=0o500, directory=True),
        TreeEntry(path="sealed/deep", mode=0o700, directory=True),
        TreeEntry(path="sealed/deep/file", data=b"x"),
        TreeEntry(path="spool", mode=0o755, directory=True),
        TreeEntry(path="implied/file", data=b"x"),
    ]
    store.materialise([*tree(catalog), *own], tmp_path / "tree")
    modes = {
        name: f"{(tmp_path / 'tree' / name).stat().st_mode & 0o777:o}" for name in ("sealed", "sealed/deep", "spool", "implied")
    }
    assert modes == {"sealed": "500", "sealed/deep": "700", "spool": "755", "implied": "755"}
    assert (tmp_path / "tree/sealed/deep/file").read_bytes() == b"x"


async def test_trees_are_copies_that_share_nothing_with_the_store_or_each_other(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path
) -> None:
    await store.ensure("bucket", digests(catalog))
    for name in ("one", "two"):
        store.materialise(tree(catalog), tmp_path / name)
    assert link_counts(tmp_path) == {1}


async def test_trees_that_nobody_writes_to_share_one_copy_which_the_store_has_no_part_in(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path
) -> None:
    await store.ensure("bucket", digests(catalog))
    (tmp_path / "shared").mkdir()
    for name in ("one", "two"):
        store.materialise(tree(catalog), tmp_path / name, shared=tmp_path / "shared")
    assert (tmp_path / "one/Makefile").stat().st_ino == (tmp_path / "two/Makefile").stat().st_ino
    assert oct((tmp_path / "two/bin/tool").stat().st_mode) == "0o100755"
    assert link_counts(tmp_path / "blobs") == {1}


async def test_one_content_with_two_modes_has_both_in_one_tree(store: ContentStore, catalog: FakeCatalog, tmp_path: Path) -> None:
    await store.ensure("bucket", digests(catalog))
    (tmp_path / "shared").mkdir()
    digest = digests(catalog)[0]
    entries = [TreeEntry(path=f"{mode:o}", mode=mode, sha256=digest) for mode in (0o444, 0o644, 0o755, 0o600)]
    store.materialise(entries, tmp_path / "tree", shared=tmp_path / "shared")
    assert [f"{path.stat().st_mode & 0o777:o}" for path in sorted((tmp_path / "tree").iterdir())] == ["444", "600", "644", "755"]


async def test_a_tree_can_be_made_where_no_links_are_possible(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(31, "Too many links")

    await store.ensure("bucket", digests(catalog))
    (tmp_path / "shared").mkdir()
    monkeypatch.setattr("os.link", refuse)
    monkeypatch.setattr("os.copy_file_range", refuse)
    store.materialise(tree(catalog), tmp_path / "tree", shared=tmp_path / "shared")
    assert (tmp_path / "tree/Makefile").read_text() == FILES["Makefile"]
    assert oct((tmp_path / "tree/bin/tool").stat().st_mode) == "0o100755"


async def test_content_is_fetched_once_however_many_ask_at_the_same_time(store: ContentStore, catalog: FakeCatalog) -> None:
    await asyncio.gather(*(store.ensure("bucket", digests(catalog)) for _ in range(20)))
    await store.ensure("bucket", digests(catalog))
    assert catalog.blob_reads == 1


async def test_content_survives_a_restart(store: ContentStore, catalog: FakeCatalog, tmp_path: Path) -> None:
    await store.ensure("bucket", digests(catalog))
    await ContentStore(tmp_path / "blobs", catalog).ensure("bucket", digests(catalog))
    assert catalog.blob_reads == 1


def overwrite(stored: Path) -> None:
    """Change every byte, then put size, times and mode back."""
    before = stored.stat()
    stored.chmod(0o600)
    stored.write_bytes(b"?" * before.st_size)
    stored.chmod(before.st_mode)
    os.utime(stored, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(stored: Path) -> None:
    """Leave the name without the bytes, as a power cut does."""
    before = stored.stat()
    stored.chmod(0o600)
    os.truncate(stored, 0)
    os.utime(stored, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_link(stored: Path) -> None:
    """Put a link to another file there."""
    other = stored.with_name("other")
    other.write_bytes(b"other")
    stored.unlink()
    stored.symlink_to(other)


DAMAGES: list[Callable[[Path], None]] = [overwrite, cut, replace_by_link, Path.unlink]


async def settle(store: ContentStore, catalog: FakeCatalog) -> None:
    """Have the content known to be right, so that it is not hashed any more as long as it is left alone."""
    newest = max(store.path(digest).stat().st_ctime for digest in digests(catalog))
    while time.time() - newest <= SETTLED.total_seconds():  # noqa: ASYNC110 - nothing announces that time has passed
        await asyncio.sleep(0.01)
    await store.ensure("bucket", digests(catalog))


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_stored_content_that_was_damaged_is_noticed_and_fetched_anew(
    store: ContentStore,
    catalog: FakeCatalog,
    tmp_path: Path,
    damage: Callable[[Path], None],
    settled: bool,
    restarted: bool,
) -> None:
    await store.ensure("bucket", digests(catalog))
    if settled:
        await settle(store, catalog)
    damage(store.path(hashlib.sha256(b"a = 1\n").digest()))
    if restarted:
        store = ContentStore(tmp_path / "blobs", catalog)
    await store.ensure("bucket", digests(catalog))
    store.materialise(tree(catalog), tmp_path / "tree")
    assert (tmp_path / "tree/conf/app.toml").read_text() == "a = 1\n"
    assert catalog.blob_reads == 2


@pytest.mark.parametrize("damage", [overwrite, cut])
async def test_damaged_content_is_used_for_nothing(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    await store.ensure("bucket", digests(catalog))
    await settle(store, catalog)
    digest = hashlib.sha256(b"a = 1\n").digest()
    damage(store.path(digest))
    (tmp_path / "shared").mkdir()
    for shared in (None, tmp_path / "shared"):
        with pytest.raises(ContentDamaged, match=r"does not hold the content it is named after.*run it again"):
            store.materialise([TreeEntry(path="app.toml", sha256=digest)], tmp_path / "tree", shared=shared)
    with pytest.raises(ContentDamaged):
        store.read(digest)
    assert not (tmp_path / "tree/app.toml").exists()
    assert not list((tmp_path / "shared").iterdir())


async def test_content_that_comes_damaged_again_is_a_clear_error(store: ContentStore, catalog: FakeCatalog) -> None:
    await store.ensure("bucket", digests(catalog))
    digest = digests(catalog)[0]
    overwrite(store.path(digest))
    catalog.blobs[digest] = b"wrong here too"
    with pytest.raises(ContentDamaged, match=f"the catalog sent content that is not {digest.hex()}"):
        await store.ensure("bucket", digests(catalog))


async def test_content_that_is_left_alone_is_hashed_once_however_often_it_is_used(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.ensure("bucket", digests(catalog))
    await settle(store, catalog)

    def refuse(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr("hashlib.file_digest", refuse)
    for number in range(100):
        await store.ensure("bucket", digests(catalog))
        store.materialise(tree(catalog), tmp_path / str(number))


async def test_content_that_was_written_a_moment_ago_is_hashed_each_time_because_a_second_write_would_not_show(
    store: ContentStore, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[object] = []

    def count(file: BinaryIO, name: str) -> object:
        hashed.append(file)
        return hashlib.new(name, file.read())

    monkeypatch.setattr("hashlib.file_digest", count)
    monkeypatch.setattr("maand_executor.content.content_store.SETTLED", timedelta(hours=1))
    for _ in range(3):
        await store.ensure("bucket", digests(catalog))
    assert len(hashed) == 2 * len(FILES), "the first found nothing to hash, and fetched"


async def test_what_was_made_here_is_kept_under_its_digest(store: ContentStore) -> None:
    digest = hashlib.sha256(b"rendered").digest()
    store.keep(b"rendered")
    overwrite(store.path(digest))
    store.keep(b"rendered")
    assert store.read(digest) == b"rendered"


async def test_content_that_does_not_match_its_digest_is_refused_and_not_kept(store: ContentStore, catalog: FakeCatalog) -> None:
    digest = hashlib.sha256(b"right").digest()
    catalog.blobs[digest] = b"wrong"
    with pytest.raises(ContentDamaged):
        await store.ensure("bucket", [digest])
    assert not store.path(digest).exists()


class BreakingCatalog(FakeCatalog):
    """Breaks its first stream in the middle and begins that content anew, as the catalog client does."""

    async def read_blobs(self, bucket_id: str, digests: Sequence[bytes]) -> AsyncIterator[BlobPiece]:
        first = digests[0]
        yield BlobPiece(sha256=first, offset=0, data=self.blobs[first][:2], last=False)
        async for piece in super().read_blobs(bucket_id, digests):
            yield piece


async def test_a_content_that_begins_anew_replaces_what_came_before(tmp_path: Path) -> None:
    catalog = BreakingCatalog()
    catalog.add_job("api", FILES)
    store = ContentStore(tmp_path / "blobs", catalog)
    await store.ensure("bucket", digests(catalog))
    assert store.read(digests(catalog)[0]) == catalog.blobs[digests(catalog)[0]]


class HangingCatalog(FakeCatalog):
    """Never answers the first question."""

    async def read_blobs(self, bucket_id: str, digests: Sequence[bytes]) -> AsyncIterator[BlobPiece]:
        self.blob_reads += 1
        if self.blob_reads == 1:
            await asyncio.Event().wait()
        async for piece in super().read_blobs(bucket_id, digests):
            yield piece


async def test_who_waited_for_a_cancelled_fetch_fetches_by_itself(tmp_path: Path) -> None:
    catalog = HangingCatalog()
    catalog.add_job("api", FILES)
    store = ContentStore(tmp_path / "blobs", catalog)
    first = asyncio.create_task(store.ensure("bucket", digests(catalog)))
    while not catalog.blob_reads:  # noqa: ASYNC110 - the fake sets no event
        await asyncio.sleep(0.001)
    second = asyncio.create_task(store.ensure("bucket", digests(catalog)))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert store.path(digests(catalog)[0]).exists()
    assert not list((tmp_path / "blobs/incoming").iterdir())


async def test_bytes_of_ones_own_are_written_and_never_stored(store: ContentStore, tmp_path: Path) -> None:
    store.materialise([TreeEntry(path="certs/tls.key", data=b"secret", mode=0o600)], tmp_path / "tree")
    assert (tmp_path / "tree/certs/tls.key").read_bytes() == b"secret"
    assert oct((tmp_path / "tree/certs/tls.key").stat().st_mode) == "0o100600"
    assert [path.name for path in (tmp_path / "blobs").rglob("*")] == ["incoming"]


async def test_symbolic_links_are_made_as_they_were(store: ContentStore, tmp_path: Path) -> None:
    store.materialise([TreeEntry(path="a/link", link_target="../b")], tmp_path / "tree")
    assert (tmp_path / "tree/a/link").readlink() == Path("../b")


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../outside"])
async def test_a_path_that_leaves_the_tree_is_refused(store: ContentStore, tmp_path: Path, path: str) -> None:
    with pytest.raises(ContentDamaged):
        store.materialise([TreeEntry(path=path, data=b"x")], tmp_path / "tree")


async def test_what_was_not_used_for_long_is_pruned_and_what_is_used_stays(store: ContentStore, catalog: FakeCatalog) -> None:
    await store.ensure("bucket", digests(catalog))
    await settle(store, catalog)
    for digest in digests(catalog):
        os.utime(store.path(digest), (0, 0))
    used = digests(catalog)[0]
    await store.ensure("bucket", [used])
    assert store.prune(timedelta(days=2)) == len(FILES) - 1
    assert store.path(used).exists()
    assert catalog.blob_reads == 1


async def test_leftovers_of_a_killed_executor_are_removed(catalog: FakeCatalog, tmp_path: Path) -> None:
    (tmp_path / "blobs/incoming").mkdir(parents=True)
    (tmp_path / "blobs/incoming/tmpabc").write_text("half")
    ContentStore(tmp_path / "blobs", catalog)
    assert not list((tmp_path / "blobs/incoming").iterdir())
