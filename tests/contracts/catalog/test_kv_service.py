"""KvService over real gRPC: values, versions, pages; bad input has its status and changes nothing."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from maand_contracts.catalog.v1 import kv_pb2 as pb
from tests.contracts.catalog.hook_callers import Hook, a_running_hook
from tests.contracts.catalog.kv_builders import SECRETS, VARS
from tests.contracts.catalog.kv_verbs import Kv, Status, refused
from tests.contracts.catalog.run_builders import NOWHERE

BAD_PUTS: list[tuple[dict[str, Any], str]] = [
    ({"namespace": ""}, "invalid_argument"),
    ({"key": ""}, "invalid_argument"),
    ({"key": "a\nb"}, "invalid_argument"),
    ({"key": "a\0b"}, "invalid_argument"),
    ({"key": "k" * 513}, "limit_exceeded"),
    ({"namespace": "vars/" + "n" * 252}, "limit_exceeded"),
    ({"value": "v" * 2 * 1024 * 1024}, "limit_exceeded"),
    ({"value": "a\0b"}, "invalid_argument"),
    ({"ttl_seconds": 2**32 - 1}, "invalid_argument"),
    ({"precondition": pb.Precondition(if_absent=False)}, "invalid_argument"),
    ({"precondition": pb.Precondition()}, "invalid_argument"),
    ({"request_id": "r" * 257}, "limit_exceeded"),
    ({"request_id": "r\0"}, "invalid_argument"),
    ({"bucket_id": "no id"}, "invalid_argument"),
]


async def test_an_operator_writes_and_reads_variables(kv: Kv) -> None:
    assert (await kv.put("k", "a")).version == 1
    second = await kv.put("k", "b", ttl_seconds=3600)

    entry = (await kv.get("k")).entry

    assert (entry.value, entry.version, entry.revision, entry.writer) == ("b", 2, second.revision, "local")
    assert entry.expires_at.seconds - entry.created_at.seconds == 3600


@pytest.mark.parametrize(("wrong", "code"), BAD_PUTS)
async def test_bad_input_is_refused_and_nothing_changes(kv: Kv, wrong: dict[str, Any], code: str) -> None:
    error = await refused(kv.put(**wrong))

    assert (error.status, error.code) == (Status.INVALID_ARGUMENT, code)
    listed = await kv.call("ListEntries", pb.ListEntriesRequest(bucket_id=kv.bucket_id))
    assert list(listed.entries) == []


async def test_text_that_is_not_utf_8_never_reaches_the_store(kv: Kv) -> None:
    raw = pb.PutRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k", value="XX").SerializeToString()
    call: Any = kv.catalog.local.channel.unary_unary("/maand.catalog.v1.KvService/Put")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(raw.replace(b"XX", b"\xff\xfe"))

    assert caught.value.code() in (Status.UNKNOWN, Status.INVALID_ARGUMENT)  # gRPC's own words: no handler was reached
    assert (await refused(kv.get("k"))).status is Status.NOT_FOUND


async def test_unknown_things_are_not_found(kv: Kv) -> None:
    for attempt in (
        kv.get("none"),
        kv.get("none", namespace="no/such/namespace"),
        kv.get("none", bucket_id=NOWHERE),
        kv.put("k", "v", bucket_id=NOWHERE),
        kv.call("Delete", pb.DeleteRequest(bucket_id=kv.bucket_id, namespace=VARS, key="none")),
        kv.call("Restore", pb.RestoreRequest(bucket_id=kv.bucket_id, namespace=VARS, key="none", version=3)),
        kv.call("ListVersions", pb.ListVersionsRequest(bucket_id=kv.bucket_id, namespace=VARS, key="none")),
    ):
        error = await refused(attempt)
        assert (error.status, error.code) == (Status.NOT_FOUND, "not_found")


async def test_a_lost_precondition_is_aborted_and_tells_the_current_version(kv: Kv) -> None:
    await kv.put("k", "a")

    error = await refused(kv.put("k", "b", precondition=pb.Precondition(if_absent=True)))

    assert (error.status, error.code, error.facts) == (Status.ABORTED, "kv_precondition_lost", {"current_version": "1"})
    assert (await kv.put("k", "b", precondition=pb.Precondition(if_version=1))).version == 2


async def test_two_hooks_may_choose_the_same_request_id(kv: Kv, hook: Hook) -> None:
    peer = await a_running_hook(kv.catalog.database, kv.bucket_id, worker="10.0.0.2")

    first = await kv.put("a", "1", hook.metadata, request_id="1")
    second = await kv.put("b", "2", peer.metadata, request_id="1")

    assert first.revision != second.revision
    assert await kv.put("a", "1", hook.metadata, request_id="1") == first


async def test_an_older_version_is_restored_as_the_newest(kv: Kv) -> None:
    for value in ("a", "b"):
        await kv.put("k", value)
    await kv.call("Delete", pb.DeleteRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k"))
    restore = pb.RestoreRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k", version=1)

    assert (await kv.call("Restore", restore)).version == 4
    assert (await kv.call("Restore", restore)).version == 4

    assert (await kv.get("k")).entry.value == "a"
    tombstone = pb.RestoreRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k", version=3)
    assert (await refused(kv.call("Restore", tombstone))).status is Status.NOT_FOUND


async def test_a_secret_is_restored_without_being_shown(kv: Kv, hook: Hook) -> None:
    for value in ("a", "b"):
        await kv.put_secret("s", value)

    await kv.call("Restore", pb.RestoreRequest(bucket_id=kv.bucket_id, namespace=SECRETS, key="s", version=1))

    versions = await kv.call("ListVersions", pb.ListVersionsRequest(bucket_id=kv.bucket_id, namespace=SECRETS, key="s"))
    assert [(entry.version, entry.value) for entry in versions.entries] == [(3, ""), (2, ""), (1, "")]
    assert (await kv.get("s", hook.metadata, namespace=SECRETS)).secret_value == "a"


async def test_a_slash_at_the_end_of_a_prefix_counts_for_nothing(kv: Kv) -> None:
    await kv.put("k")

    for prefix in ("vars", "vars/", "vars/job/api/"):
        listed = await kv.call("ListEntries", pb.ListEntriesRequest(bucket_id=kv.bucket_id, namespace_prefix=prefix))
        assert [entry.key for entry in listed.entries] == ["k"]


async def test_a_lost_precondition_on_a_key_never_written_says_so(kv: Kv) -> None:
    error = await refused(kv.put("k", precondition=pb.Precondition(if_version=9)))

    assert str(error).startswith(f"{VARS} k was never written")
    assert (error.status, error.facts) == (Status.ABORTED, {"current_version": "0"})


@pytest.mark.parametrize("token", ["x", "e30=", "WzEsMl0=", "MQ==", "🦆"])
async def test_a_page_token_of_somebody_else_is_refused(kv: Kv, token: str) -> None:
    error = await refused(kv.call("ListEntries", pb.ListEntriesRequest(bucket_id=kv.bucket_id, page_token=token)))

    assert error.status is Status.INVALID_ARGUMENT


async def test_pages_follow_one_another_by_token(kv: Kv) -> None:
    for number in range(5):
        await kv.put(f"k{number}", "v")
        await kv.put("versions", f"{number}")

    entries = await pages(kv, "ListEntries", pb.ListEntriesRequest(bucket_id=kv.bucket_id, page_size=2))
    versions = await pages(
        kv, "ListVersions", pb.ListVersionsRequest(bucket_id=kv.bucket_id, namespace=VARS, key="versions", page_size=2)
    )

    assert [entry.key for entry in entries] == ["k0", "k1", "k2", "k3", "k4", "versions"]
    assert [entry.version for entry in versions] == [5, 4, 3, 2, 1]


async def pages(kv: Kv, method: str, request: Any) -> list[pb.Entry]:
    entries: list[pb.Entry] = []
    while True:
        page = await kv.call(method, request)
        assert len(page.entries) <= 2
        entries.extend(page.entries)
        if not page.next_page_token:
            return entries
        request.page_token = page.next_page_token


async def test_a_value_is_visible_to_everyone_when_put_returns(kv: Kv, hook: Hook) -> None:
    async def write_and_read(number: int) -> bool:
        await kv.put(f"k{number}", f"{number}", hook.metadata)
        return (await kv.get(f"k{number}")).entry.value == f"{number}"

    assert all(await asyncio.gather(*(write_and_read(number) for number in range(100))))
