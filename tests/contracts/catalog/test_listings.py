"""What was built, as clients list it: workers, jobs with hooks and probes, files, demands."""

from typing import Any

import pytest

from maand_catalog.errors import PermissionDenied
from maand_catalog.rpc.callers import acting_as
from maand_catalog.rpc.jobs import JobServicer
from maand_catalog.rules.identity import HookCaller, Role
from maand_contracts.catalog.v1 import job_pb2 as pb
from maand_contracts.catalog.v1 import worker_pb2
from maand_contracts.catalog.v1.job_pb2_grpc import JobServiceStub
from maand_wire.errors import RemoteError, remote_errors
from tests.contracts.catalog.bucket_verbs import BucketClient, a_new_bucket
from tests.contracts.catalog.serving import ServedCatalog

MANIFEST = """{
    "version": "1.0.0", "selectors": ["api"], "max_concurrent_upgrades": 3, "max_concurrent_starts": 2, "max_concurrent_stops": 1,
    "min_allocations_count": 1, "restart_policy": "reload", "restart_globs": ["*.conf"],
    "resources": {"ports": {"http": {}}, "memory": {"max": "1 gb"}},
    "hooks": {
        "hook_b": {"executed_on": ["pre_deploy", "cli"], "scope": "rollout", "timeout_seconds": 7,
                   "demands": {"job": "db", "hook": "hook_s", "config": {"min_version": "1.0", "size": [1, {"a": 2}]}}},
        "hook_a": {"executed_on": ["health_check"], "demands": {"job": "db", "hook": "hook_s"}}
    },
    "health_check": {"checks": [{"type": "tcp", "port": "http"}, {"type": "http", "port": 81, "path": "/h", "scheme": "https"},
                                {"type": "ssh", "command": "true"}], "timeout_seconds": 9, "wait": {"interval_seconds": 0.5}}
}"""

FILES = {
    "workers.json": """[{"host": "10.0.0.2", "labels": ["api", "big"], "tags": {"rack": "r1"}, "ssh_port": 2222},
                        {"host": "10.0.0.1", "labels": ["api"]}, {"host": "10.0.0.3"}]""",
    "disabled.json": '{"workers": ["10.0.0.3"]}',
    "jobs/api/manifest.json": MANIFEST,
    "jobs/api/_hooks/hook_a.py": "",
    "jobs/api/_hooks/hook_b.ts": "",
    "jobs/db/manifest.json": '{"version": "1.0.0", "hooks": {"hook_s": {"executed_on": ["cli"]}}}',
    "jobs/db/Makefile": "",
    "jobs/db/_hooks/hook_s.py": "",
}


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    made = await a_new_bucket(catalog)
    await made.build(FILES)
    return made


async def jobs(bucket: BucketClient, **fields: Any) -> list[pb.Job]:
    with remote_errors():
        return list((await bucket.jobs.ListJobs(pb.ListJobsRequest(bucket_id=bucket.bucket_id, **fields))).jobs)


async def workers(bucket: BucketClient, **fields: Any) -> list[worker_pb2.Worker]:
    with remote_errors():
        request = worker_pb2.ListWorkersRequest(bucket_id=bucket.bucket_id, **fields)
        return list((await bucket.workers.ListWorkers(request)).workers)


def a_hook(bucket: BucketClient, *, job: str = "db", hook: str = "hook_s") -> HookCaller:
    return HookCaller(
        bucket_id=bucket.bucket_id, run_id="r", invocation_id="i", job=job, allocation_id="a", worker="w", hook=hook, event="cli"
    )


async def test_a_job_is_told_as_its_manifest_has_it(bucket: BucketClient) -> None:
    api, db = await jobs(bucket)

    assert (api.version, list(api.selectors), api.deployment_seq, db.deployment_seq) == ("1.0.0", ["api"], 1, 0)
    assert (api.max_concurrent_starts, api.max_concurrent_upgrades, api.max_concurrent_stops) == (2, 3, 1)
    assert (api.min_allocations_count, api.restart_policy, list(api.restart_globs)) == (1, pb.RESTART_POLICY_RELOAD, ["*.conf"])
    assert (api.memory_mb, api.cpu_mhz, api.has_makefile, list(api.demanded_jobs)) == (1024, 0, True, ["db"])
    assert list(db.selectors) == ["db"]


async def test_hooks_are_told_by_name_with_their_scripts(bucket: BucketClient) -> None:
    hooks = (await jobs(bucket, names=["api"]))[0].hooks

    assert [(hook.name, hook.path, hook.runtime) for hook in hooks] == [
        ("hook_a", "_hooks/hook_a.py", pb.HOOK_RUNTIME_PYTHON),
        ("hook_b", "_hooks/hook_b.ts", pb.HOOK_RUNTIME_BUN),
    ]
    assert (list(hooks[1].executed_on), hooks[1].scope, hooks[1].timeout_seconds) == (
        [pb.HOOK_EVENT_PRE_DEPLOY, pb.HOOK_EVENT_CLI],
        pb.HOOK_SCOPE_ROLLOUT,
        7,
    )
    assert (hooks[0].demands_job, hooks[0].demands_hook, hooks[0].demand_config_json) == ("db", "hook_s", "")


async def test_probes_are_told_with_port_numbers(bucket: BucketClient) -> None:
    health = (await jobs(bucket, names=["api"]))[0].health_check

    tcp, http, ssh = health.probes
    assert tcp.tcp.port == 30000
    assert (http.http.port, http.http.path, http.http.expect_status, http.http.scheme) == (81, "/h", 200, pb.HTTP_SCHEME_HTTPS)
    assert ssh.ssh.command == "true"
    assert (health.timeout_seconds, health.wait_attempts, health.wait_interval_seconds) == (9, 30, 0.5)


async def test_a_job_without_health_section_has_none(bucket: BucketClient) -> None:
    assert not (await jobs(bucket, names=["db"]))[0].HasField("health_check")


async def test_jobs_come_page_by_page(bucket: BucketClient) -> None:
    with remote_errors():
        first = await bucket.jobs.ListJobs(pb.ListJobsRequest(bucket_id=bucket.bucket_id, page_size=1))

    assert [job.name for job in first.jobs] == ["api"]
    assert [job.name for job in await jobs(bucket, page_size=1, page_token=first.next_page_token)] == ["db"]


async def test_an_unknown_job_is_not_found_and_the_nearest_is_named(bucket: BucketClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await jobs(bucket, names=["apo"])
    assert (caught.value.status.name, caught.value.help) == ("NOT_FOUND", 'did you mean "api"?')

    calls: list[tuple[Any, Any]] = [
        (bucket.jobs.ListJobFiles, pb.ListJobFilesRequest(bucket_id=bucket.bucket_id, job="apo")),
        (bucket.jobs.GetRolloutOrder, pb.GetRolloutOrderRequest(bucket_id=bucket.bucket_id, job="apo")),
    ]
    for call, request in calls:
        with pytest.raises(RemoteError) as caught, remote_errors():
            await call(request)
        assert caught.value.status.name == "NOT_FOUND"


async def test_files_of_a_job_are_told_hooks_included(bucket: BucketClient) -> None:
    with remote_errors():
        found = await bucket.jobs.ListJobFiles(pb.ListJobFilesRequest(bucket_id=bucket.bucket_id, job="api"))

    assert [file.path for file in found.files] == ["Makefile", "_hooks/hook_a.py", "_hooks/hook_b.ts", "manifest.json"]
    assert await bucket.read(found.files[0].sha256) == {found.files[0].sha256: b"start:\n"}


async def test_workers_come_by_position_and_filter(bucket: BucketClient) -> None:
    found = await workers(bucket)

    assert [(worker.name, worker.position, worker.disabled) for worker in found] == [
        ("10.0.0.2", 0, False),
        ("10.0.0.1", 1, False),
        ("10.0.0.3", 2, True),
    ]
    assert (list(found[0].labels), dict(found[0].tags), found[0].ssh_port) == (["api", "big", "worker"], {"rack": "r1"}, 2222)
    assert [worker.name for worker in await workers(bucket, labels=["big", "none"])] == ["10.0.0.2"]
    assert [worker.name for worker in await workers(bucket, workers=["10.0.0.3", "10.0.0.1"])] == ["10.0.0.1", "10.0.0.3"]
    first = await bucket.workers.ListWorkers(worker_pb2.ListWorkersRequest(bucket_id=bucket.bucket_id, page_size=2))
    assert [worker.name for worker in await workers(bucket, page_size=2, page_token=first.next_page_token)] == ["10.0.0.3"]


async def test_ports_tell_job_and_whether_they_are_fixed(bucket: BucketClient) -> None:
    with remote_errors():
        [port] = (await bucket.jobs.ListPorts(pb.ListPortsRequest(bucket_id=bucket.bucket_id))).ports

    assert (port.name, port.number, port.job, port.fixed) == ("http", 30000, "api", False)


async def test_demands_of_a_hook_are_told_by_job_and_hook(bucket: BucketClient) -> None:
    with remote_errors():
        request = pb.ListHookDemandsRequest(bucket_id=bucket.bucket_id, job="db", hook="hook_s")
        found = (await bucket.jobs.ListHookDemands(request)).demands

    assert [(demand.job, demand.hook, demand.demand_config_json) for demand in found] == [
        ("api", "hook_a", "{}"),
        ("api", "hook_b", '{"min_version": "1.0", "size": [1, {"a": 2}]}'),
    ]


async def test_a_hook_asks_about_itself_and_about_nobody_else(bucket: BucketClient) -> None:
    servicer = JobServicer(bucket.catalog.database)
    with acting_as(a_hook(bucket)):
        own = await servicer.ListHookDemands(pb.ListHookDemandsRequest(), None)
        with pytest.raises(PermissionDenied):
            await servicer.ListHookDemands(pb.ListHookDemandsRequest(job="api", hook="hook_a"), None)
        with pytest.raises(PermissionDenied):
            await servicer.ListJobs(pb.ListJobsRequest(bucket_id=bucket.bucket_id), None)

    assert len(own.demands) == 2


async def test_demands_of_a_job_that_left_do_not_count(bucket: BucketClient) -> None:
    await bucket.build(
        {path: text for path, text in FILES.items() if "/api/" not in path}
        | dict.fromkeys(("jobs/api/manifest.json", "jobs/api/Makefile"))
    )

    with acting_as(a_hook(bucket)):
        own = await JobServicer(bucket.catalog.database).ListHookDemands(pb.ListHookDemandsRequest(), None)

    assert list(own.demands) == []


async def test_a_gateway_may_list_nothing_by_itself(bucket: BucketClient) -> None:
    stub = JobServiceStub(bucket.catalog.anonymous().channel)

    with pytest.raises(RemoteError) as caught, remote_errors():
        await stub.ListJobs(pb.ListJobsRequest(), metadata=await bucket.catalog.token_for(Role.GATEWAY))
    assert caught.value.status.name == "PERMISSION_DENIED"
