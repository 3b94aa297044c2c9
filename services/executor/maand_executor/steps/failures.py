"""What failed, as the contract's `Failure`: from SSH and exceptions of other parts."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import grpc

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.facts import Worker
from maand_executor.ssh.errors import (
    AuthenticationRefused,
    CannotConnect,
    CommandNotStarted,
    ConnectionLost,
    ConnectionUnusable,
    HostKeyRefused,
    KeyUnusable,
    KnownHostsUnreadable,
    KnownHostsUnwritable,
    SshError,
    StaleFence,
    WorkerUnreachable,
)
from maand_wire.errors import RemoteError

SSH_KINDS: tuple[tuple[type[SshError], "pb.FailureKind.ValueType"], ...] = (
    (ConnectionLost, pb.FAILURE_KIND_CONNECTION),
    (ConnectionUnusable, pb.FAILURE_KIND_CONNECTION),
    (WorkerUnreachable, pb.FAILURE_KIND_UNREACHABLE),
    (CannotConnect, pb.FAILURE_KIND_LOCAL),
    (HostKeyRefused, pb.FAILURE_KIND_AUTHENTICATION),
    (AuthenticationRefused, pb.FAILURE_KIND_AUTHENTICATION),
    (KeyUnusable, pb.FAILURE_KIND_LOCAL),
    (KnownHostsUnreadable, pb.FAILURE_KIND_LOCAL),
    (KnownHostsUnwritable, pb.FAILURE_KIND_LOCAL),
    (StaleFence, pb.FAILURE_KIND_FENCE_REFUSED),
    (CommandNotStarted, pb.FAILURE_KIND_PREREQUISITE),
)
"""The first class that fits; what fits none is COMMAND."""


Item = TypeVar("Item")


def without_failures(
    items: Sequence[Item], failures: Iterable[pb.Failure], *, worker_of: Callable[[Item], str]
) -> tuple[Item, ...]:
    """Return the items that no failure is about. A failure that names no worker is about all of them."""
    failed = {failure.worker for failure in failures}
    return () if "" in failed else tuple(item for item in items if worker_of(item) not in failed)


def kind_of_ssh_error(error: SshError) -> "pb.FailureKind.ValueType":
    """Tell workers that cannot be reached from those that refuse or lack something."""
    return next((kind for error_class, kind in SSH_KINDS if isinstance(error, error_class)), pb.FAILURE_KIND_COMMAND)


def outcome_of_failure(kind: "pb.FailureKind.ValueType") -> "pb.StepOutcome.ValueType":
    """Return how a step ended that failed in this way."""
    reached = kind not in (pb.FAILURE_KIND_UNREACHABLE, pb.FAILURE_KIND_CONNECTION)
    return pb.STEP_OUTCOME_FAILED if reached else pb.STEP_OUTCOME_UNREACHABLE


def failure_of_ssh_error(error: SshError, *, worker: str, job: str = "", step: str = "connect") -> pb.Failure:
    """Tell why a worker could not be used."""
    return pb.Failure(
        kind=kind_of_ssh_error(error), job=job, worker=worker, step=step, message=error.reason_on(worker), help=error.help
    )


BROKEN_WORKER = frozenset(
    {pb.FAILURE_KIND_UNREACHABLE, pb.FAILURE_KIND_CONNECTION, pb.FAILURE_KIND_AUTHENTICATION, pb.FAILURE_KIND_PREREQUISITE}
)
"""Kinds of failures in which a worker let nothing of the job be done."""


def name_way_out(failure: pb.Failure, worker: Worker) -> pb.Failure:
    """Tell with a failure on a worker that left the fleet how to go on without it; any other failure stays as it is."""
    if worker.removed and failure.kind != pb.FAILURE_KIND_LOCAL:
        way_out = f"where {worker.name} is lost: `maand worker forget {worker.name} --lost`"
        failure.help = f"{failure.help}; {way_out}" if failure.help else way_out
    return failure


def failure_of_remote_error(error: RemoteError) -> pb.Failure:
    """Tell what the catalog refused: the request's fault, or maand's own."""
    user_fault = error.status in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    )
    kind = pb.FAILURE_KIND_INVALID if user_fault else pb.FAILURE_KIND_INTERNAL
    return pb.Failure(kind=kind, message=error.message, help=error.help)
