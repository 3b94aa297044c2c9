"""KvService over real gRPC: identity decides, bad input has its status, watches and views stream."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from maand_catalog.identity import Role
from maand_catalog.keyring import Keyring
from maand_catalog.plaintext import Plaintext
from maand_catalog.store.database import Database
from maand_catalog.store.kv_owned import replace_owned_namespaces
from maand_catalog.store.kv_retention import trim_history
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_contracts.catalog.v1 import secret_pb2
from maand_contracts.catalog.v1.kv_pb2_grpc import KvServiceStub
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceStub
from maand_wire.channels import REVISION_HEADER
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.conftest import ShiftedClock
from tests.contracts.catalog.hook_callers import Hook, Metadata, a_demand, a_running_hook, a_worker
from tests.contracts.catalog.kv_builders import SECRETS, VARS
from tests.contracts.catalog.run_builders import NOWHERE, a_bucket, an_allocation
from tests.contracts.catalog.serving import ServedCatalog, serve

Status = grpc.StatusCode


class Kv:
    """The service in short words; errors arrive as RemoteError."""

    def __init__(self, catalog: ServedCatalog, bucket_id: str) -> None:
        self.catalog = catalog
        self.bucket_id = bucket_id
        self.stub = KvServiceStub(catalog.local.channel)
        self.secrets = SecretServiceStub(catalog.local.channel)

    async def call(self, method: str, request: Any, who: Metadata | None = None) -> Any:
        """Call as a hook, with a token, or as the local user."""
        with remote_errors():
            return await getattr(self.stub, method)(request, metadata=who or [])

    async def put(self, key: str = "k", value: str = "v", who: Metadata | None = None, **more: Any) -> pb.PutResponse:
        request = pb.PutRequest(**{"bucket_id": self.bucket_id, "namespace": VARS, "key": key, "value": value, **more})
        return await self.call("Put", request, who)  # type: ignore[no-any-return]

    async def get(self, key: str = "k", who: Metadata | None = None, **more: Any) -> pb.GetResponse:
        request = pb.GetRequest(**{"bucket_id": self.bucket_id, "namespace": VARS, "key": key, **more})
        return await self.call("Get", request, who)  # type: ignore[no-any-return]

    async def put_secret(self, key: str, value: str, who: Metadata | None = None, **more: Any) -> int:
        fields = {"bucket_id": self.bucket_id, "namespace": SECRETS, "key": key, "value": value, **more}
        with remote_errors():
            return (await self.secrets.PutSecret(secret_pb2.PutSecretRequest(**fields), metadata=who or [])).version

    async def build(self, wanted: dict[str, dict[str, Any]]) -> None:
        """Write what a build would."""
        keyring = Keyring(self.catalog.running.settings.kv_key_file)
        await self.catalog.database.write(
            lambda tx: replace_owned_namespaces(tx, keyring, bucket_id=self.bucket_id, wanted=wanted, writer="build")
        )


@pytest.fixture
async def kv(database: Database, tmp_path: Path) -> AsyncIterator[Kv]:
    async with serve(database, tmp_path) as catalog:
        yield Kv(catalog, await a_bucket(database))


@pytest.fixture
async def hook(kv: Kv) -> Hook:
    return await a_running_hook(kv.catalog.database, kv.bucket_id)


async def refused(attempt: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await attempt
    return caught.value


async def test_an_operator_writes_and_reads_variables(kv: Kv) -> None:
    assert (await kv.put("k", "a")).version == 1
    second = await kv.put("k", "b", ttl_seconds=3600)

    entry = (await kv.get("k")).entry

    assert (entry.value, entry.version, entry.revision, entry.writer) == ("b", 2, second.revision, "local")
    assert entry.expires_at.seconds - entry.created_at.seconds == 3600


async def test_a_hook_writes_in_its_own_bucket_and_is_named_as_the_writer(kv: Kv, hook: Hook) -> None:
    await kv.put("k", "a", hook.metadata, bucket_id="")

    entry = (await kv.get("k")).entry

    assert entry.value == "a"
    assert entry.writer.startswith("hook api/hook_x on 10.0.0.1 (run ")


async def test_a_hook_cannot_name_another_bucket(kv: Kv, hook: Hook) -> None:
    other = await a_bucket(kv.catalog.database)

    error = await refused(kv.get("k", hook.metadata, bucket_id=other))

    assert (error.status, error.code) == (Status.PERMISSION_DENIED, "identity_mismatch")


async def test_what_the_policy_denies_is_permission_denied_with_a_remedy(kv: Kv, hook: Hook) -> None:
    for attempt in (
        kv.put("k", "v", hook.metadata, namespace="vars/job/web"),
        kv.put("k", "v", hook.metadata, namespace=SECRETS),
        kv.get("k", hook.metadata, namespace="secrets/job/web"),
        kv.put("k", "v", namespace="maand/bucket"),
        kv.put("k", "v", namespace="unknown"),
        kv.get("k", namespace=SECRETS),
        kv.put_secret("k", "v", hook.metadata, namespace=VARS),
    ):
        error = await refused(attempt)
        assert (error.status, error.code) == (Status.PERMISSION_DENIED, "permission_denied")
        assert error.help


async def test_a_hook_in_health_check_writes_nothing(kv: Kv) -> None:
    hook = await a_running_hook(kv.catalog.database, kv.bucket_id, event="health_check")

    assert (await refused(kv.put("k", "v", hook.metadata))).status is Status.PERMISSION_DENIED
    assert (await refused(kv.put_secret("k", "v", hook.metadata))).status is Status.PERMISSION_DENIED
    assert (await refused(kv.get("k", hook.metadata))).status is Status.NOT_FOUND


async def test_a_hook_reads_its_secrets_decrypted_and_people_do_not(kv: Kv, hook: Hook) -> None:
    await kv.put_secret("token", "hunter2", hook.metadata)

    response = await kv.get("token", hook.metadata, namespace=SECRETS)

    assert (response.secret_value, response.entry.value) == ("hunter2", "")
    assert (await refused(kv.get("token", namespace=SECRETS))).status is Status.PERMISSION_DENIED


async def test_demanded_jobs_are_read_and_not_written(kv: Kv, hook: Hook) -> None:
    place: dict[str, Any] = {"namespace": "vars/job/vault"}
    await kv.put("k", "v", **place)
    await kv.put_secret("s", "hidden", namespace="secrets/job/vault")
    assert (await refused(kv.get("k", hook.metadata, **place))).status is Status.PERMISSION_DENIED

    await a_demand(kv.catalog.database, kv.bucket_id, "api", "vault")

    assert (await kv.get("k", hook.metadata, **place)).entry.value == "v"
    assert (await kv.get("s", hook.metadata, namespace="secrets/job/vault")).secret_value == "hidden"
    assert (await refused(kv.put("k", "w", hook.metadata, **place))).status is Status.PERMISSION_DENIED


async def test_a_private_key_is_read_by_hooks_of_its_own_allocation_only(kv: Kv, hook: Hook) -> None:
    peer = await a_running_hook(kv.catalog.database, kv.bucket_id, worker="10.0.0.2")
    place = {"namespace": "maand/job/api/worker/10.0.0.1"}
    await kv.build({place["namespace"]: {"certs/web.key": Plaintext("pem"), "certs/web.crt": "crt"}})

    assert (await kv.get("certs/web.key", hook.metadata, **place)).secret_value == "pem"
    for who in (peer.metadata, None, await kv.catalog.token_for(Role.VIEWER)):
        assert (await refused(kv.get("certs/web.key", list(who) if who else None, **place))).status is Status.PERMISSION_DENIED
    assert (await kv.get("certs/web.crt", peer.metadata, **place)).entry.value == "crt"
    listed = await kv.call("ListKeys", pb.ListKeysRequest(**place), peer.metadata)
    assert list(listed.namespaces[0].keys) == ["certs/web.crt"]


async def test_a_rollout_order_is_a_permutation_of_the_active_workers(kv: Kv, hook: Hook) -> None:
    for worker in ("10.0.0.2", "10.0.0.3"):
        await a_worker(kv.catalog.database, kv.bucket_id, worker)
        await an_allocation(kv.catalog.database, kv.bucket_id, worker=worker)
    place: dict[str, Any] = {"namespace": "maand/job/api", "who": hook.metadata}

    await kv.put("rollout_order", "10.0.0.3,10.0.0.1,10.0.0.2", **place)
    for wrong in ("", "10.0.0.1", "10.0.0.1,10.0.0.2", "10.0.0.1,10.0.0.2,10.0.0.2", "10.0.0.1,10.0.0.2,10.0.0.4"):
        error = await refused(kv.put("rollout_order", wrong, **place))
        assert error.status is Status.INVALID_ARGUMENT
        assert "10.0.0.1,10.0.0.2,10.0.0.3" in error.help
    lasting = await refused(kv.put("rollout_order", "10.0.0.3,10.0.0.1,10.0.0.2", ttl_seconds=9, **place))
    assert lasting.status is Status.INVALID_ARGUMENT

    assert (await kv.get("rollout_order", hook.metadata, namespace="maand/job/api")).entry.value == "10.0.0.3,10.0.0.1,10.0.0.2"


BAD_PUTS: list[tuple[dict[str, Any], str]] = [
    ({"namespace": ""}, "invalid_argument"),
    ({"key": ""}, "invalid_argument"),
    ({"key": "a\nb"}, "invalid_argument"),
    ({"key": "a\0b"}, "invalid_argument"),
    ({"key": "k" * 513}, "limit_exceeded"),
    ({"namespace": "vars/" + "n" * 252}, "limit_exceeded"),
    ({"value": "v" * 2 * 1024 * 1024}, "limit_exceeded"),
    ({"value": "a\0b"}, "invalid_argument"),
    ({"ttl_seconds": 2**63}, "invalid_argument"),
    ({"precondition": pb.Precondition(if_absent=False)}, "invalid_argument"),
    ({"request_id": "r" * 257}, "limit_exceeded"),
    ({"request_id": "r\0"}, "invalid_argument"),
    ({"bucket_id": "no id"}, "invalid_argument"),
]


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


async def test_a_hook_lists_its_variables_and_secrets_by_default(kv: Kv, hook: Hook) -> None:
    await kv.put("b", "1")
    await kv.put("a", "1")
    await kv.put_secret("s", "1")

    own = await kv.call("ListKeys", pb.ListKeysRequest(), hook.metadata)
    named = await kv.call("ListKeys", pb.ListKeysRequest(namespace="vars/bucket"), hook.metadata)

    assert [(each.namespace, list(each.keys)) for each in own.namespaces] == [(SECRETS, ["s"]), (VARS, ["a", "b"])]
    assert [(each.namespace, list(each.keys)) for each in named.namespaces] == [("vars/bucket", [])]


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


@pytest.mark.parametrize("method", ["ListEntries", "ListVersions", "Restore"])
async def test_hooks_do_not_browse(kv: Kv, hook: Hook, method: str) -> None:
    request = {
        "ListEntries": pb.ListEntriesRequest(bucket_id=kv.bucket_id),
        "ListVersions": pb.ListVersionsRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k"),
        "Restore": pb.RestoreRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k", version=1),
    }[method]

    assert (await refused(kv.call(method, request, hook.metadata))).status is Status.PERMISSION_DENIED


async def test_a_viewer_reads_and_writes_nothing(kv: Kv) -> None:
    await kv.put("k", "v")
    viewer = await kv.catalog.token_for(Role.VIEWER)

    assert (await kv.get("k", list(viewer))).entry.value == "v"
    assert (await refused(kv.put("k", "w", list(viewer)))).status is Status.PERMISSION_DENIED


async def test_a_watch_tells_what_happens_from_now_on_without_secret_values(kv: Kv) -> None:
    await kv.put("before", "v")
    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, namespace_prefix=""))
    await call.initial_metadata()

    await kv.put("k", "a")
    await kv.put_secret("s", "hidden")
    await kv.call("Delete", pb.DeleteRequest(bucket_id=kv.bucket_id, namespace=VARS, key="k"))

    changes = [await call.read() for _ in range(3)]
    assert [(each.entry.key, each.entry.value, each.entry.deleted) for each in changes] == [
        ("k", "a", False),
        ("s", "", False),
        ("k", "", True),
    ]
    assert [each.revision for each in changes] == sorted(each.revision for each in changes)
    call.cancel()


async def test_the_headers_of_a_watch_say_what_to_resume_with_before_its_first_change(kv: Kv) -> None:
    written = await kv.put("before", "v")
    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, namespace_prefix=""))
    headers = dict(await call.initial_metadata())
    call.cancel()
    assert headers[REVISION_HEADER] == str(written.revision)


async def test_a_watch_resumes_without_gap_or_repeat(kv: Kv) -> None:
    revisions = [(await kv.put("k", f"{number}")).revision for number in range(450)]

    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, namespace_prefix=VARS, after_revision=revisions[0]))
    seen = [(await call.read()).revision for _ in range(449)]
    call.cancel()

    assert seen == revisions[1:]


async def test_a_watch_from_before_what_is_kept_is_out_of_range(kv: Kv, clock: ShiftedClock) -> None:
    revisions = [(await kv.put("k", f"{number}")).revision for number in range(10)]
    clock.advance(timedelta(days=40))
    await kv.catalog.database.write(lambda tx: trim_history(tx, kv.bucket_id, retain=timedelta(days=30)))

    call: Any = kv.stub.Watch(pb.WatchRequest(bucket_id=kv.bucket_id, after_revision=revisions[0]))
    with pytest.raises(RemoteError) as caught, remote_errors():
        await call.read()

    assert caught.value.status is Status.OUT_OF_RANGE


async def test_views_hold_what_hooks_of_the_allocations_may_read_each_namespace_once(kv: Kv, hook: Hook) -> None:
    database = kv.catalog.database
    await a_worker(database, kv.bucket_id, "10.0.0.2")
    other = await an_allocation(database, kv.bucket_id, worker="10.0.0.2")
    await a_demand(database, kv.bucket_id, "api", "vault")
    await kv.build(
        {
            "maand/bucket": {"bucket_id": kv.bucket_id},
            "maand/job/api/worker/10.0.0.1": {"version": "1", "certs/web.key": Plaintext("pem")},
            "maand/job/api/worker/10.0.0.2": {"version": "1"},
            "maand/job/web": {"name": "web"},
        }
    )
    await kv.put_secret("token", "hunter2")
    await kv.put_secret("token", "s.1", namespace="secrets/job/vault")
    await kv.put("large", "x" * 1_000_000)
    await kv.put("larger", "x" * 1_000_000)

    request = pb.ReadAllocationViewsRequest(bucket_id=kv.bucket_id, allocation_ids=[hook.allocation_id, other])
    parts = [part async for part in kv.stub.ReadAllocationViews(request)]

    contents = {part.content.namespace: part.content for part in parts if part.HasField("content")}
    views = {part.view.allocation_id: set(part.view.namespaces) for part in parts if part.HasField("view")}
    assert set(contents) == {
        "maand/bucket",
        "maand/job/api/worker/10.0.0.1",
        "maand/job/api/worker/10.0.0.2",
        SECRETS,
        "secrets/job/vault",
        VARS,
    }
    assert dict(contents[SECRETS].values) == {"token": "hunter2"}
    assert contents[SECRETS].secret
    assert not contents[VARS].secret
    assert dict(contents["maand/job/api/worker/10.0.0.1"].values) == {"version": "1"}
    assert "maand/worker/10.0.0.1" in views[hook.allocation_id]
    assert "maand/worker/10.0.0.1" not in views[other]
    assert "maand/job/web" not in views[other]


async def test_views_are_for_executors_and_of_one_job(kv: Kv, hook: Hook) -> None:
    web = await an_allocation(kv.catalog.database, kv.bucket_id, job="web", worker="10.0.0.9")
    viewer = await kv.catalog.token_for(Role.VIEWER)

    async def ask(ids: list[str], who: Any = ()) -> None:
        request = pb.ReadAllocationViewsRequest(bucket_id=kv.bucket_id, allocation_ids=ids)
        with remote_errors():
            await kv.stub.ReadAllocationViews(request, metadata=who).read()

    assert (await refused(ask([hook.allocation_id], viewer))).status is Status.PERMISSION_DENIED
    assert (await refused(ask([hook.allocation_id], hook.metadata))).status is Status.PERMISSION_DENIED
    assert (await refused(ask([hook.allocation_id, web]))).status is Status.INVALID_ARGUMENT
    assert (await refused(ask([NOWHERE]))).status is Status.NOT_FOUND
    assert (await refused(ask([]))).status is Status.INVALID_ARGUMENT


async def test_a_value_is_visible_to_everyone_when_put_returns(kv: Kv, hook: Hook) -> None:
    async def write_and_read(number: int) -> bool:
        await kv.put(f"k{number}", f"{number}", hook.metadata)
        return (await kv.get(f"k{number}")).entry.value == f"{number}"

    assert all(await asyncio.gather(*(write_and_read(number) for number in range(100))))
