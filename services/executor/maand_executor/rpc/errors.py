"""Errors of answering a hook, or somebody who looks at this executor; and what each error is over gRPC.

RpcError
  Unauthenticated        no token of a live hook
  NotAViewer             no token that may read
  CatalogAway            nobody can say who calls
  IdentityMismatch       the hook claims to be another one
  WorkerNotAllowed       not a worker of the hook's job
  InvalidCall            the request makes no sense
    LimitExceeded        too large, too long
  HttpRequestFailed      the worker answered no HTTP
    HttpTimedOut         not in time
    HttpUnreachable      nobody listens there
"""

import grpc

from maand_executor.errors import ExecutorError
from maand_executor.ssh.errors import ConnectionLost, SshError, WorkerUnreachable


class RpcError(ExecutorError):
    """A hook asked for something it cannot have. The message says what."""

    code = "rpc_error"


class Unauthenticated(RpcError):
    """The call carries no token of a hook that runs on this executor. Tokens die with their hook process."""

    code = "unauthenticated"
    help = "call from the hook process itself, with its own HOOK_API_TOKEN"


class NotAViewer(RpcError):
    """The call carries no API token that may read. Show one of role viewer or operator; a unix socket needs none."""

    code = "unauthenticated"
    help = "show an API token of role viewer or operator (MAAND_API_TOKEN_FILE)"


class CatalogAway(RpcError):
    """The catalog, which decides who may look, does not answer. Try again in a moment."""

    code = "unavailable"
    help = "try again in a moment"


class IdentityMismatch(RpcError):
    """The X-ALLOCATION-ID, HOOK or EVENT header disagrees with the token. Leave the headers out, or send the hook's own."""

    code = "identity_mismatch"
    help = "send the hook's own ALLOCATION_ID, HOOK and EVENT, or leave the headers out"


class WorkerNotAllowed(RpcError):
    """A hook reaches workers of its own job only, by the host that workers.json names."""

    code = "permission_denied"
    help = "name a worker of the hook's own job, as workers.json does"


class InvalidCall(RpcError):
    """The request makes no sense. The message names the field."""

    code = "invalid_argument"


class LimitExceeded(InvalidCall):
    """The request is larger or longer than allowed. The message names the limit."""

    code = "limit_exceeded"


class HttpRequestFailed(RpcError):
    """The worker did not answer in HTTP, or its TLS certificate was refused. The message says what happened."""

    code = "http_request_failed"


class HttpUnreachable(HttpRequestFailed):
    """Nobody answers at that address and port of the worker. Check that the job listens there."""

    code = "worker_unreachable"
    help = "check that the job listens on that port of the worker"


class HttpTimedOut(HttpRequestFailed):
    """The worker's answer was not complete in time. Give it more with `timeout_seconds`."""

    code = "http_timed_out"
    help = "give it more time with timeout_seconds (at most 120)"


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
"""The one table from the executor's error classes to gRPC statuses, for `maand_wire.errors.ErrorBoundary`."""
