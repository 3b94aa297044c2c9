"""The one table from the executor's error classes to gRPC statuses, for `maand_wire.errors.ErrorBoundary`."""

import grpc

from maand_executor.errors import ExecutorError
from maand_executor.rpc.errors import (
    CatalogAway,
    HttpRequestFailed,
    HttpTimedOut,
    HttpUnreachable,
    IdentityMismatch,
    InvalidCall,
    NotAViewer,
    RpcError,
    Unauthenticated,
    WorkerNotAllowed,
)
from maand_executor.ssh.errors import ConnectionLost, SshError, WorkerUnreachable

STATUS_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    NotAViewer: grpc.StatusCode.UNAUTHENTICATED,
    CatalogAway: grpc.StatusCode.UNAVAILABLE,
    IdentityMismatch: grpc.StatusCode.PERMISSION_DENIED,
    WorkerNotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    InvalidCall: grpc.StatusCode.INVALID_ARGUMENT,
    HttpUnreachable: grpc.StatusCode.UNAVAILABLE,
    HttpTimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    HttpRequestFailed: grpc.StatusCode.FAILED_PRECONDITION,
    RpcError: grpc.StatusCode.FAILED_PRECONDITION,
    WorkerUnreachable: grpc.StatusCode.UNAVAILABLE,
    # UNAVAILABLE promises that nothing was started, and is repeated by callers; here nobody knows.
    ConnectionLost: grpc.StatusCode.UNKNOWN,
    SshError: grpc.StatusCode.FAILED_PRECONDITION,
    ExecutorError: grpc.StatusCode.FAILED_PRECONDITION,
}
