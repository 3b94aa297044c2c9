"""Buckets and their settings; contents that are stored once; trees whose id derives from what they hold."""

import hashlib
import json
from typing import Any

import pytest

from maand_catalog.rules.identity import Role
from maand_cli.local.workspace_scan import ScannedFile, compute_snapshot_id
from maand_contracts.catalog.v1 import bucket_pb2, workspace_pb2
from maand_contracts.catalog.v1.bucket_pb2_grpc import BucketServiceStub
from maand_contracts.catalog.v1.workspace_pb2_grpc import WorkspaceServiceStub
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.bucket_verbs import WORKSPACE, BucketClient, a_new_bucket, file_entry
from tests.contracts.catalog.serving import Metadata, ServedCatalog

MEBIBYTE = 1024 * 1024
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    return await a_new_bucket(catalog)


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def piece(bucket: BucketClient, sha256: bytes, data: bytes, *, last: bool = False) -> workspace_pb2.UploadBlobsRequest:
    return workspace_pb2.UploadBlobsRequest(bucket_id=bucket.bucket_id, sha256=sha256, data=data, last=last)


async def test_settings_are_kept_with_their_defaults(bucket: BucketClient) -> None:
    applied = await bucket.apply('ssh_port = 2222\nhost_keys = "accept-new"\nhook_env = ["HOME"]\n')

    found = await bucket.get()
    assert found == applied
    assert (found.config.ssh_port, found.config.ssh_user, found.config.worker_root) == (2222, "agent", "/opt/worker")
    assert found.config.host_keys == bucket_pb2.HOST_KEY_POLICY_ACCEPT_NEW
    assert list(found.config.hook_env) == ["HOME"]
    assert (found.built_by_run_id, found.HasField("built_at")) == ("", False)


async def test_wrong_settings_change_nothing_and_say_where(bucket: BucketClient) -> None:
    before = await bucket.get()

    with pytest.raises(RemoteError) as caught:
        await bucket.apply('ssh_port = 0\nuse_sudo = "yes"\n')

    assert (caught.value.status.name, caught.value.code) == ("INVALID_ARGUMENT", "invalid_config")
    assert [(problem.file, problem.line, problem.column) for problem in caught.value.problems] == [
        ("maand.conf", 2, 12),
        ("maand.conf", 3, 12),
    ]
    assert await bucket.get() == before


async def test_equal_settings_applied_again_change_nothing(bucket: BucketClient) -> None:
    before = await bucket.everything()

    await bucket.apply()

    assert await bucket.everything() == before


async def test_a_bucket_that_was_never_applied_is_not_found(catalog: ServedCatalog) -> None:
    with pytest.raises(RemoteError) as caught:
        await BucketClient(catalog=catalog, bucket_id=NOBODY).get()
    assert caught.value.status.name == "NOT_FOUND"


async def test_buckets_are_listed_oldest_first_page_by_page(catalog: ServedCatalog) -> None:
    made = [(await a_new_bucket(catalog)).bucket_id for _ in range(5)]
    client = BucketClient(catalog=catalog, bucket_id=made[0])

    seen: list[str] = []
    token = ""
    while True:
        with remote_errors():
            page = await client.buckets.ListBuckets(bucket_pb2.ListBucketsRequest(page_size=2, page_token=token))
        seen += [each.bucket_id for each in page.buckets]
        token = page.next_page_token
        if not token:
            break

    assert seen == made


@pytest.mark.parametrize("kind", bucket_pb2.UserFileKind.values()[1:])
async def test_schemas_are_served(bucket: BucketClient, kind: bucket_pb2.UserFileKind.ValueType) -> None:
    with remote_errors():
        response = await bucket.buckets.GetSchema(bucket_pb2.GetSchemaRequest(kind=kind))

    assert json.loads(response.json_schema)["$schema"].endswith("2020-12/schema")


async def test_a_content_is_asked_for_once(bucket: BucketClient) -> None:
    contents = [b"", b"one", b"two"]
    assert await bucket.missing(*contents) == [digest(content) for content in contents]

    first = await bucket.upload(b"", b"one")
    second = await bucket.upload(b"one", b"two")

    assert (first.blobs, first.bytes, second.blobs) == (2, 3, 1)
    assert await bucket.missing(*contents) == []
    assert await bucket.missing(b"three", b"one", b"three") == [digest(b"three")]


async def test_contents_come_back_in_pieces_and_in_order(bucket: BucketClient) -> None:
    large = bytes(range(256)) * 4096 * 3 + b"tail"
    pieces = [piece(bucket, digest(large), large[start : start + MEBIBYTE]) for start in range(0, len(large), MEBIBYTE)]
    pieces[-1].last = True
    await bucket.upload_pieces(pieces)
    small = [str(number).encode() for number in range(1200)]
    await bucket.upload(*small, b"")

    asked = [digest(small[0]), digest(large), digest(b""), *(digest(content) for content in small[1:])]
    found = await bucket.read(*asked)

    assert list(found) == asked
    assert found[digest(large)] == large
    assert found[digest(b"")] == b""
    assert all(found[digest(content)] == content for content in small)


async def test_an_unknown_content_is_not_found(bucket: BucketClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.read(digest(b"never uploaded"))
    assert caught.value.status.name == "NOT_FOUND"


async def test_a_content_with_another_digest_is_refused_and_those_before_it_stay(bucket: BucketClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.upload_pieces(
            [piece(bucket, digest(b"good"), b"good", last=True), piece(bucket, digest(b"x"), b"y", last=True)]
        )

    assert (caught.value.status.name, caught.value.code) == ("INVALID_ARGUMENT", "digest_mismatch")
    assert await bucket.missing(b"good", b"x", b"y") == [digest(b"x"), digest(b"y")]


@pytest.mark.parametrize(
    ("sizes", "code"),
    [([MEBIBYTE + 1], "limit_exceeded"), ([MEBIBYTE] * 64 + [1], "limit_exceeded")],
    ids=["a piece over 1 MiB", "a file over 64 MiB"],
)
async def test_what_is_too_large_is_refused(bucket: BucketClient, sizes: list[int], code: str) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.upload_pieces(piece(bucket, bytes(32), bytes(size)) for size in sizes)
    assert (caught.value.status.name, caught.value.code) == ("INVALID_ARGUMENT", code)


async def test_a_stream_that_ends_within_a_content_is_refused(bucket: BucketClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.upload_pieces([piece(bucket, digest(b"ab"), b"a")])
    assert caught.value.status.name == "INVALID_ARGUMENT"


async def test_a_content_that_begins_within_another_is_refused(bucket: BucketClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.upload_pieces([piece(bucket, digest(b"ab"), b"a"), piece(bucket, digest(b"c"), b"c", last=True)])
    assert caught.value.status.name == "INVALID_ARGUMENT"


async def test_equal_trees_are_one_snapshot_in_whatever_order(bucket: BucketClient) -> None:
    await bucket.upload(b"a", b"b")
    entries = [file_entry("x/1", b"a"), file_entry("y", b"b", mode=0o755)]

    first = await bucket.snapshot_of(entries)

    assert first == await bucket.snapshot_of(reversed(entries))
    assert first != await bucket.snapshot_of([file_entry("x/1", b"a"), file_entry("y", b"b", mode=0o644)])


async def test_a_snapshot_is_listed_by_path_and_its_id_is_what_a_client_computes(bucket: BucketClient) -> None:
    await bucket.upload(b"a", b"b")
    link = workspace_pb2.WorkspaceFile(path="jobs/api/current", mode=0o777, link_target="releases/1")
    directory = workspace_pb2.WorkspaceFile(path="jobs/api/spool", mode=0o700, directory=True)
    entries = [file_entry("y", b"b", mode=0o755), link, directory, file_entry("jobs/api/ü-1", b"a")]

    name = await bucket.snapshot_of(entries)

    request = workspace_pb2.GetSnapshotRequest(bucket_id=bucket.bucket_id, snapshot_id=name)
    listed = list((await bucket.workspaces.GetSnapshot(request)).files)
    assert listed == sorted(entries, key=lambda entry: entry.path)
    scanned = [
        ScannedFile(
            path=one.path,
            sha256=one.sha256,
            mode=one.mode,
            size=one.size,
            link_target=one.link_target,
            directory=one.directory,
        )
        for one in entries
    ]
    assert compute_snapshot_id(scanned) == name


async def test_an_unknown_snapshot_is_not_found(bucket: BucketClient) -> None:
    request = workspace_pb2.GetSnapshotRequest(bucket_id=bucket.bucket_id, snapshot_id="0" * 64)
    with pytest.raises(RemoteError) as caught, remote_errors():
        await bucket.workspaces.GetSnapshot(request)
    assert caught.value.status.name == "NOT_FOUND"


async def test_a_tree_whose_contents_are_missing_is_refused(bucket: BucketClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.snapshot_of([file_entry("x", b"never uploaded")])
    assert (caught.value.status.name, caught.value.code) == ("FAILED_PRECONDITION", "content_missing")


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (workspace_pb2.WorkspaceFile(path="/etc/passwd", sha256=bytes(32)), "bad_path"),
        (workspace_pb2.WorkspaceFile(path="a/../b", sha256=bytes(32)), "bad_path"),
        (workspace_pb2.WorkspaceFile(path="a//b", sha256=bytes(32)), "bad_path"),
        (workspace_pb2.WorkspaceFile(path="", sha256=bytes(32)), "bad_path"),
        (workspace_pb2.WorkspaceFile(path="a\nb", sha256=bytes(32)), "bad_path"),
        (workspace_pb2.WorkspaceFile(path="a" * 2000, sha256=bytes(32)), "bad_path"),
        (workspace_pb2.WorkspaceFile(path="a"), "bad_entry"),
        (workspace_pb2.WorkspaceFile(path="a", sha256=b"short"), "bad_entry"),
        (workspace_pb2.WorkspaceFile(path="a", link_target="x\ty"), "bad_link"),
        (workspace_pb2.WorkspaceFile(path="a", sha256=bytes(32), mode=0o4755), "bad_mode"),
        (workspace_pb2.WorkspaceFile(path="a", sha256=bytes(32), size=64 * MEBIBYTE + 1), "file_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_no_file_of_a_workspace_is_refused(
    bucket: BucketClient, entry: workspace_pb2.WorkspaceFile, code: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.snapshot_of([entry])
    assert (caught.value.status.name, caught.value.problems[0].code) == ("INVALID_ARGUMENT", code)


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a", "a/b")])
async def test_a_path_is_listed_once_and_as_one_thing(bucket: BucketClient, first: str, second: str) -> None:
    await bucket.upload(b"x")
    with pytest.raises(RemoteError) as caught:
        await bucket.snapshot_of([file_entry(first, b"x"), file_entry(second, b"x")])
    assert caught.value.status.name == "INVALID_ARGUMENT"


async def test_contents_of_one_bucket_are_not_those_of_another(bucket: BucketClient) -> None:
    other = await a_new_bucket(bucket.catalog)
    await bucket.upload(b"mine")

    assert await other.missing(b"mine") == [digest(b"mine")]
    with pytest.raises(RemoteError) as caught:
        await other.read(digest(b"mine"))
    assert caught.value.status.name == "NOT_FOUND"


async def test_each_call_needs_its_role(bucket: BucketClient) -> None:
    catalog = bucket.catalog
    viewer = await catalog.token_for(Role.VIEWER)
    gateway = await catalog.token_for(Role.GATEWAY)
    remote = BucketClient(catalog=catalog, bucket_id=bucket.bucket_id)
    channel = catalog.anonymous().channel
    snapshot_id = await bucket.snapshot(WORKSPACE)

    buckets, workspaces = BucketServiceStub(channel), WorkspaceServiceStub(channel)
    await buckets.GetBucket(bucket_pb2.GetBucketRequest(bucket_id=remote.bucket_id), metadata=viewer)
    refused: list[tuple[Any, Any, Metadata]] = [
        (buckets.GetBucket, bucket_pb2.GetBucketRequest(bucket_id=remote.bucket_id), gateway),
        (buckets.ApplyBucketConfig, bucket_pb2.ApplyBucketConfigRequest(bucket_id=remote.bucket_id), viewer),
        (workspaces.CreateSnapshot, workspace_pb2.CreateSnapshotRequest(bucket_id=remote.bucket_id), viewer),
        (workspaces.GetSnapshot, workspace_pb2.GetSnapshotRequest(bucket_id=remote.bucket_id, snapshot_id=snapshot_id), gateway),
        (workspaces.FindMissingBlobs, workspace_pb2.FindMissingBlobsRequest(bucket_id=remote.bucket_id), viewer),
        (
            workspaces.BuildSnapshot,
            workspace_pb2.BuildSnapshotRequest(bucket_id=remote.bucket_id, snapshot_id=snapshot_id),
            await catalog.token_for(Role.OPERATOR),
        ),
    ]
    for call, request, metadata in refused:
        with pytest.raises(RemoteError) as caught, remote_errors():
            await call(request, metadata=metadata)
        assert caught.value.status.name == "PERMISSION_DENIED"
