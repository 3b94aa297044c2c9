"""An OpenTelemetry collector for tests: a real OTLP receiver on a loopback port that keeps every span it is sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc


@dataclass(frozen=True, kw_only=True)
class CollectedSpan:
    """One span, with the part that sent it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str | int | bool]
    failed: bool


@dataclass(kw_only=True)
class Collector(pb_grpc.TraceServiceServicer):
    """What was received."""

    address: str = ""
    requests: list[pb.ExportTraceServiceRequest] = field(default_factory=list)

    def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:
        """Keep what is sent."""
        self.requests.append(request)
        return pb.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[CollectedSpan]:
        """Return every span received."""
        return [
            CollectedSpan(
                service=attributes_of(group.resource)["service.name"],
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                attributes=attributes_of(span),
                failed=span.status.code == span.status.STATUS_CODE_ERROR,
            )
            for request in self.requests
            for group in request.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def ancestors(self, span: CollectedSpan) -> list[str]:
        """Return `service: name` of a span and of everything above it, the uppermost first."""
        by_id = {one.span_id: one for one in self.spans}
        chain: list[str] = []
        at: CollectedSpan | None = span
        while at is not None:
            chain.insert(0, f"{at.service}: {at.name}")
            at = by_id.get(at.parent_id)
        return chain


def attributes_of(message: Any) -> dict[str, Any]:
    """Return attributes as plain values."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in message.attributes}


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Receive spans until the block ends."""
    server = grpc.server(ThreadPoolExecutor(2))
    collector = Collector()
    pb_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]  # generated without types
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
