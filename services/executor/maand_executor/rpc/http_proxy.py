"""Sends a hook's HTTP request to a worker of its job: TLS as the bucket trusts, redirects under the same rule, one time limit."""

import asyncio
import ssl
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from maand_executor.rpc.errors import HttpRequestFailed, HttpTimedOut, InvalidCall
from maand_executor.rpc.http_client import HttpAnswer, send_request
from maand_executor.rpc.http_rules import MOST_REDIRECTS, HttpRequest, redirect_request
from maand_executor.rules.facts import Certificates

ANSWER_BODY_LIMIT = 4 * 1024 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, kw_only=True)
class TlsManners:
    """How HTTPS is spoken: the name of one of the allocation's certificates to present, the name to verify, whether to verify."""

    client_certificate: str = ""
    server_name: str = ""
    insecure: bool = False


async def proxy_request(
    request: HttpRequest,
    *,
    allowed_hosts: Collection[str],
    certificates: Certificates,
    allocation_id: str,
    tls: TlsManners,
    limit: timedelta,
) -> HttpAnswer:
    """Send a request and follow at most five redirects. Raises errors of `rpc.errors`."""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            context = await asyncio.to_thread(tls_context, certificates, allocation_id, tls)
            return await send_following_redirects(request, allowed_hosts, context, tls.server_name)
    except TimeoutError:
        raise HttpTimedOut(f"{request.target.url}: no complete answer within {limit.total_seconds():g} s") from None


async def send_following_redirects(
    request: HttpRequest, allowed_hosts: Collection[str], context: ssl.SSLContext, server_name: str
) -> HttpAnswer:
    """Ask, and ask again where the answer says so."""
    for _ in range(MOST_REDIRECTS + 1):
        secure = request.target.scheme == "https"
        answer = await send_request(
            request, tls=context if secure else None, server_name=server_name, body_limit=ANSWER_BODY_LIMIT
        )
        location = answer.header("location")
        if answer.status not in REDIRECTS or not location:
            return answer
        try:
            request = redirect_request(request, answer.status, location, allowed_hosts)
        except InvalidCall as error:  # the worker's fault, not that of the hook's request
            raise HttpRequestFailed(f"{request.target.url} redirects to where nothing can be asked: {error}") from error
    raise HttpRequestFailed(f"{request.target.url}: more than {MOST_REDIRECTS} redirects")


def tls_context(certificates: Certificates, allocation_id: str, tls: TlsManners) -> ssl.SSLContext:
    """Return what HTTPS trusts and presents: the bucket's CA and nothing else. Reads and writes files: run it in a thread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificates.ca_certificate_pem:
        context.load_verify_locations(cadata=certificates.ca_certificate_pem)
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.client_certificate:
        load_client_certificate(context, certificates, allocation_id, tls.client_certificate)
    return context


def load_client_certificate(context: ssl.SSLContext, certificates: Certificates, allocation_id: str, name: str) -> None:
    """Load a certificate of the allocation; the ssl module takes files only, so they live for a moment, readable by us alone."""
    leaves = {leaf.name: leaf for leaf in certificates.of(allocation_id)}
    if name not in leaves:
        known = ", ".join(leaves) or "none"
        raise InvalidCall(f'this allocation has no certificate "{name}"; it has: {known}')
    with tempfile.TemporaryDirectory(prefix="maand-tls-") as directory:
        chain = Path(directory) / "chain.pem"
        chain.touch(mode=0o600)
        chain.write_text(leaves[name].private_key_pem + leaves[name].certificate_pem)
        context.load_cert_chain(chain)
