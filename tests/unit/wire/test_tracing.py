"""Traces as every part handles them: what is configured, what is accepted from others, what costs nothing when nobody traces."""

import pytest

from maand_wire.tracing import (
    CURRENT,
    SILENT,
    child_span,
    current_traceparent,
    is_sampled,
    is_tracing_configured,
    root_span,
    valid_traceparent,
)
from maand_wire.tracing_grpc import make_client_interceptors, make_server_interceptors

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_wanted_when_opentelemetrys_own_variables_say_so(environment: dict[str, str], wanted: bool) -> None:
    assert is_tracing_configured(environment) is wanted


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        TRACE + "-more",
        TRACE.upper(),
        TRACE.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        TRACE + "\n",
    ],
)
def test_what_is_no_traceparent_is_taken_for_none(value: str) -> None:
    assert valid_traceparent(value) == ""
    assert not is_sampled(value)


def test_only_a_trace_that_somebody_records_is_gone_on_with() -> None:
    assert valid_traceparent(TRACE) == TRACE
    assert is_sampled(TRACE)
    assert not is_sampled(TRACE[:-2] + "00")


def test_without_a_tracer_spans_take_everything_and_are_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with root_span(None, "run", traceparent=TRACE, run="r") as run, child_span("step", job="api") as step:
        step.set(exit_code=3)
        step.fail("failed")
        assert run is step is SILENT is CURRENT.get()
        assert current_traceparent() == ""
    assert make_client_interceptors() == []
    assert make_server_interceptors(None) == []
