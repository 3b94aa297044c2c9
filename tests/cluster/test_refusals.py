"""Whoever may not do something in a cluster is told why, each in its own words."""

import pytest

from tests.cluster.cluster import Cluster
from tests.e2e.maand import Bucket
from tests.testbed.authority import DAY, TestAuthority

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]


def context(cluster: Cluster, bucket: Bucket, name: str, *options: object) -> None:
    addresses = "127.0.0.1:17600,127.0.0.1:17610"
    bucket.must("context", "add", name, "--catalog", addresses, *map(str, options))


def test_without_a_token_nothing_is_answered(cluster: Cluster, bucket: Bucket) -> None:
    context(cluster, bucket, "nobody", "--ca", cluster.people / "ca.crt")
    refused = bucket.must("--context", "nobody", "info", exit_code=5)
    assert "this call carries no API token" in refused.stderr


def test_a_viewer_reads_and_does_not_deploy(cluster: Cluster, bucket: Bucket) -> None:
    context(cluster, bucket, "viewer", "--ca", cluster.people / "ca.crt", "--token-file", cluster.people / "viewer.token")
    assert len(bucket.must("--context", "viewer", "cat", "allocations", "-o", "json").json()) == 3
    refused = bucket.must("--context", "viewer", "deploy", exit_code=5)
    assert "cluster viewer may not do this; it needs the role operator" in refused.stderr


def test_an_executors_token_is_worth_nothing_where_people_call(cluster: Cluster, bucket: Bucket) -> None:
    token = cluster.people / "stolen"
    cluster.copy("init", "/cluster/executor/token", token)
    context(cluster, bucket, "thief", "--ca", cluster.people / "ca.crt", "--token-file", token)
    refused = bucket.must("--context", "thief", "info", exit_code=5)
    assert "those show a certificate here" in refused.stderr


def test_an_expired_certificate_is_told_with_its_date(cluster: Cluster, bucket: Bucket) -> None:
    tls = TestAuthority(cluster.config / "late").files("me", lives=(-2 * DAY, -DAY))
    files = ("--ca", cluster.people / "ca.crt", "--certificate", tls.certificate, "--key", tls.key)
    context(cluster, bucket, "late", *files, "--token-file", cluster.people / "operator.token")
    refused = bucket.must("--context", "late", "info", exit_code=5)
    assert "me.crt expired on" in refused.stderr


def test_servers_of_another_ca_are_not_believed(cluster: Cluster, bucket: Bucket) -> None:
    stranger = TestAuthority(cluster.config / "stranger")
    context(cluster, bucket, "stranger", "--ca", stranger.ca, "--token-file", cluster.people / "operator.token")
    refused = bucket.must("--context", "stranger", "info", exit_code=7)
    assert "the server's certificate is not signed by the CA" in refused.stderr
