"""The KV entries that build owns, value by value, and what it leaves to others."""

from collections.abc import Mapping

import pytest

from maand_catalog.sealing.keyring import Keyring, Plaintext
from maand_catalog.store.kv.bulk import merge_namespaces
from maand_contracts.catalog.v1 import job_pb2
from maand_wire.errors import remote_errors
from tests.contracts.catalog.bucket_verbs import FLEET, TLS, BucketClient, a_new_bucket
from tests.contracts.catalog.serving import ServedCatalog

FILES = {
    "workers.json": """[
        {"host": "10.0.0.1", "labels": ["api", "ssd"], "memory": "4 gb", "cpu": "2 ghz", "tags": {"rack": "r1"}},
        {"host": "db1.internal", "hostname": "Database", "labels": ["db"]},
        {"host": "10.0.0.2", "labels": ["api"]}]""",
    "disabled.json": '{"workers": ["10.0.0.2"]}',
    "bucket.conf": 'port_min = 40000\nport_max = 40001\ndomain = "example.org"\n',
    "bucket.jobs.conf": '[api]\nmemory = "512 mb"\nlevel = "debug"\n',
    "jobs/api/manifest.json": """{"version": "1.2.0",
        "resources": {"memory": {"min": "256 mb", "max": "1 gb"}, "cpu": {"max": "1 ghz"}, "ports": {"http": {}, "admin": 9000}},
        "certs": {"tls": {}}}""",
    "jobs/api/vars.toml": 'greeting = "hello"\n',
    "jobs/db/manifest.json": "{}",
    "jobs/db/Makefile": "",
    "jobs/idle/manifest.json": "{}",
    "jobs/idle/Makefile": "",
}


@pytest.fixture
async def bucket(catalog: ServedCatalog) -> BucketClient:
    return await a_new_bucket(catalog)


async def hook_writes(bucket: BucketClient, namespace: str, entries: Mapping[str, str | Plaintext]) -> None:
    """Write entries as a hook of the job would."""
    keyring = Keyring(bucket.catalog.running.settings.kv_key_file)
    await bucket.catalog.database.write(
        lambda tx: merge_namespaces(tx, keyring, bucket_id=bucket.bucket_id, wanted={namespace: entries}, writer="hook")
    )


async def order(bucket: BucketClient, job: str = "api") -> job_pb2.GetRolloutOrderResponse:
    with remote_errors():
        return await bucket.jobs.GetRolloutOrder(job_pb2.GetRolloutOrderRequest(bucket_id=bucket.bucket_id, job=job))


async def test_every_key_of_the_specification_has_its_value(bucket: BucketClient) -> None:
    await bucket.build(FILES)

    found = await bucket.entries()
    ids = {
        namespace: [
            found[namespace].pop(key) for key in ("worker_id", "job_id", "certs/ca.crt", "certs/tls.crt") if key in entries
        ]
        for namespace, entries in found.items()
    }
    assert all(ids[namespace] for namespace in ("maand/worker", "maand/job/api", "maand/worker/10.0.0.1"))
    assert found == {
        "maand/bucket": {
            "bucket_id": bucket.bucket_id,
            "jobs": "api,db,idle",
            "activejobs": "api,db",
            "http": "40000",
            "admin": "9000",
        },
        "maand/worker": {
            "worker_workers": "10.0.0.1,db1.internal,10.0.0.2",
            "worker_workers_length": "3",
            "worker_0": "10.0.0.1",
            "worker_1": "db1.internal",
            "worker_2": "10.0.0.2",
            "api_workers": "10.0.0.1,10.0.0.2",
            "api_workers_length": "2",
            "api_0": "10.0.0.1",
            "api_1": "10.0.0.2",
            "db_workers": "db1.internal",
            "db_workers_length": "1",
            "db_0": "db1.internal",
            "ssd_workers": "10.0.0.1",
            "ssd_workers_length": "1",
            "ssd_0": "10.0.0.1",
        },
        "maand/worker/10.0.0.1": {
            "worker_ip": "10.0.0.1",
            "hostname": "10.0.0.1",
            "position": "0",
            "labels": "api,ssd,worker",
            "worker_memory_mb": "4096",
            "worker_cpu_mhz": "2000",
            "jobs": "api",
            "api_peers": "10.0.0.2",
            "api_allocation_index": "0",
            "ssd_peers": "",
            "ssd_allocation_index": "0",
            "worker_peers": "db1.internal,10.0.0.2",
            "worker_allocation_index": "0",
        },
        "maand/worker/10.0.0.1/tags": {"rack": "r1"},
        "maand/worker/db1.internal": {
            "worker_ip": "db1.internal",
            "hostname": "Database",
            "position": "1",
            "labels": "db,worker",
            "worker_memory_mb": "0",
            "worker_cpu_mhz": "0",
            "jobs": "db",
            "db_peers": "",
            "db_allocation_index": "0",
            "worker_peers": "10.0.0.1,10.0.0.2",
            "worker_allocation_index": "1",
        },
        "maand/worker/10.0.0.2": {
            "worker_ip": "10.0.0.2",
            "hostname": "10.0.0.2",
            "position": "2",
            "labels": "api,worker",
            "worker_memory_mb": "0",
            "worker_cpu_mhz": "0",
            "jobs": "api",
            "api_peers": "10.0.0.1",
            "api_allocation_index": "1",
            "worker_peers": "10.0.0.1,db1.internal",
            "worker_allocation_index": "2",
        },
        "maand/job/api": {
            "name": "api",
            "version": "1.2.0",
            "selectors": "api",
            "workers": "10.0.0.1,10.0.0.2",
            "workers_length": "2",
            "worker_0": "10.0.0.1",
            "worker_1": "10.0.0.2",
            "rollout_order": "10.0.0.1",
            "memory": "512",
            "cpu": "1000",
            "min_memory_mb": "256",
            "max_memory_mb": "1024",
            "min_cpu_mhz": "0",
            "max_cpu_mhz": "1000",
        },
        "maand/job/api/worker/10.0.0.1": {
            "api_allocation_index": "0",
            "peer_workers": "10.0.0.2",
            "version": "1.2.0",
            "certs/tls.key": "***",
        },
        "maand/job/api/worker/10.0.0.2": {
            "api_allocation_index": "1",
            "peer_workers": "10.0.0.1",
            "version": "1.2.0",
            "certs/tls.key": "***",
        },
        "maand/job/db": job_without_resources("db", "db1.internal"),
        "maand/job/db/worker/db1.internal": {"db_allocation_index": "0", "peer_workers": "", "version": "0.0.0"},
        "maand/job/idle": job_without_resources("idle"),
        "vars/bucket": {"port_min": "40000", "port_max": "40001", "domain": "example.org"},
        "vars/bucket/job/api": {"memory": "512 mb", "level": "debug"},
        "vars/job/api": {"greeting": "hello"},
    }


def job_without_resources(name: str, *hosts: str) -> dict[str, str]:
    amounts = ("memory", "cpu", "min_memory_mb", "max_memory_mb", "min_cpu_mhz", "max_cpu_mhz")
    return dict.fromkeys(amounts, "0") | {
        "name": name,
        "version": "0.0.0",
        "selectors": name,
        "workers": ",".join(hosts),
        "workers_length": str(len(hosts)),
        "rollout_order": ",".join(hosts),
        **{f"worker_{index}": host for index, host in enumerate(hosts)},
    }


async def test_stale_keys_go_and_equal_ones_make_no_version(bucket: BucketClient) -> None:
    await bucket.build({"workers.json": FLEET.replace('"api"]', '"api", "ssd"]'), "bucket.conf": "a = 1\nb = 2\n"})

    await bucket.build({"bucket.conf": "b = 2\n"})

    found = await bucket.entries()
    assert found["vars/bucket"] == {"b": "2"}
    assert not [key for key in found["maand/worker"] if key.startswith("ssd")]


async def test_a_hooks_order_holds_until_the_next_build_even_an_unchanged_one(bucket: BucketClient) -> None:
    await bucket.build()
    await hook_writes(bucket, "maand/job/api", {"rollout_order": "10.0.0.2,10.0.0.1"})
    chosen = await order(bucket)
    assert (list(chosen.workers), chosen.set_by_hook) == (["10.0.0.2", "10.0.0.1"], True)

    response = await bucket.build()

    after = await order(bucket)
    assert not response.changed
    assert (list(after.workers), after.set_by_hook, after.warning) == (["10.0.0.1", "10.0.0.2"], False, "")


@pytest.mark.parametrize("stale", ["10.0.0.2", "10.0.0.2,10.0.0.9", "10.0.0.1,10.0.0.1"])
async def test_an_order_that_is_no_permutation_is_ignored_with_a_warning(bucket: BucketClient, stale: str) -> None:
    await bucket.build()
    await hook_writes(bucket, "maand/job/api", {"rollout_order": stale})

    found = await order(bucket)

    assert (list(found.workers), found.set_by_hook) == (["10.0.0.1", "10.0.0.2"], False)
    assert "ignored" in found.warning


async def test_variables_of_a_job_are_merged_and_what_hooks_wrote_stays(bucket: BucketClient) -> None:
    await bucket.build({"jobs/api/vars.toml": "a = 1\nb = 2\n"})
    await hook_writes(bucket, "vars/job/api", {"hooked": "yes", "a": "changed by a hook"})

    await bucket.build({"jobs/api/vars.toml": "a = 1\n"})

    assert (await bucket.entries("vars/job"))["vars/job/api"] == {"a": "1", "hooked": "yes"}


async def test_secrets_of_jobs_are_never_touched(bucket: BucketClient) -> None:
    await bucket.build(FILES)
    await hook_writes(bucket, "secrets/job/api", {"token": Plaintext("s3cret-value")})

    await bucket.build()
    await bucket.build({"jobs/api/manifest.json": None, "jobs/api/Makefile": None})

    assert (await bucket.entries("secrets"))["secrets/job/api"] == {"token": "***"}


async def test_private_keys_are_stored_only_encrypted(bucket: BucketClient) -> None:
    await bucket.build({"jobs/api/manifest.json": TLS})

    stored = str(await bucket.everything())

    assert "BEGIN CERTIFICATE" in stored
    assert "PRIVATE KEY" not in stored
