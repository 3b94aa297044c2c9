"""KvService over real gRPC: who may read and write what, as the policy says for each kind of caller."""

from typing import Any

import pytest

from maand_catalog.rules.identity import Role
from maand_catalog.sealing.keyring import Plaintext
from maand_contracts.catalog.v1 import kv_pb2 as pb
from tests.contracts.catalog.hook_callers import Hook, a_demand, a_running_hook, a_worker
from tests.contracts.catalog.kv_builders import SECRETS, VARS
from tests.contracts.catalog.kv_verbs import Kv, Status, refused
from tests.contracts.catalog.run_builders import a_bucket, an_allocation


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
    listed = await kv.call("ListKeys", pb.ListKeysRequest(namespace=place["namespace"]), peer.metadata)
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


async def test_a_hook_lists_its_variables_and_secrets_by_default(kv: Kv, hook: Hook) -> None:
    await kv.put("b", "1")
    await kv.put("a", "1")
    await kv.put_secret("s", "1")

    own = await kv.call("ListKeys", pb.ListKeysRequest(), hook.metadata)
    named = await kv.call("ListKeys", pb.ListKeysRequest(namespace="vars/bucket"), hook.metadata)

    assert [(each.namespace, list(each.keys)) for each in own.namespaces] == [(SECRETS, ["s"]), (VARS, ["a", "b"])]
    assert [(each.namespace, list(each.keys)) for each in named.namespaces] == [("vars/bucket", [])]


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
