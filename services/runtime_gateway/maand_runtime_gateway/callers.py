"""Whom a request comes from: its headers as gRPC metadata. What they are worth is decided by catalog and executor."""

from collections.abc import Iterable
from urllib.parse import quote

from maand_runtime_gateway.upstream import Caller
from maand_wire.channels import HOOK_CALLER, bearer_header

CLAIMS = {
    b"x-allocation-id": "maand-claimed-allocation",
    b"hook": "maand-claimed-hook",
    b"event": "maand-claimed-event",
}
"""HTTP headers in which a hook says who it is, and the metadata that carries the claim."""

REQUEST_ID = b"x-request-id"

LONGEST = 512
"""Characters of a header that are looked at. Tokens, ids and names are far shorter; gRPC refuses metadata beyond 16 KiB."""

FORWARDED = frozenset({b"authorization", REQUEST_ID, *CLAIMS})

Headers = Iterable[tuple[bytes, bytes]]


def read_caller(headers: Headers) -> Caller | None:
    """Read the caller; None without a bearer token.

    A header sent twice is read as HTTP reads it, joined by commas: two tokens are then no token, two claims disagree.
    """
    found = collect_headers(headers)
    token = read_bearer_token(found.get(b"authorization", b""))
    if token is None:
        return None
    claims = ((name, metadata_text(found[header])) for header, name in CLAIMS.items() if found.get(header))
    return Caller(metadata=(HOOK_CALLER, bearer_header(token), *claims), request_id=metadata_text(found.get(REQUEST_ID, b"")))


def collect_headers(headers: Headers) -> dict[bytes, bytes]:
    """Pick the headers that say something about the caller."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in FORWARDED:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def read_bearer_token(authorization: bytes) -> str | None:
    """Return the token of `Bearer <token>`; None for anything else."""
    scheme, _, token = authorization.strip().partition(b" ")
    token = token.strip()
    return metadata_text(token) if scheme.lower() == b"bearer" and token else None


def metadata_text(value: bytes) -> str:
    """Return a header value as gRPC metadata can carry it: other than printable ASCII is escaped, and so matches nothing."""
    text = value[:LONGEST].decode("latin-1").strip()
    return text if text.isascii() and text.isprintable() else quote(text, safe="")
