"""`python -m maand_wire.probe ADDRESS`: exit 0 when the server there answers SERVING, for containers' health checks.

ADDRESS is `unix:/path` or `host:port`; over TCP the server's certificate is checked against `MAAND_TLS_CA`.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2

from maand_wire.channels import open_blocking_channel
from maand_wire.endpoints import Endpoint, EndpointError, TlsFiles

TIMEOUT_SECONDS = 2.0


def main() -> None:
    """Ask once and exit accordingly."""
    try:
        sys.exit(0 if is_serving(Endpoint(address=sys.argv[1], tls=TlsFiles.from_environment())) else 1)
    except (EndpointError, grpc.RpcError) as error:
        sys.exit(f"not serving: {error}")


def is_serving(endpoint: Endpoint) -> bool:
    """Ask the standard health service about the server as a whole."""
    with open_blocking_channel(endpoint) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer: health_pb2.HealthCheckResponse = check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        return answer.status == health_pb2.HealthCheckResponse.SERVING


if __name__ == "__main__":
    main()
