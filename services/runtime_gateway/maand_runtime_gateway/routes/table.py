"""The routes of the hook API as one table. Each is one gRPC call; the functions that translate it are beside it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from maand_runtime_gateway import models
from maand_runtime_gateway.models import Fields
from maand_runtime_gateway.routes import coordination, kv, workers
from maand_runtime_gateway.upstream import Caller, Upstream

Translate = Callable[[Upstream, Caller, Any], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route: what it takes and gives, who translates it, how it can fail."""

    method: str
    path: str
    takes: type[Fields]
    gives: Any
    translate: Translate
    summary: str
    errors: tuple[int, ...]
    """HTTP statuses beyond `COMMON_ERRORS`."""
    waits: bool = False
    """Whether the call may last: then a client that goes away, or a stop of the gateway, cancels it."""

    @property
    def operation(self) -> str:
        """Name of the operation: `get_kv`, `post_semaphore_acquire`."""
        return self.method.lower() + self.path.replace("/", "_")


COMMON_ERRORS = (400, 401, 403, 408, 413, 415, 500, 503, 504)
"""Statuses that every route may answer with."""

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/kv",
        takes=models.KvGet,
        gives=models.KvValue,
        translate=kv.get_value,
        summary="Read a value; secrets come decrypted.",
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/kv",
        takes=models.KvPut,
        gives=models.KvVersion,
        translate=kv.put_value,
        summary="Write a value; an equal value makes no new version.",
        errors=(409,),
    ),
    Route(
        method="DELETE",
        path="/kv",
        takes=models.KvDelete,
        gives=models.KvVersion,
        translate=kv.delete_value,
        summary="Delete a value.",
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/kv/keys",
        takes=models.KvKeysGet,
        gives=models.KvKeys,
        translate=kv.list_keys,
        summary="List keys of a namespace, or of the job's variables and secrets.",
        errors=(404,),
    ),
    Route(
        method="PUT",
        path="/kv/secret",
        takes=models.SecretPut,
        gives=models.KvVersion,
        translate=kv.put_secret,
        summary="Write a secret of the job, stored encrypted.",
        errors=(409,),
    ),
    Route(
        method="DELETE",
        path="/kv/secret",
        takes=models.SecretDelete,
        gives=models.KvVersion,
        translate=kv.delete_secret,
        summary="Delete a secret of the job.",
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path="/demands",
        takes=models.Nothing,
        gives=list[models.Demand],
        translate=coordination.list_demands,
        summary="List the hooks that demand this hook.",
        errors=(404,),
    ),
    Route(
        method="POST",
        path="/semaphore/acquire",
        takes=models.SemaphoreAcquire,
        gives=models.SemaphoreGrant,
        translate=coordination.acquire_slot,
        summary="Wait for a slot of a semaphore; first come, first served.",
        errors=(409,),
        waits=True,
    ),
    Route(
        method="POST",
        path="/semaphore/release",
        takes=models.SemaphoreNamed,
        gives=models.Empty,
        translate=coordination.release_slot,
        summary="Give the slot back.",
        errors=(409,),
    ),
    Route(
        method="GET",
        path="/semaphore/status",
        takes=models.SemaphoreNamed,
        gives=models.SemaphoreState,
        translate=coordination.show_semaphore,
        summary="See who is in a semaphore.",
        errors=(),
    ),
    Route(
        method="POST",
        path="/ssh",
        takes=models.SshCommand,
        gives=models.SshResult,
        translate=workers.run_ssh,
        summary="Run a command on a worker of the hook's job.",
        errors=(409, 502),
        waits=True,
    ),
    Route(
        method="POST",
        path="/http",
        takes=models.HttpCall,
        gives=models.HttpResult,
        translate=workers.send_http,
        summary="Send an HTTP request to a worker of the hook's job.",
        errors=(409, 502),
        waits=True,
    ),
)

PUBLIC_PATHS = frozenset({"/healthz", "/metrics", "/openapi.json", "/docs"})
"""Paths that answer without a token."""
