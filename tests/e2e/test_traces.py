"""One command is one trace, from the command line to what a hook stores; and no secret is in it."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.e2e.maand import Bucket
from tests.testbed.collector import CollectedSpan, Collector, running_collector

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(240)]

SECRET = "correct-horse-battery-staple"
ALLOWED = {
    *("maand." + name for name in ("run", "bucket", "fence", "job", "worker", "step", "outcome", "exit_code", "timed_out")),
    *("maand." + name for name in ("event", "hook", "allocation", "index", "count", "task", "grpc_status", "http_status")),
    "error.type",
}
CREATE_RUN = "maand.catalog.v1.RunService/CreateRun"
PUT = "maand.catalog.v1.KvService/Put"
RUN = ["maand: maand deploy", f"maand: {CREATE_RUN}", f"maand-catalog: {CREATE_RUN}", "maand-executor: run deploy"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


def find(collector: Collector, service: str, name: str, **attributes: object) -> CollectedSpan:
    """Return the first span of a part with these attributes."""
    wanted = {f"maand.{key}": value for key, value in attributes.items()}
    return next(
        span
        for span in collector.spans
        if (span.service, span.name) == (service, name) and wanted.items() <= span.attributes.items()
    )


def test_a_deploy_is_one_trace_down_to_what_its_hooks_store(bucket: Bucket, collector: Collector) -> None:
    traced = replace(bucket, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}"})
    traced.must("secret", "set", "api", "password", stdin=SECRET)
    traced.must("build")
    traced.must("worker", "trust", "--yes")
    traced.must("deploy")
    made = traced.must("secret", "reveal", "api", "token").stdout.strip()
    traced.must("services", "stop")

    (whole,) = {span.trace_id for span in collector.spans if span.name == "maand deploy"}
    hook = find(collector, "maand-executor", "hook hook_migrate", event="pre_deploy")
    assert collector.ancestors(hook) == [*RUN, "maand-executor: batch pre_deploy", "maand-executor: hook hook_migrate"]
    assert (hook.attributes["maand.job"], hook.attributes["maand.exit_code"]) == ("api", 0)

    puts = [span for span in collector.spans if span.service == "maand-catalog" and span.name == PUT]
    put = next(span for span in puts if "maand-executor: hook hook_migrate" in collector.ancestors(span))
    assert collector.ancestors(put) == [
        *RUN,
        "maand-executor: batch pre_deploy",
        "maand-executor: hook hook_migrate",
        "maand-gateway: PUT /kv",
        f"maand-gateway: {PUT}",
        f"maand-catalog: {PUT}",
    ]
    bun = [span for span in collector.spans if "maand-executor: hook hook_report" in collector.ancestors(span)]
    assert "maand-gateway" in {span.service for span in bun}, "maand.ts sends it too"
    copied = find(collector, "maand-executor", "rsync")
    copying = ["maand-executor: step copy", "maand-executor: rsync"]
    assert collector.ancestors(copied) == [*RUN, "maand-executor: batch start", *copying]
    assert {put.trace_id, hook.trace_id, copied.trace_id} == {whole}

    assert {key for span in collector.spans for key in span.attributes} <= ALLOWED
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    for secret in (SECRET, made):
        assert secret.encode() not in sent


def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded(bucket: Bucket) -> None:
    look = "import sys, atexit; atexit.register(lambda: print([name for name in sys.modules if 'opentelemetry' in name]))"
    command = f"{look}; sys.argv = ['maand', 'info']; from maand_cli.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", command], cwd=bucket.path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"


def test_a_collector_that_is_away_holds_no_command_up_and_changes_no_answer(bucket: Bucket) -> None:
    away = replace(bucket, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert away.must("kv", "list", timeout=30).stdout == bucket.must("kv", "list").stdout
