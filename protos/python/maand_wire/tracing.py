"""Traces: which span the present work belongs to, and how spans reach an OpenTelemetry collector when one is configured.

    command line ─► catalog (CreateRun) ─► executor (run ─► batch ─► step, hook) ─► hook's HTTP call ─► gateway ─► catalog

A part opens a `root_span` where work arrives (a command, a call, a run); everything below opens a `child_span` of whatever is
current, and does nothing when nothing is. Between parts the span travels as W3C `traceparent`.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) there is no tracer, and nothing of OpenTelemetry is imported. Spans
carry ids, names of the workspace, and outcomes; never values, commands, environments, or texts of errors.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
HEADER = "traceparent"
PATIENCE_SECONDS = 10.0
"""Of services, which lose nothing by it; a stop waits that long at most."""


class Span:
    """The span of work that nobody traces: takes everything, keeps nothing."""

    traceparent = ""
    """How it travels to another part. Empty when nobody traces."""

    def set(self, **attributes: str | int | bool) -> None:
        """Add facts, named `maand.<name>`; empty ones are left out."""

    def fail(self, kind: str) -> None:
        """Mark it as failed, with the kind of failure in a word."""

    def child(self, name: str, *, kind: str = "internal") -> "Span":
        """Begin a span below this one."""
        return self

    def end(self) -> None:
        """End it."""


SILENT = Span()
CURRENT: ContextVar[Span] = ContextVar("maand_span", default=SILENT)


class Tracer:
    """Sends the spans of one part to the collector. Made by `make_tracer`."""

    def __init__(self, service: str, *, patience_seconds: float) -> None:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=patience_seconds)))
        self._tracer = self._provider.get_tracer("maand")

    def begin(self, name: str, *, kind: str = "internal", traceparent: str = "") -> Span:
        """Begin a span below one of another part, or a trace of its own."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        return self.start(name, kind, TraceContextTextMapPropagator().extract({HEADER: traceparent} if traceparent else {}))

    def start(self, name: str, kind: str, context: Any) -> Span:
        """Begin a span in OpenTelemetry's context."""
        from opentelemetry.trace import SpanKind

        return RecordedSpan(self, self._tracer.start_span(name, context=context, kind=SpanKind[kind.upper()]))

    def close(self) -> None:
        """Send what is left, as far as the collector takes it. Blocks: call it outside an event loop's thread."""
        self._provider.shutdown()


class RecordedSpan(Span):
    """A span that the collector will hear of."""

    def __init__(self, tracer: Tracer, span: Any) -> None:
        self._tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def set(self, **attributes: str | int | bool) -> None:
        """Add facts."""
        for name, value in attributes.items():
            if value != "":
                self._span.set_attribute(f"maand.{name}", value)

    def fail(self, kind: str) -> None:
        """Mark it as failed."""
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", kind)

    def child(self, name: str, *, kind: str = "internal") -> Span:
        """Begin a span below this one."""
        from opentelemetry.trace import set_span_in_context

        return self._tracer.start(name, kind, set_span_in_context(self._span))

    def end(self) -> None:
        """End it."""
        self._span.end()


def is_tracing_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are wanted, by OpenTelemetry's own variables."""
    refused = environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none"
    return not refused and any(environment.get(name) for name in ENDPOINTS)


def make_tracer(service: str, *, patience_seconds: float = PATIENCE_SECONDS) -> Tracer | None:
    """Make the tracer of a part, where traces are wanted. Says so on standard error when OpenTelemetry is not installed.

    A collector that does not take spans within `patience_seconds` never gets them.
    """
    if not is_tracing_configured():
        return None
    try:
        return Tracer(service, patience_seconds=patience_seconds)
    except ImportError:
        sys.stderr.write("warning: OTEL_EXPORTER_OTLP_ENDPOINT is set but nothing is traced: pip install 'maand[tracing]'\n")
        return None


@contextmanager
def root_span(
    tracer: Tracer | None, name: str, *, kind: str = "internal", traceparent: str = "", **attributes: str | int | bool
) -> Iterator[Span]:
    """Do the work of the block as a span, below one of another part when `traceparent` names it."""
    if tracer is None:
        yield SILENT
        return
    with use_span(tracer.begin(name, kind=kind, traceparent=traceparent), attributes) as span:
        yield span


@contextmanager
def child_span(name: str, *, kind: str = "internal", **attributes: str | int | bool) -> Iterator[Span]:
    """Do the work of the block as a span below the current one; nothing when there is none."""
    above = CURRENT.get()
    if above is SILENT:
        yield SILENT
        return
    with use_span(above.child(name, kind=kind), attributes) as span:
        yield span


@contextmanager
def use_span(span: Span, attributes: Mapping[str, str | int | bool]) -> Iterator[Span]:
    """Make a span the current one for the block, and end it; an exception marks it as failed by its class, never its text."""
    span.set(**attributes)
    before = CURRENT.set(span)
    try:
        yield span
    except BaseException as error:
        span.fail(type(error).__name__)
        raise
    finally:
        CURRENT.reset(before)
        span.end()


def current_traceparent() -> str:
    """Return the current span as it travels to another part; empty when nobody traces."""
    return CURRENT.get().traceparent


def valid_traceparent(value: str) -> str:
    """Return a `traceparent` as it came, or nothing when it is none."""
    return value if TRACEPARENT.fullmatch(value) else ""


def is_sampled(traceparent: str) -> bool:
    """Whether somebody records the trace: only then is it worth adding to."""
    return bool(valid_traceparent(traceparent)) and bool(int(traceparent[-2:], 16) & 1)
