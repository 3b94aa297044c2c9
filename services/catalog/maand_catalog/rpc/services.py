"""Every gRPC service of the catalog, put together from its parts and added to a server; and the table of error -> status."""

from dataclasses import dataclass

import grpc
import grpc.aio

from maand_catalog import errors
from maand_catalog.building.builder import Builder
from maand_catalog.database.database import Database
from maand_catalog.rpc.allocations import AllocationServicer
from maand_catalog.rpc.buckets import BucketServicer
from maand_catalog.rpc.hook_env import HookEnvSealer
from maand_catalog.rpc.invocations import InvocationServicer
from maand_catalog.rpc.jobs import JobServicer
from maand_catalog.rpc.kv import KvServicer
from maand_catalog.rpc.runs import RunServicer
from maand_catalog.rpc.secrets import SecretServicer
from maand_catalog.rpc.semaphores import SemaphoreServicer
from maand_catalog.rpc.tasks import TaskServicer
from maand_catalog.rpc.tokens import TokenServicer
from maand_catalog.rpc.workers import WorkerServicer
from maand_catalog.rpc.workspace import WorkspaceServicer
from maand_catalog.rules.meter import Meter
from maand_catalog.sealing.keyring import Keyring
from maand_catalog.serving.semaphore_waiters import SemaphoreWaiters
from maand_catalog.settings import CatalogSettings
from maand_catalog.store.kv.batched_store import KvStore
from maand_contracts.catalog.v1 import (
    allocation_pb2,
    allocation_pb2_grpc,
    bucket_pb2,
    bucket_pb2_grpc,
    invocation_pb2,
    invocation_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    kv_pb2,
    kv_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    secret_pb2,
    secret_pb2_grpc,
    semaphore_pb2,
    semaphore_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
    token_pb2,
    token_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
    workspace_pb2,
    workspace_pb2_grpc,
)

CONTRACTS = (
    allocation_pb2,
    bucket_pb2,
    invocation_pb2,
    job_pb2,
    kv_pb2,
    run_pb2,
    secret_pb2,
    semaphore_pb2,
    task_pb2,
    token_pb2,
    worker_pb2,
    workspace_pb2,
)

SERVICE_NAMES = [service.full_name for module in CONTRACTS for service in module.DESCRIPTOR.services_by_name.values()]
"""Full names of all services, for health and reflection."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What servicers are made of."""

    database: Database
    keyring: Keyring
    semaphore_waiters: SemaphoreWaiters
    settings: CatalogSettings
    meter: Meter


def add_services(server: grpc.aio.Server, parts: Parts) -> None:
    """Make every servicer and add it to the server."""
    database, keyring, settings = parts.database, parts.keyring, parts.settings
    kv, builder = KvStore.on(database, keyring, parts.meter), Builder(database, keyring, settings.ca_dir)
    runs = RunServicer(database, HookEnvSealer(keyring), lease=settings.lease, meter=parts.meter)
    allocation_pb2_grpc.add_AllocationServiceServicer_to_server(AllocationServicer(database, keyring), server)
    bucket_pb2_grpc.add_BucketServiceServicer_to_server(BucketServicer(database), server)
    invocation_pb2_grpc.add_InvocationServiceServicer_to_server(InvocationServicer(database), server)
    job_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(database), server)
    kv_pb2_grpc.add_KvServiceServicer_to_server(KvServicer(kv), server)
    run_pb2_grpc.add_RunServiceServicer_to_server(runs, server)
    secret_pb2_grpc.add_SecretServiceServicer_to_server(SecretServicer(kv), server)
    semaphore_pb2_grpc.add_SemaphoreServiceServicer_to_server(SemaphoreServicer(database, parts.semaphore_waiters), server)
    task_pb2_grpc.add_TaskServiceServicer_to_server(TaskServicer(database, HookEnvSealer(keyring), lease=settings.lease), server)
    token_pb2_grpc.add_TokenServiceServicer_to_server(TokenServicer(database), server)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(WorkerServicer(database), server)
    workspace_pb2_grpc.add_WorkspaceServiceServicer_to_server(WorkspaceServicer(database, builder), server)


STATUS_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.PreconditionLost: grpc.StatusCode.ABORTED,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}
