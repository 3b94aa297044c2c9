"""Catalog and executor as small gRPC servers over the SDK's in-memory store: what the gateway is tested against alone.

It keeps the promises of the contracts that the gateway relies on: identity from metadata, error details, cancelled waits.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from maand_contracts.catalog.v1 import (
    job_pb2,
    job_pb2_grpc,
    kv_pb2,
    kv_pb2_grpc,
    secret_pb2,
    secret_pb2_grpc,
    semaphore_pb2,
    semaphore_pb2_grpc,
)
from maand_contracts.executor.v1 import remote_pb2, remote_pb2_grpc
from maand_hook_sdk.memory_gateway import MemoryGateway
from maand_hook_sdk.memory_identity import ApiError, Identity
from maand_hook_sdk.memory_policy import check_read, check_worker, check_write, check_write_secret
from maand_hook_sdk.memory_routes import find_canned_reply, host_of
from maand_wire.endpoints import Endpoint
from maand_wire.errors import ErrorBoundary, RemoteError
from maand_wire.servers import add_standard_services, bind_server, make_server

GRPC_BY_HTTP = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    502: grpc.StatusCode.UNAVAILABLE,
}

CLAIMS = {"maand-claimed-allocation": "allocation_id", "maand-claimed-hook": "hook", "maand-claimed-event": "event"}

ResponseT = TypeVar("ResponseT")

Context = grpc.aio.ServicerContext[Any, Any]


@contextmanager
def told_in_grpc() -> Iterator[None]:
    """Turn the store's refusals into what a service answers."""
    try:
        yield
    except ApiError as error:
        status = grpc.StatusCode.ABORTED if error.code == "kv_precondition_lost" else GRPC_BY_HTTP[error.status]
        facts = {name: str(value) for name, value in error.details.items()}
        raise RemoteError(status, error.message, code=error.code, facts=facts) from error


@dataclass(kw_only=True)
class Seen:
    """What reached the services: metadata of each call, and calls that were cancelled while they waited."""

    metadata: list[dict[str, str]] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)


class FakeServices:
    """Every RPC that the gateway calls. `fail_with` is raised by the next call instead of an answer.

    `lose` answers are lost: the next calls do what they are asked, and then their connection is gone.
    """

    def __init__(self, memory: MemoryGateway) -> None:
        self.memory = memory
        self.seen = Seen()
        self.fail_with: Exception | None = None
        self.lose = 0
        self.lost_after = 0.0
        """Seconds that a call waits for an answer that is then lost; semaphores."""
        self.asked_to_wait: list[int] = []

    def answer(self, response: ResponseT) -> ResponseT:
        """Return the answer, or lose it."""
        if self.lose:
            self.lose -= 1
            raise RemoteError(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return response

    def admit(self, context: Context) -> tuple[Identity, str]:
        """Read the caller from the metadata, as catalog and executor do."""
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.seen.metadata.append(metadata)
        self.seen.deadlines.append(context.time_remaining())
        if self.fail_with is not None:
            raise self.fail_with
        assert metadata["maand-caller"] == "hook"
        token = metadata.get("authorization", "").removeprefix("Bearer ")
        identity = self.memory.identity_of(token)
        if identity is None:
            raise ApiError(401, "unauthenticated", "the token is unknown or its hook has ended")
        for name, attribute in CLAIMS.items():
            if name in metadata and metadata[name] != getattr(identity, attribute):
                raise ApiError(403, "identity_mismatch", f"{name} disagrees with the token")
        return identity, token


class FakeKv(FakeServices):
    async def Get(self, request: kv_pb2.GetRequest, context: Context) -> kv_pb2.GetResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            check_read(identity, request.namespace, request.key)
            found = self.memory.kv.get(request.namespace, request.key, request.version)
        secret = request.namespace.startswith("secrets/")
        entry = kv_pb2.Entry(namespace=request.namespace, key=request.key, version=found.number)
        entry.value = "" if secret else found.value or ""
        return self.answer(kv_pb2.GetResponse(entry=entry, secret_value=(found.value or "") if secret else ""))

    async def Put(self, request: kv_pb2.PutRequest, context: Context) -> kv_pb2.PutResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            check_write(identity, request.namespace, request.key, request.value)
            return self.answer(kv_pb2.PutResponse(version=self.write(request)))

    def write(self, request: kv_pb2.PutRequest | secret_pb2.PutSecretRequest) -> int:
        condition = request.precondition.WhichOneof("condition")
        return self.memory.kv.put(
            request.namespace,
            request.key,
            request.value,
            ttl=request.ttl_seconds,
            if_version=request.precondition.if_version if condition == "if_version" else None,
            if_absent=condition == "if_absent",
            request_id=request.request_id,
        )

    async def Delete(self, request: kv_pb2.DeleteRequest, context: Context) -> kv_pb2.DeleteResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            check_write(identity, request.namespace, request.key, None)
            version = self.memory.kv.delete(request.namespace, request.key, request_id=request.request_id)
        return self.answer(kv_pb2.DeleteResponse(version=version))

    async def ListKeys(self, request: kv_pb2.ListKeysRequest, context: Context) -> kv_pb2.ListKeysResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            own = [f"secrets/job/{identity.job}", f"vars/job/{identity.job}"]
            namespaces = [request.namespace] if request.namespace else own
            for namespace in namespaces:
                check_read(identity, namespace)
        listed = [kv_pb2.NamespaceKeys(namespace=name, keys=self.memory.kv.keys(name)) for name in namespaces]
        return self.answer(kv_pb2.ListKeysResponse(namespaces=listed))


class FakeSecrets(FakeKv):
    async def PutSecret(self, request: secret_pb2.PutSecretRequest, context: Context) -> secret_pb2.PutSecretResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            check_write_secret(identity, request.namespace)
            return self.answer(secret_pb2.PutSecretResponse(version=self.write(request)))

    async def DeleteSecret(self, request: secret_pb2.DeleteSecretRequest, context: Context) -> secret_pb2.DeleteSecretResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            check_write_secret(identity, request.namespace)
            version = self.memory.kv.delete(request.namespace, request.key, request_id=request.request_id)
        return self.answer(secret_pb2.DeleteSecretResponse(version=version))


class FakeSemaphores(FakeServices):
    async def Acquire(self, request: semaphore_pb2.AcquireRequest, context: Context) -> semaphore_pb2.AcquireResponse:
        self.asked_to_wait.append(request.timeout_seconds)
        if self.lose:
            await asyncio.sleep(self.lost_after)
        with told_in_grpc():
            identity, token = self.admit(context)
            claim = self.memory.semaphores.request(identity, token, request.name, request.capacity)
            deadline = asyncio.get_running_loop().time() + request.timeout_seconds
            try:
                while not claim.granted.is_set():
                    await asyncio.sleep(0.01)
                    if asyncio.get_running_loop().time() > deadline:
                        self.memory.semaphores.withdraw(request.name, claim)
                        raise ApiError(408, "semaphore_timeout", "not granted in time; try again")
            except asyncio.CancelledError:
                self.memory.semaphores.withdraw(request.name, claim)
                self.seen.cancelled.append(request.name)
                raise
        return self.answer(
            semaphore_pb2.AcquireResponse(
                fencing_token=claim.ticket, capacity=request.capacity, allocation_id=identity.allocation_id
            )
        )

    async def Release(self, request: semaphore_pb2.ReleaseRequest, context: Context) -> semaphore_pb2.ReleaseResponse:
        with told_in_grpc():
            identity, token = self.admit(context)
            self.memory.semaphores.release(identity, token, request.name)
        return self.answer(semaphore_pb2.ReleaseResponse())

    async def GetStatus(self, request: semaphore_pb2.GetStatusRequest, context: Context) -> semaphore_pb2.GetStatusResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            found = self.memory.semaphores.status(identity, request.name)
        return semaphore_pb2.GetStatusResponse(
            semaphore=semaphore_pb2.Semaphore(
                name=request.name,
                capacity=found["capacity"],
                holders=[semaphore_pb2.Claim(allocation_id=holder) for holder in found["holders"]],
                waiters=[semaphore_pb2.Claim() for _ in range(found["waiting"])],
                available=found["available"],
            )
        )


class FakeJobs(FakeServices):
    async def ListHookDemands(self, request: job_pb2.ListHookDemandsRequest, context: Context) -> job_pb2.ListHookDemandsResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
        return job_pb2.ListHookDemandsResponse(
            demands=[
                job_pb2.HookDemand(job=demand["job"], hook=demand["hook"], demand_config_json=json.dumps(demand["demand_config"]))
                for demand in self.memory.demands_of(identity)
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Fields:
    """What a canned reply is matched against."""

    fields: dict[str, Any]


class FakeRemote(FakeServices):
    async def RunSshCommand(self, request: remote_pb2.RunSshCommandRequest, context: Context) -> remote_pb2.RunSshCommandResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            check_worker(identity, request.worker)
            asked: Any = Fields(fields={"worker": request.worker, "command": request.command})
            answer = self.answer(dict(find_canned_reply(self.memory.state.ssh, asked, request.worker)))
            took = answer.pop("duration_ms") / 1000
            return remote_pb2.RunSshCommandResponse(**answer, duration_seconds=took)

    async def SendHttpRequest(
        self, request: remote_pb2.SendHttpRequestRequest, context: Context
    ) -> remote_pb2.SendHttpRequestResponse:
        with told_in_grpc():
            identity, _ = self.admit(context)
            host = host_of(request.url)
            check_worker(identity, host)
            asked: Any = Fields(fields={"method": request.method, "url": request.url})
            answer = find_canned_reply(self.memory.state.http, asked, host)
        return remote_pb2.SendHttpRequestResponse(
            status_code=answer["status_code"],
            headers=[remote_pb2.HttpHeader(name=name, value=value) for name, value in answer["headers"].items()],
            body=answer["body"].encode(),
            truncated=answer["truncated"],
        )


SERVED: tuple[tuple[Any, str], ...] = (
    (kv_pb2_grpc.add_KvServiceServicer_to_server, "kv"),
    (secret_pb2_grpc.add_SecretServiceServicer_to_server, "kv"),
    (semaphore_pb2_grpc.add_SemaphoreServiceServicer_to_server, "semaphores"),
    (job_pb2_grpc.add_JobServiceServicer_to_server, "jobs"),
    (remote_pb2_grpc.add_RemoteServiceServicer_to_server, "remote"),
)


def with_all_methods(servicer: FakeServices) -> Any:
    """Let a fake stand for a whole service: RPCs that the gateway does not call are not there."""
    return type(type(servicer).__name__, (), {"__getattr__": lambda _self, name: getattr(servicer, name, None)})()


class RunningFakes:
    """Both services behind one address. `kv` … `remote` are the servicers, to look at what they saw."""

    def __init__(self, memory: MemoryGateway) -> None:
        self.memory = memory
        self.kv = FakeSecrets(memory)
        self.semaphores = FakeSemaphores(memory)
        self.jobs = FakeJobs(memory)
        self.remote = FakeRemote(memory)
        self.endpoint = Endpoint(address="")

    @property
    def servicers(self) -> Sequence[FakeServices]:
        return (self.kv, self.semaphores, self.jobs, self.remote)

    async def start(self, directory: Path) -> None:
        """Serve on a unix socket in `directory`."""
        self._server = make_server([ErrorBoundary({})])
        for add, servicer in SERVED:
            add(with_all_methods(getattr(self, servicer)), self._server)
        health = add_standard_services(self._server, [])
        self.endpoint = Endpoint(address=bind_server(self._server, f"unix:{directory / 'fakes.sock'}"))
        await self._server.start()
        health.announce(ready=True)

    async def stop(self) -> None:
        """Stop serving."""
        await self._server.stop(grace=None)
