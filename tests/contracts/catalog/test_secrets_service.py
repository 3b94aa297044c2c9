"""SecretService over real gRPC: who may, what is audited, how a rotation goes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from maand_catalog.database.database import Database
from maand_catalog.rules.identity import Role
from maand_contracts.catalog.v1 import kv_pb2, run_pb2, token_pb2
from maand_contracts.catalog.v1 import secret_pb2 as pb
from maand_contracts.catalog.v1.run_pb2_grpc import RunServiceStub
from maand_contracts.catalog.v1.secret_pb2_grpc import SecretServiceStub
from maand_contracts.catalog.v1.token_pb2_grpc import TokenServiceStub
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.hook_callers import Hook, Metadata, a_running_hook
from tests.contracts.catalog.kv_builders import SECRETS, a_keyring
from tests.contracts.catalog.run_builders import COMMAND, a_bucket, a_create
from tests.contracts.catalog.serving import ServedCatalog, serve

Status = grpc.StatusCode
KNOWN = "hunter2-hunter2"


class Secrets:
    """The service in short words; errors arrive as RemoteError."""

    def __init__(self, catalog: ServedCatalog, bucket_id: str) -> None:
        self.catalog = catalog
        self.bucket_id = bucket_id
        self._stub = SecretServiceStub(catalog.local.channel)

    async def call(self, method: str, who: Metadata | None = None, **fields: Any) -> Any:
        """Call `PutSecret` and the like for this bucket."""
        request = getattr(pb, f"{method}Request")(**{"bucket_id": self.bucket_id, **fields})
        with remote_errors():
            return await getattr(self._stub, method)(request, metadata=who or [])

    async def put(self, key: str, value: str, who: Metadata | None = None, **more: Any) -> int:
        version: int = (await self.call("PutSecret", who, **{"namespace": SECRETS, "key": key, "value": value, **more})).version
        return version

    async def reveal(self, key: str, who: Metadata | None = None, **more: Any) -> pb.RevealSecretResponse:
        response: pb.RevealSecretResponse = await self.call("RevealSecret", who, **{"namespace": SECRETS, "key": key, **more})
        return response

    async def audit(self) -> list[tuple[str, str, str]]:
        request = token_pb2.ListAuditRecordsRequest(bucket_id=self.bucket_id)
        records = (await TokenServiceStub(self.catalog.local.channel).ListAuditRecords(request)).records
        return [(record.actor, record.action, record.subject) for record in records]

    async def token(self, role: Role) -> Metadata:
        return list(await self.catalog.token_for(role))


@pytest.fixture
async def secrets(database: Database, tmp_path: Path) -> AsyncIterator[Secrets]:
    async with serve(database, tmp_path) as catalog:
        yield Secrets(catalog, await a_bucket(database))


@pytest.fixture
async def hook(secrets: Secrets) -> Hook:
    return await a_running_hook(secrets.catalog.database, secrets.bucket_id)


async def refused(attempt: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await attempt
    return caught.value


async def test_a_secret_is_revealed_to_an_operator_and_audited(secrets: Secrets) -> None:
    await secrets.put("token", "first")
    await secrets.put("token", KNOWN)
    operator = await secrets.token(Role.OPERATOR)

    newest, old = await secrets.reveal("token", operator), await secrets.reveal("token", operator, version=1)

    assert (newest.value, newest.version, old.value, old.version) == (KNOWN, 2, "first", 1)
    assert await secrets.audit() == [
        ("test operator", "secret.reveal", f"{SECRETS} token version 1"),
        ("test operator", "secret.reveal", f"{SECRETS} token version 2"),
    ]


async def test_nobody_else_reveals_and_nothing_is_audited(secrets: Secrets, hook: Hook) -> None:
    await secrets.put("token", KNOWN)

    for who in (hook.metadata, await secrets.token(Role.VIEWER), await secrets.token(Role.EXECUTOR)):
        error = await refused(secrets.reveal("token", who))
        assert error.status is Status.PERMISSION_DENIED
        assert KNOWN not in str(error)
    assert (await refused(secrets.reveal("none"))).status is Status.NOT_FOUND
    assert await secrets.audit() == []


async def test_secrets_are_listed_without_values(secrets: Secrets) -> None:
    await secrets.put("b", KNOWN)
    await secrets.put("a", KNOWN, ttl_seconds=60)
    await secrets.put("x", KNOWN, namespace="secrets/job/web")

    listed = await secrets.call("ListSecrets", await secrets.token(Role.VIEWER))
    of_web = await secrets.call("ListSecrets", job="web")
    page = await secrets.call("ListSecrets", page_size=2)
    rest = await secrets.call("ListSecrets", page_size=2, page_token=page.next_page_token)

    assert [(each.namespace, each.key, each.version, each.key_id) for each in listed.secrets] == [
        (SECRETS, "a", 1, "test"),
        (SECRETS, "b", 1, "test"),
        ("secrets/job/web", "x", 1, "test"),
    ]
    assert listed.secrets[0].HasField("expires_at")
    assert KNOWN.encode() not in listed.SerializeToString()
    assert [each.key for each in of_web.secrets] == ["x"]
    assert [each.key for each in rest.secrets] == ["x"]
    assert not rest.next_page_token


async def test_a_hook_writes_and_deletes_its_own_secrets(secrets: Secrets, hook: Hook) -> None:
    assert await secrets.put("token", KNOWN, hook.metadata, bucket_id="") == 1
    assert await secrets.put("token", KNOWN, hook.metadata) == 1
    lost = await refused(secrets.put("token", "x", hook.metadata, precondition=kv_pb2.Precondition(if_absent=True)))

    deleted = await secrets.call("DeleteSecret", hook.metadata, namespace=SECRETS, key="token")

    assert (lost.status, lost.facts) == (Status.ABORTED, {"current_version": "1"})
    assert deleted.version == 2
    assert (await refused(secrets.reveal("token"))).status is Status.NOT_FOUND
    assert (await secrets.reveal("token", version=1)).value == KNOWN


@pytest.mark.parametrize("namespace", ["secrets/job/api/more", "secrets/api", "secrets/job/", "secrets"])
async def test_secrets_live_in_secrets_of_a_job_only(secrets: Secrets, namespace: str) -> None:
    assert (await refused(secrets.put("k", KNOWN, namespace=namespace))).status is Status.INVALID_ARGUMENT


@pytest.mark.parametrize("namespace", ["vars/job/api", "maand/bucket", "other"])
async def test_a_secret_is_put_nowhere_else(secrets: Secrets, namespace: str) -> None:
    assert (await refused(secrets.put("k", KNOWN, namespace=namespace))).status is Status.PERMISSION_DENIED


async def test_errors_about_secrets_do_not_quote_them(secrets: Secrets) -> None:
    large = KNOWN * 100_000

    error = await refused(secrets.put("k", large))

    assert (error.status, error.code) == (Status.INVALID_ARGUMENT, "limit_exceeded")
    assert KNOWN not in f"{error} {error.help} {error.facts}"


async def test_masks_are_for_executors_and_tell_when_they_changed(secrets: Secrets, hook: Hook) -> None:
    await secrets.put("token", KNOWN)
    executor = await secrets.token(Role.EXECUTOR)

    first = await secrets.call("ReadMaskValues", executor)
    same = await secrets.call("ReadMaskValues", executor, known_revision=first.revision)
    await secrets.put("token", "another", hook.metadata)
    second = await secrets.call("ReadMaskValues", executor, known_revision=first.revision)

    assert (first.changed, list(first.values)) == (True, [KNOWN])
    assert (same.changed, list(same.values), same.revision) == (False, [], first.revision)
    assert (second.changed, sorted(second.values)) == (True, ["another", KNOWN])
    for who in (hook.metadata, await secrets.token(Role.VIEWER), await secrets.token(Role.OPERATOR)):
        assert (await refused(secrets.call("ReadMaskValues", who))).status is Status.PERMISSION_DENIED


async def stream_masks(secrets: Secrets, who: Metadata | None = None, *, after: int = 0) -> list[pb.StreamMaskValuesResponse]:
    request = pb.StreamMaskValuesRequest(bucket_id=secrets.bucket_id, after_revision=after)
    stub = SecretServiceStub(secrets.catalog.local.channel)
    with remote_errors():
        return [chunk async for chunk in stub.StreamMaskValues(request, metadata=who or [])]


def values_of(chunks: list[pb.StreamMaskValuesResponse]) -> list[str]:
    return sorted(value for chunk in chunks for value in chunk.values)


async def test_masks_come_as_changes_for_executors_only(secrets: Secrets, hook: Hook) -> None:
    executor = await secrets.token(Role.EXECUTOR)
    [nothing] = await stream_masks(secrets, executor)
    await secrets.put("token", KNOWN)

    [first] = await stream_masks(secrets, executor, after=nothing.revision)
    [same] = await stream_masks(secrets, executor, after=first.revision)
    await secrets.put("token", "another", hook.metadata)
    [second] = await stream_masks(secrets, executor, after=first.revision)

    assert (nothing.revision, list(nothing.values)) == (0, [])
    assert list(first.values) == [KNOWN]
    assert (list(same.values), same.revision) == ([], first.revision)
    assert list(second.values) == ["another"]
    assert second.revision > first.revision
    for who in (hook.metadata, await secrets.token(Role.VIEWER), await secrets.token(Role.OPERATOR)):
        assert (await refused(stream_masks(secrets, who))).status is Status.PERMISSION_DENIED


async def test_masks_beyond_one_message_come_in_chunks_and_a_broken_stream_is_resumed(
    secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maand_catalog.store.kv.secrets.PAGE_BYTES", 3 * 1024 * 1024)
    sizes = (1024 * 1024, 300_000, 600_000, 1024 * 1024, 1024 * 1024, 5)
    values = {f"{number}" * size for number, size in enumerate(sizes)}
    for number, value in enumerate(sorted(values)):
        await secrets.put(f"token{number}", value)

    chunks = await stream_masks(secrets)

    assert set(values_of(chunks)) == values
    assert max(chunk.ByteSize() for chunk in chunks) < 1024 * 1024 + 100
    assert [chunk.revision for chunk in chunks] == sorted(chunk.revision for chunk in chunks)
    for arrived in range(1, len(chunks)):
        rest = await stream_masks(secrets, after=chunks[arrived - 1].revision)
        assert {*values_of(chunks[:arrived]), *values_of(rest)} == values


async def test_secrets_beyond_the_largest_message_are_streamed_and_the_old_call_says_so(secrets: Secrets) -> None:
    values = [f"{number:02}" * (512 * 1024) for number in range(68)]
    for value in values:
        await secrets.put("token", value)

    assert values_of(await stream_masks(secrets)) == values
    error = await refused(secrets.call("ReadMaskValues"))
    assert (error.code, error.is_temporary) == ("message_too_large", False)


async def test_a_secret_whose_key_is_lost_is_named_once_in_the_log_and_no_mask(secrets: Secrets, tmp_path: Path) -> None:
    await secrets.put("token", "an old value")
    await secrets.put("deleted", "another old value")
    await secrets.call("DeleteSecret", namespace=SECRETS, key="deleted")
    (tmp_path / "kv.key").unlink()
    a_keyring(tmp_path, "k2")
    async with serve(secrets.catalog.database, tmp_path) as restarted:
        secrets = Secrets(restarted, secrets.bucket_id)
        await secrets.put("token", KNOWN)

        with capture_logs() as logs:
            assert values_of(await stream_masks(secrets)) == [KNOWN]
            assert values_of(await stream_masks(secrets)) == [KNOWN]
            assert list((await secrets.call("ReadMaskValues")).values) == [KNOWN]
        error = await refused(secrets.reveal("token", version=1))

    [warning] = [entry for entry in logs if "cannot be opened" in entry["event"]]
    assert sorted(warning["values"]) == [f"{SECRETS} deleted version 1", f"{SECRETS} token version 1"]
    assert (warning["log_level"], warning["keys"], warning["count"]) == ("warning", ["test"], 2)
    assert "old value" not in str(logs)
    assert (error.status, error.code) == (Status.FAILED_PRECONDITION, "cannot_decrypt")
    assert f"{SECRETS} token version 1" in error.message
    assert "put the key it was encrypted with back" in error.help


async def test_a_rotation_names_what_it_could_not_re_encrypt_and_does_the_others(secrets: Secrets, tmp_path: Path) -> None:
    await secrets.put("lost", KNOWN)
    (tmp_path / "kv.key").unlink()
    a_keyring(tmp_path, "k2")
    async with serve(secrets.catalog.database, tmp_path) as restarted:
        secrets = Secrets(restarted, secrets.bucket_id)
        await secrets.put("kept", KNOWN)
        a_keyring(tmp_path, "k3")

        page = await secrets.call("RotateSecrets")

        assert (page.rotated, page.remaining, page.next_page_token) == (1, 1, "")
        assert [(each.namespace, each.key, each.version, each.key_id) for each in page.unreadable] == [
            (SECRETS, "lost", 1, "test")
        ]
        assert (await secrets.reveal("kept")).value == KNOWN


async def test_a_rotation_reads_the_key_file_again_and_goes_page_by_page(
    secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maand_catalog.store.kv.secrets.ROTATED_AT_ONCE", 2)
    for number in range(5):
        await secrets.put(f"token{number}", f"value {number}")
    a_keyring(tmp_path, "k2")

    rotated, token = [], ""
    while True:
        page = await secrets.call("RotateSecrets", page_token=token)
        rotated.append((page.rotated, page.remaining))
        token = page.next_page_token
        if not token:
            break

    assert rotated == [(2, 3), (2, 1), (1, 0)]
    assert {each.key_id for each in (await secrets.call("ListSecrets")).secrets} == {"k2"}
    assert [(await secrets.reveal(f"token{number}")).value for number in range(5)] == [f"value {number}" for number in range(5)]
    assert (await refused(secrets.call("RotateSecrets", await secrets.token(Role.VIEWER)))).status is Status.PERMISSION_DENIED


async def test_a_rotation_covers_the_values_of_hook_env_so_that_the_old_key_may_go(secrets: Secrets, tmp_path: Path) -> None:
    runs = RunServiceStub(secrets.catalog.local.channel)
    values = {"CLOUD_TOKEN": KNOWN}
    waiting = (await runs.CreateRun(a_create(secrets.bucket_id, hook_env=values))).run
    ended = (await runs.CreateRun(a_create(secrets.bucket_id, COMMAND, hook_env=values))).run
    await runs.CancelRun(run_pb2.CancelRunRequest(bucket_id=secrets.bucket_id, run_id=ended.run_id))
    await secrets.put("token", KNOWN)
    a_keyring(tmp_path, "k2")

    page = await secrets.call("RotateSecrets")
    (tmp_path / "kv.key").write_text((tmp_path / "kv.key").read_text().splitlines()[-1])
    again = await secrets.call("RotateSecrets")
    claim = await runs.ClaimRun(run_pb2.ClaimRunRequest(executor_id="e1", wait_seconds=1))

    assert (page.rotated, page.remaining, page.next_page_token) == (2, 0, "")
    assert (again.rotated, again.remaining) == (0, 0)
    assert (claim.run.run_id, dict(claim.hook_env)) == (waiting.run_id, values)
    assert await secrets.audit() == [("local", "secret.rotate", "2 values to key k2")]


async def test_a_rotation_names_the_run_whose_key_is_gone_and_goes_on_once_it_is_given_up(
    secrets: Secrets, tmp_path: Path
) -> None:
    runs = RunServiceStub(secrets.catalog.local.channel)
    waiting = (await runs.CreateRun(a_create(secrets.bucket_id, hook_env={"CLOUD_TOKEN": KNOWN}))).run
    (tmp_path / "kv.key").write_text("")
    a_keyring(tmp_path, "k2")

    error = await refused(secrets.call("RotateSecrets"))
    await runs.CancelRun(run_pb2.CancelRunRequest(bucket_id=secrets.bucket_id, run_id=waiting.run_id))
    page = await secrets.call("RotateSecrets")

    assert (error.status, error.code) == (Status.FAILED_PRECONDITION, "cannot_decrypt")
    assert f"maand runs cancel {waiting.run_id}" in error.help
    assert (page.rotated, page.remaining) == (0, 0)


async def test_a_rotation_with_an_unusable_key_file_changes_nothing(secrets: Secrets, tmp_path: Path) -> None:
    await secrets.put("token", KNOWN)
    (tmp_path / "kv.key").write_text("nonsense\n")

    error = await refused(secrets.call("RotateSecrets"))

    assert (error.status, error.code) == (Status.FAILED_PRECONDITION, "bad_key_file")
    assert (await secrets.reveal("token")).value == KNOWN
