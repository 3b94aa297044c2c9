"""Builds and ports: numbers are kept, freed and refused."""

import json

import pytest

from maand_contracts.catalog.v1 import allocation_pb2 as pb
from maand_wire.errors import RemoteError
from tests.contracts.catalog.bucket_verbs import BucketClient, a_new_bucket
from tests.contracts.catalog.serving import ServedCatalog

ONE_WORKER = '[{"host": "10.0.0.1", "labels": ["api"]}]'


PORT = '{"resources": {"ports": {"http": {}}}}'


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    return await a_new_bucket(catalog)


async def test_ports_are_kept_whoever_comes_and_goes(bucket: BucketClient) -> None:
    other = {"jobs/aaa/manifest.json": '{"resources": {"ports": {"first": {}}}}', "jobs/aaa/Makefile": ""}
    await bucket.build({"jobs/api/manifest.json": PORT})
    assert await bucket.ports() == {"http": 30000}

    await bucket.build({"jobs/api/manifest.json": PORT, **other})
    assert await bucket.ports() == {"first": 30001, "http": 30000}

    await bucket.build({"jobs/api/manifest.json": '{"resources": {"ports": {"http": {}, "more": {}}}}'})
    assert await bucket.ports() == {"http": 30000, "more": 30001}


def job_with_port(name: str, port: str, **more: object) -> dict[str, str]:
    manifest = {"selectors": ["api"], "resources": {"ports": {f"{name}_port": json.loads(port)}}, **more}
    return {f"jobs/{name}/manifest.json": json.dumps(manifest, indent=1), f"jobs/{name}/Makefile": "", f"jobs/{name}/h.py": ""}


async def running_on_9101(bucket: BucketClient) -> None:
    await bucket.build({**job_with_port("api", "9101"), **job_with_port("web", "9102")})
    await bucket.promote("10.0.0.1")


SWAPPED = {**job_with_port("api", "9102"), **job_with_port("web", "9101")}
"""`api` is at the old number until a deploy restarts it."""


async def test_a_port_that_another_job_still_runs_on_is_refused_with_its_position_and_the_way(bucket: BucketClient) -> None:
    await running_on_9101(bucket)
    before = await bucket.everything()
    with pytest.raises(RemoteError) as caught:
        await bucket.build(SWAPPED)
    [problem] = caught.value.problems
    assert (problem.code, problem.file, problem.line) == ("port_held", "workspace/jobs/web/manifest.json", 7)
    assert problem.message == 'port 9101 is held on 10.0.0.1 by job "api", which runs there now'
    assert "move api to a free port or disable it, build and deploy; then give 9101 to web" in problem.help
    assert await bucket.everything() == before

    await bucket.build({**job_with_port("api", "9103"), **job_with_port("web", "9102")})
    with pytest.raises(RemoteError):
        await bucket.build(SWAPPED)  # what counts is what runs, not what was built last
    await bucket.promote("10.0.0.1")
    assert (await bucket.build(SWAPPED)).changed


DEMANDS_API = {"hook_h": {"executed_on": ["cli"], "demands": {"job": "api", "hook": "hook_h"}}}
HOOK = {"hook_h": {"executed_on": ["cli"]}}
FREED_BEFORE: dict[str, dict[str, str | None]] = {
    "disabled": {**SWAPPED, "disabled.json": '{"jobs": {"api": {}}}'},
    "gone": {**SWAPPED, **dict.fromkeys(job_with_port("api", "9102")), "jobs/api/manifest.json": None},
    "demanded": {
        **job_with_port("api", "9102", version="1", hooks=HOOK),
        **job_with_port("web", "9101", version="1", hooks=DEMANDS_API),
        "jobs/api/_hooks/hook_h.py": "",
        "jobs/web/_hooks/hook_h.py": "",
    },
    "not-wanted-there": {**SWAPPED, "disabled.json": '{"jobs": {"web": {"allocations": ["10.0.0.1"]}}}'},
}


@pytest.mark.parametrize("how", FREED_BEFORE)
async def test_a_port_that_is_free_by_the_time_its_next_job_starts_may_move(bucket: BucketClient, how: str) -> None:
    await running_on_9101(bucket)
    assert (await bucket.build(FREED_BEFORE[how])).changed


async def test_a_number_of_the_pool_goes_to_nobody_else_while_it_is_held(bucket: BucketClient) -> None:
    await bucket.build(job_with_port("api", "{}"))
    await bucket.promote("10.0.0.1")
    await bucket.build({**job_with_port("api", "9101"), **job_with_port("web", "{}")})
    assert await bucket.ports() == {"api_port": 9101, "web_port": 30001}


async def test_an_attempt_that_failed_may_hold_the_old_and_the_new_port(bucket: BucketClient) -> None:
    await running_on_9101(bucket)
    await bucket.build({**job_with_port("api", "9103"), **job_with_port("web", "9102")})
    await bucket.settle("10.0.0.1", pb.ALLOCATION_STATE_DEPLOYING)
    await bucket.settle("10.0.0.1", pb.ALLOCATION_STATE_FAILED)
    for number in ("9101", "9103"):
        with pytest.raises(RemoteError):
            await bucket.build({**job_with_port("api", "9104"), **job_with_port("web", number)})


async def test_an_empty_pool_is_a_problem_of_the_port(bucket: BucketClient) -> None:
    with pytest.raises(RemoteError) as caught:
        await bucket.build(
            {
                "bucket.conf": "port_min = 80\nport_max = 80\n",
                "jobs/api/manifest.json": '{"resources": {"ports": {"a": {}, "b": {}}}}',
            }
        )

    [problem] = caught.value.problems
    assert (problem.code, problem.file, problem.line, problem.column) == (
        "no_free_port",
        "workspace/jobs/api/manifest.json",
        1,
        40,
    )
