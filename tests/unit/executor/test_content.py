"""Content on disk: fetched once, verified, linked, and not to be spoilt by whoever gets a link."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from maand_executor.catalog_client import BlobPiece
from maand_executor.content import ContentDamaged, ContentStore, TreeEntry
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


async def test_a_tree_has_the_content_and_permission_bits_it_was_stored_with(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path
) -> None:
    await store.ensure("bucket", digests(catalog))
    store.materialise(tree(catalog), tmp_path / "tree")
    assert (tmp_path / "tree/bin/tool").read_bytes() == b"\x7fELF"
    assert (tmp_path / "tree/conf/app.toml").read_text() == "a = 1\n"
    assert oct((tmp_path / "tree/bin/tool").stat().st_mode) == "0o100755"
    assert oct((tmp_path / "tree/Makefile").stat().st_mode) == "0o100644"


async def test_two_trees_share_their_content(store: ContentStore, catalog: FakeCatalog, tmp_path: Path) -> None:
    await store.ensure("bucket", digests(catalog))
    for name in ("one", "two"):
        store.materialise(tree(catalog), tmp_path / name, read_only=True)
    assert (tmp_path / "one/Makefile").stat().st_ino == (tmp_path / "two/Makefile").stat().st_ino
    assert oct((tmp_path / "one/bin/tool").stat().st_mode) == "0o100555"


async def test_content_is_fetched_once_however_many_ask_at_the_same_time(store: ContentStore, catalog: FakeCatalog) -> None:
    await asyncio.gather(*(store.ensure("bucket", digests(catalog)) for _ in range(20)))
    await store.ensure("bucket", digests(catalog))
    assert catalog.blob_reads == 1


async def test_content_survives_a_restart(store: ContentStore, catalog: FakeCatalog, tmp_path: Path) -> None:
    await store.ensure("bucket", digests(catalog))
    await ContentStore(tmp_path / "blobs", catalog).ensure("bucket", digests(catalog))
    assert catalog.blob_reads == 1


async def test_content_that_somebody_wrote_to_through_a_link_is_fetched_anew(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path
) -> None:
    await store.ensure("bucket", digests(catalog))
    store.materialise(tree(catalog), tmp_path / "one", read_only=True)
    (tmp_path / "one/Makefile").chmod(0o644)
    (tmp_path / "one/Makefile").write_text("spoilt")
    await store.ensure("bucket", digests(catalog))
    store.materialise(tree(catalog), tmp_path / "two", read_only=True)
    assert (tmp_path / "two/Makefile").read_text() == FILES["Makefile"]


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
    await asyncio.sleep(0)
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


async def test_what_was_not_linked_for_long_is_pruned_and_what_is_in_use_stays(
    store: ContentStore, catalog: FakeCatalog, tmp_path: Path
) -> None:
    await store.ensure("bucket", digests(catalog))
    used = store.path(digests(catalog)[0])
    os.link(used, tmp_path / "in-use")
    assert store.prune(timedelta(days=1)) == 0
    assert store.prune(timedelta(seconds=-1)) == len(FILES) - 1
    assert used.exists()


async def test_leftovers_of_a_killed_executor_are_removed(catalog: FakeCatalog, tmp_path: Path) -> None:
    (tmp_path / "blobs/incoming").mkdir(parents=True)
    (tmp_path / "blobs/incoming/tmpabc").write_text("half")
    ContentStore(tmp_path / "blobs", catalog)
    assert not list((tmp_path / "blobs/incoming").iterdir())
