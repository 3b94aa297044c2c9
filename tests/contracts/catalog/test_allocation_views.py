"""Views over real gRPC: everything that hooks of some allocations may read, each namespace once."""

from typing import Any

from maand_catalog.rules.identity import Role
from maand_catalog.sealing.keyring import Plaintext
from maand_contracts.catalog.v1 import kv_pb2 as pb
from maand_wire.errors import remote_errors
from tests.contracts.catalog.hook_callers import Hook, a_demand, a_worker
from tests.contracts.catalog.kv_builders import SECRETS, VARS
from tests.contracts.catalog.kv_verbs import Kv, Status, refused
from tests.contracts.catalog.run_builders import NOWHERE, an_allocation


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
