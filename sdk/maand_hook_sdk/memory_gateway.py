"""A hook API without maand: the same routes over values in memory, on a free loopback port. Standard library only.

with MemoryGateway(MemoryState()) as gateway:
    token = gateway.begin(Identity(job="api", worker="10.0.0.1", …))
    …  # a hook with HOOK_API_HOST, HOOK_API_PORT and HOOK_API_TOKEN
    gateway.calls, gateway.kv.content()
"""

import json
import secrets
import select
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from maand_hook_sdk.memory_identity import ApiError, Identity
from maand_hook_sdk.memory_kv import KvStore
from maand_hook_sdk.memory_routes import ROUTES, MemoryCall, MemoryRoute, check_fields
from maand_hook_sdk.memory_semaphores import Semaphores
from maand_hook_sdk.memory_state import MemoryState

MAX_BODY = 2 * 1024 * 1024

CLAIMS = {"X-ALLOCATION-ID": "allocation_id", "HOOK": "hook", "EVENT": "event"}
"""Headers that must agree with the token, and what they claim."""


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One call that a hook made. Fields of secret writes are masked."""

    method: str
    path: str
    fields: Mapping[str, Any]
    status: int
    answer: Any = field(repr=False)


class MemoryGateway:
    """The gateway and everything it remembers."""

    def __init__(self, state: MemoryState) -> None:
        self.state = state
        self.kv = KvStore()
        self.semaphores = Semaphores()
        self.calls: list[RecordedCall] = []
        self.demands: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        self._identities: dict[str, Identity] = {}
        for namespace, values in state.kv.items():
            for key, value in values.items():
                self.kv.put(namespace, key, str(value))

    def begin(self, identity: Identity) -> str:
        """Begin an invocation and return its token."""
        token = "mh_" + secrets.token_urlsafe(32)
        self.adopt(token, identity)
        return token

    def adopt(self, token: str, identity: Identity) -> None:
        """Accept a token that somebody else gave out."""
        self._identities[token] = identity

    def end(self, token: str) -> None:
        """End an invocation: its token is worthless, its slots are free."""
        self._identities.pop(token, None)
        self.semaphores.end(token)

    def identity_of(self, token: str) -> Identity | None:
        """Return whose token it is."""
        return self._identities.get(token)

    def demands_of(self, identity: Identity) -> list[Mapping[str, Any]]:
        """Return who demands a hook: as set for it, else as the state says."""
        return self.demands.get((identity.job, identity.hook), list(self.state.demands))

    @property
    def address(self) -> str:
        """Where it serves, `host:port`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        handler = type("Handler", (Handler,), {"gateway": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Server(ThreadingHTTPServer):
    """One thread per connection."""

    daemon_threads = True
    request_queue_size = 256


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for one connection."""

    gateway: MemoryGateway
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's word
        """Log nothing; calls are recorded."""

    def answer_call(self) -> None:
        """Answer one request of any method."""
        url = urlsplit(self.path)
        headers: dict[str, str] = {}
        fields: Mapping[str, Any] = {}
        body = self._read_body()
        try:
            identity, token = self._caller()
            route = self._route(url.path)
            fields = self._fields(url.query, body, route)
            status, answer = 200, route.answer(self.gateway, self._call(identity, token, fields))
        except ApiError as error:
            status, answer = error.status, {"error": {"code": error.code, "message": error.message, "details": error.details}}
            headers = {str(name): str(value) for name, value in error.details.items() if name == "allow"}
        self._record(url.path, fields, status, answer)  # first: whoever has the answer finds the call recorded
        self._send(status, answer, headers)

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = answer_call  # noqa: N815 - the base class's names

    def _caller(self) -> tuple[Identity, str]:
        scheme, _, token = (self.headers.get("Authorization") or "").partition(" ")
        identity = self.gateway.identity_of(token.strip()) if scheme.lower() == "bearer" else None
        if identity is None:
            raise ApiError(401, "unauthenticated", "this route needs the token that maand gives the hook in HOOK_API_TOKEN")
        for header, attribute in CLAIMS.items():
            if any(claimed != getattr(identity, attribute) for claimed in self.headers.get_all(header, [])):
                raise ApiError(403, "identity_mismatch", f"the header {header} disagrees with the token; leave it out")
        return identity, token.strip()

    def _route(self, path: str) -> MemoryRoute:
        route = ROUTES.get((self.command, path))
        if route is None:
            methods = ", ".join(sorted(method for method, known in ROUTES if known == path))
            if methods:
                raise ApiError(405, "method_not_allowed", f"this route answers to {methods} only", allow=methods)
            raise ApiError(404, "route_not_found", "there is no such route; docs/hook-api.md lists them")
        return route

    def _fields(self, query: str, body: bytes, route: MemoryRoute) -> Mapping[str, Any]:
        self._check_body(body)
        in_query = refuse_repeated_fields(parse_qsl(query, keep_blank_values=True)) if self.command in ("GET", "DELETE") else {}
        if body and in_query:
            raise ApiError(400, "invalid_argument", "send the fields either as query parameters or as a JSON body, not as both")
        return check_fields(in_query or parse_object(body), route.takes, from_query=bool(in_query))

    def _read_body(self) -> bytes:
        """Read the whole body, whatever becomes of the request: the next one begins behind it."""
        length = self.headers.get("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding") or not length.isdigit():
            self.close_connection = True
            return b""
        return self.rfile.read(int(length))

    def _check_body(self, body: bytes) -> None:
        if self.close_connection and self.headers.get("Transfer-Encoding"):
            raise ApiError(400, "invalid_argument", "send bodies with a Content-Length")
        if len(body) > MAX_BODY:
            raise ApiError(413, "body_too_large", f"the request body is larger than {MAX_BODY} bytes; split it")
        media_type = (self.headers.get("Content-Type") or "application/json").partition(";")[0].strip().lower()
        if body and media_type != "application/json":
            raise ApiError(415, "unsupported_media_type", "bodies are JSON: send them as `Content-Type: application/json`")

    def _call(self, identity: Identity, token: str, fields: Mapping[str, Any]) -> MemoryCall:
        return MemoryCall(
            identity=identity,
            token=token,
            fields=fields,
            request_id=self.headers.get("X-REQUEST-ID") or "",
            client_is_there=self._client_is_there,
        )

    def _client_is_there(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return not readable or bool(self.connection.recv(1, 2))  # 2 = MSG_PEEK

    def _send(self, status: int, answer: Any, headers: Mapping[str, str]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)
        self.wfile.flush()

    def _record(self, path: str, fields: Mapping[str, Any], status: int, answer: Any) -> None:
        shown = {name: "***" if path == "/kv/secret" and name == "value" else value for name, value in fields.items()}
        given = {name: value for name, value in shown.items() if value not in (None, "", False, {})}
        self.gateway.calls.append(RecordedCall(method=self.command, path=path, fields=given, status=status, answer=answer))


def refuse_repeated_fields(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse fields that are given twice: they have no single meaning."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ApiError(400, "invalid_argument", f"`{twice}` is given twice; give each field once")
    return fields


def parse_object(body: bytes) -> Mapping[str, Any]:
    """Read a JSON object."""
    try:
        content = json.loads(body or b"{}", object_pairs_hook=refuse_repeated_fields)
    except ValueError:
        raise ApiError(400, "malformed_json", "the body is not valid JSON; send one JSON object in UTF-8") from None
    if not isinstance(content, dict):
        raise ApiError(400, "malformed_json", "the body must be a JSON object with the route's fields")
    return content
