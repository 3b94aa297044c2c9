"""What can go wrong in the gateway itself. Everything else comes from the services and is only translated (`statuses`).

GatewayError
├── PortTaken             starting: the port is in use
├── NotLoopback           starting: the address would be reachable from outside
└── RequestRefused        answering: carries the HTTP status
    ├── MissingToken      401
    ├── MalformedJson     400
    ├── InvalidFields     400
    ├── BodyTooSlow       408
    ├── BodyTooLarge      413
    ├── NotJson           415
    ├── RouteNotFound     404
    ├── MethodNotAllowed  405
    ├── ClientGone        nobody is left to be answered
    └── GatewayStopping   503
"""

from collections.abc import Mapping
from typing import ClassVar


class GatewayError(Exception):
    """Something went wrong in the runtime gateway; the message says what to do."""

    code: ClassVar[str] = "gateway_error"


class PortTaken(GatewayError):
    """Another process serves on the hook API's port. Stop it, or set MAAND_HOOK_API_LISTEN to another loopback port."""

    code = "port_taken"

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is taken by another process; set MAAND_HOOK_API_LISTEN to another loopback port")
        self.facts = {"address": address}


class NotLoopback(GatewayError):
    """The hook API is for processes of this machine. Set MAAND_HOOK_API_LISTEN to 127.0.0.1:PORT or [::1]:PORT."""

    code = "not_loopback"

    def __init__(self, address: str) -> None:
        super().__init__(f"{address!r} is not a loopback host:port; the hook API serves only this machine, use 127.0.0.1:8080")
        self.facts = {"address": address}


class RequestRefused(GatewayError):
    """The request cannot be translated. The message says how to send it right; it never repeats what was sent."""

    status: ClassVar[int] = 400

    def __init__(self, message: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})


class MissingToken(RequestRefused):
    """Send `Authorization: Bearer $HOOK_API_TOKEN`; maand gives every hook process its token."""

    status = 401
    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__(
            "this route needs the header `Authorization: Bearer $HOOK_API_TOKEN`, which maand gives every hook process"
        )


class MalformedJson(RequestRefused):
    """Send a JSON object in UTF-8."""

    code = "malformed_json"


class InvalidFields(RequestRefused):
    """Send the fields the route documents, with their types."""

    code = "invalid_argument"


class BodyTooSlow(RequestRefused):
    """Send the whole body without a pause."""

    status = 408
    code = "request_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the request body was not complete after {seconds:g} s; send it without a pause")


class BodyTooLarge(RequestRefused):
    """Keep request bodies below the limit."""

    status = 413
    code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than {limit} bytes; split it", details={"limit_bytes": limit})


class NotJson(RequestRefused):
    """Send bodies as `Content-Type: application/json`."""

    status = 415
    code = "unsupported_media_type"

    def __init__(self) -> None:
        super().__init__("bodies are JSON: send them with the header `Content-Type: application/json`")


class RouteNotFound(RequestRefused):
    """See /openapi.json for the routes."""

    status = 404
    code = "route_not_found"

    def __init__(self) -> None:
        super().__init__("there is no such route; /openapi.json and /docs list them")


class MethodNotAllowed(RequestRefused):
    """Use one of the methods in the Allow header."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this route answers to {allowed} only", details={"allow": allowed})
        self.allowed = allowed


class ClientGone(RequestRefused):
    """The client closed its connection; the answer is for the log only."""

    code = "client_gone"

    def __init__(self) -> None:
        super().__init__("the client closed its connection before it was answered")


class GatewayStopping(RequestRefused):
    """The gateway is being stopped. Try again when maand is back."""

    status = 503
    code = "stopping"

    def __init__(self) -> None:
        super().__init__("the runtime gateway is stopping; try again")
