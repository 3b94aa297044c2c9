"""Finding out who calls: the interceptor in front of every handler.

| The call comes with              | over a unix socket | over TCP                     |
|----------------------------------|--------------------|------------------------------|
| `maand-caller: hook`             | only a live hook token is accepted                |
| a hook token (`mh_…`)            | that hook invocation                              |
| an API token (`ma_…`)            | whom the token stands for                         |
| no token                         | `local`            | refused                      |
| health or reflection as method   | let through                                       |

Where the catalog has an address for services, which takes only callers with a certificate of the cluster's CA, an executor's
token is worth nothing without such a certificate.

A hook's call may claim allocation, hook and event in metadata; a claim that the token does not bear out is refused. Tokens are
looked up for every call: a token is dead for the next call the moment its end is committed, on every replica.
"""

from __future__ import annotations  # grpc's stubs know type parameters that its classes do not have at run time

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from maand_catalog.database.batching import Batcher
from maand_catalog.database.database import Database
from maand_catalog.errors import PermissionDenied, Unauthenticated
from maand_catalog.rpc.callers import let_in
from maand_catalog.rules.identity import API_TOKEN_PREFIX, HOOK_TOKEN_PREFIX, LOCAL, Caller, HookCaller, Role, token_digest
from maand_catalog.store.runs.invocations import find_hook_callers
from maand_catalog.store.tokens import find_role_caller
from maand_wire.channels import HOOK_CALLER
from maand_wire.errors import wrap_handler

PUBLIC = ("/grpc.health.v1.Health/", "/grpc.reflection.")

CLAIMS = {
    "maand-claimed-allocation": "allocation_id",
    "maand-claimed-hook": "hook",
    "maand-claimed-event": "event",
}
"""Metadata that the gateway forwards from a hook's HTTP headers, and what of the token it must agree with."""

Metadata = Mapping[str, str | bytes]


class IdentityMismatch(PermissionDenied):
    """A header claims what the token does not bear out. Leave the headers out, or send those of this very hook."""

    code = "identity_mismatch"


class CertificateNeeded(Unauthenticated):
    """An executor's token came without a certificate. Dial the address for services, with MAAND_TLS_CERTIFICATE and its key."""

    code = "certificate_needed"
    help = "dial the catalog's address for services, with MAAND_TLS_CERTIFICATE and MAAND_TLS_KEY"


class Identification(grpc.aio.ServerInterceptor):
    """Says who calls before the handler runs; refuses whom it cannot tell."""

    def __init__(self, database: Database, *, executors_show_certificates: bool = False) -> None:
        self._database = database
        self._hooks: Batcher[bytes, HookCaller | None] = Batcher(database.read, find_hook_callers)
        self._executors_show_certificates = executors_show_certificates

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler that the server would call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(PUBLIC):
            return handler
        return wrap_handler(handler, self._unary, self._stream)

    def _unary(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            let_in(await self._identify(context))
            return await behaviour(request, context)

        return call

    def _stream(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            let_in(await self._identify(context))
            async for response in behaviour(request, context):
                yield response

        return call

    async def _identify(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        metadata = dict(context.invocation_metadata() or ())
        is_local = context.peer().startswith("unix:")
        has_certificate = is_local or "x509_common_name" in context.auth_context()
        return await self.caller_from(metadata, is_local=is_local, has_certificate=has_certificate)

    async def caller_from(self, metadata: Metadata, *, is_local: bool, has_certificate: bool = False) -> Caller:
        """Tell who calls, from what came with the call. Unauthenticated, IdentityMismatch."""
        token = bearer_token(metadata)
        if token.startswith(HOOK_TOKEN_PREFIX):
            return await self._hook(token, metadata)
        if metadata.get(HOOK_CALLER[0]) == HOOK_CALLER[1]:
            raise Unauthenticated(
                "this call needs the token of a running hook", help="send Authorization: Bearer $HOOK_API_TOKEN"
            )
        if token.startswith(API_TOKEN_PREFIX):
            return await self._role(token, has_certificate=has_certificate)
        if is_local and not token:
            return LOCAL
        raise Unauthenticated(
            "this call carries no API token" if not token else "this is no token of ours",
            help="name a file with a token in MAAND_API_TOKEN_FILE; an operator creates one with CreateToken",
        )

    async def _hook(self, token: str, metadata: Metadata) -> HookCaller:
        caller = await self._hooks.submit(token_digest(token))
        if caller is None:
            raise Unauthenticated(
                "this hook token is not valid: its hook has ended", help="a token lives as long as its hook process"
            )
        check_claims(caller, metadata)
        return caller

    async def _role(self, token: str, *, has_certificate: bool) -> Caller:
        digest = token_digest(token)
        caller = await self._database.read(lambda tx: find_role_caller(tx, digest))
        if self._executors_show_certificates and Role.EXECUTOR in caller.roles and not has_certificate:
            raise CertificateNeeded(f"{caller.name} is an executor, and those show a certificate here")
        return caller


def bearer_token(metadata: Metadata) -> str:
    """Return the bearer token of a call; empty when it has none. Unauthenticated for another scheme."""
    value = metadata.get("authorization", "")
    scheme, _, token = (value if isinstance(value, str) else value.decode(errors="replace")).partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise Unauthenticated("authorization must be of the form: Bearer <token>")
    return token.strip()


def check_claims(caller: HookCaller, metadata: Metadata) -> None:
    """Refuse headers that disagree with the token."""
    for key, field in CLAIMS.items():
        if key in metadata and metadata[key] != getattr(caller, field):
            raise IdentityMismatch(f"the {field.removesuffix('_id')} claimed is not that of this token", facts={"field": field})
