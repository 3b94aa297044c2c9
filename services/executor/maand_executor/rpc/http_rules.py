"""Where a hook's HTTP request may go, and where a redirect leads. Pure.

Allowed are the hosts of the job's workers, exactly as workers.json names them: an address equals another spelling of itself, a
name only itself. Nothing is resolved to find out.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urljoin, urlsplit

from maand_executor.rpc.errors import InvalidCall, WorkerNotAllowed

MOST_REDIRECTS = 5
DEFAULT_PORTS = {"http": 80, "https": 443}
METHOD = re.compile(r"[A-Za-z][A-Za-z-]{0,31}")
CONNECT = "CONNECT"
"""Asks for a tunnel: what comes after its answer is no HTTP, and a hook could do nothing with it."""
UNSAFE_IN_URL = re.compile(r"[^\x21-\x7e]")

OWN_HEADERS = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Headers that belong to one connection: ours to set."""
PRIVATE_HEADERS = frozenset({"authorization", "cookie", "host", "proxy-authorization"})
"""Headers that do not follow a redirect to another address."""

Header = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Target:
    """An address that may be asked, and what to ask it for."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What goes into the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL."""
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """One request as it is sent."""

    method: str
    target: Target
    headers: Sequence[Header] = ()
    body: bytes = b""


def parse_target(url: str, allowed_hosts: Collection[str]) -> Target:
    """Return where a URL leads. Raises `InvalidCall`, `WorkerNotAllowed`."""
    if UNSAFE_IN_URL.search(url):
        raise InvalidCall("the URL holds spaces, control characters or characters that are not ASCII: percent-encode them")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidCall(f"the URL cannot be understood: {error}") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        raise InvalidCall("the URL must be http://host[:port]/… or https://host[:port]/…, without a user")
    host = allowed_host(parts.hostname, allowed_hosts)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme=parts.scheme, host=host, port=DEFAULT_PORTS[parts.scheme] if port is None else port, path=path)


def allowed_host(host: str, allowed_hosts: Collection[str]) -> str:
    """Return the worker's host that equals this one. Raises `WorkerNotAllowed`."""
    for allowed in allowed_hosts:
        if comparable_host(host) == comparable_host(allowed):
            return allowed
    raise WorkerNotAllowed(f'"{host}" is not the address of a worker of this hook\'s job')


def comparable_host(host: str) -> IPv4Address | IPv6Address | str:
    """Return what two spellings of one address have in common."""
    try:
        return ip_address(host)
    except ValueError:
        return host.lower()


def check_method(method: str) -> str:
    """Return a method in upper case. Raises `InvalidCall`."""
    if not METHOD.fullmatch(method):
        raise InvalidCall(f'"{method}" is no HTTP method')
    if method.upper() == CONNECT:
        raise InvalidCall("CONNECT asks for a tunnel, which a hook cannot use: send GET, HEAD, POST or another method")
    return method.upper()


def own_headers_removed(headers: Sequence[Header]) -> list[Header]:
    """Return the headers a hook may set."""
    return [(name, value) for name, value in headers if name.lower() not in OWN_HEADERS]


def redirect_request(request: HttpRequest, status: int, location: str, allowed_hosts: Collection[str]) -> HttpRequest:
    """Return the request a redirect asks for, by the browsers' rules.

    Raises `WorkerNotAllowed` when it leads away, `InvalidCall` when it leads nowhere.
    """
    try:
        url = urljoin(request.target.url, location)
    except ValueError as error:
        raise InvalidCall(f"the URL cannot be understood: {error}") from error
    target = parse_target(url, allowed_hosts)
    follow_up = replace(request, target=target)
    same_address = (target.scheme, target.host, target.port) == (request.target.scheme, request.target.host, request.target.port)
    if not same_address:
        kept = [(name, value) for name, value in request.headers if name.lower() not in PRIVATE_HEADERS]
        follow_up = replace(follow_up, headers=kept)
    if status == 303 or (status in (301, 302) and request.method == "POST"):
        kept = [(name, value) for name, value in follow_up.headers if name.lower() != "content-type"]
        return replace(follow_up, method="HEAD" if request.method == "HEAD" else "GET", headers=kept, body=b"")
    return follow_up
