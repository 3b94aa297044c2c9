"""Errors on the wire: domain exceptions become gRPC status + `ErrorDetail`, and back again.

    domain exception  --ErrorBoundary (server)-->  status + ErrorDetail  --remote_errors() (client)-->  RemoteError

A service hands `ErrorBoundary` one table of exception class -> status code; handlers never set codes. An exception may carry
`code`, `help`, `facts` and `problems`; what it lacks stays empty. Anything the table does not know is INTERNAL, logged with
its traceback, and told to the caller without details.
"""

from __future__ import annotations  # grpc's stubs know type parameters that its classes do not have at run time

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from maand_contracts.common.v1 import error_pb2
from maand_wire.certificates import read_handshake_failure

if TYPE_CHECKING:
    from maand_wire.host_faults import HostFault

DETAILS_KEY = "grpc-status-details-bin"

ACCIDENT = "internal"
"""Code of what nobody foresaw."""

MESSAGE_TOO_LARGE = "message_too_large"
"""Code of what gRPC itself refuses, here or at the other part, whenever it is tried. Its status says no more than "too much"."""

StatusByError = Mapping[type[Exception], grpc.StatusCode]


class RemoteError(Exception):
    """A call to another part failed. The message is the other part's, ready to be shown; `help` says what to do next.

    `spoken`: a service put it into these words. Else they are gRPC's, or an accident's: whoever shows them has better ones.
    """

    def __init__(
        self,
        status: grpc.StatusCode,
        message: str,
        *,
        code: str = "",
        help: str = "",  # noqa: A002 - the contract's word
        facts: Mapping[str, str] | None = None,
        problems: Sequence[error_pb2.Problem] = (),
        spoken: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or status.name.lower()
        self.help = help
        self.facts = dict(facts or {})
        self.problems = tuple(problems)
        self.spoken = spoken

    @property
    def is_temporary(self) -> bool:
        """Whether the same call may succeed later without anybody mending anything."""
        return self.code != MESSAGE_TOO_LARGE and self.status in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )


@contextmanager
def remote_errors() -> Iterator[None]:
    """Turn a gRPC error raised inside into a `RemoteError` with the server's own words.

    A call that the server cancelled too: grpc.aio raises CancelledError for that, as if this task had been cancelled.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise read_remote_error(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RemoteError(grpc.StatusCode.CANCELLED, "the server ended the call", spoken=False) from error


def read_remote_error(error: grpc.RpcError) -> RemoteError:
    """Read status, message and `ErrorDetail` of a failed call, blocking or asyncio."""
    call = cast("Any", error)
    status: grpc.StatusCode = call.code()
    detail = find_error_detail(call.trailing_metadata() or ())
    message = call.details() or status.name.lower().replace("_", " ")
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in message:
        help_text = "ask for less at once, or send less; should maand itself have asked, tell the maintainers"
        return RemoteError(status, f"a message is too large: {message}", code=MESSAGE_TOO_LARGE, help=help_text)
    if detail is None:
        failure = read_handshake_failure(message) if status is grpc.StatusCode.UNAVAILABLE else None
        return (
            RemoteError(status, failure.message, code=failure.code, help=failure.help)
            if failure
            else RemoteError(status, message, spoken=False)
        )
    return RemoteError(
        status,
        message,
        code=detail.code,
        help=detail.help,
        facts=detail.facts,
        problems=list(detail.problems),
        spoken=detail.code != ACCIDENT,
    )


def find_error_detail(trailing_metadata: Sequence[tuple[str, str | bytes]]) -> error_pb2.ErrorDetail | None:
    """Find the `ErrorDetail` in a call's trailing metadata."""
    for key, value in trailing_metadata:
        if key == DETAILS_KEY:
            rich = status_pb2.Status.FromString(value if isinstance(value, bytes) else value.encode())
            for packed in rich.details:
                detail = error_pb2.ErrorDetail()
                if packed.Unpack(detail):
                    return detail
    return None


class UndecodableRequest(Exception):
    """The request's bytes are not the message that this call takes, for example text that is not UTF-8. Send the message."""

    code = "undecodable_request"


def make_lenient_decoder(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Let a broken request through as an error value: gRPC itself would answer UNKNOWN before any of our code runs."""

    def decode_or_tell(data: bytes) -> Any:
        try:
            return decode(data) if decode else data
        except Exception:  # noqa: BLE001 - whatever the decoder raises, the request is to blame
            return UndecodableRequest("the request cannot be decoded: it is not the message that this call takes")

    return decode_or_tell


def require_decoded(request: Any) -> Any:
    """Return a request that was decoded, raise for one that was not."""
    if isinstance(request, UndecodableRequest):
        raise request
    return request


class ErrorBoundary(grpc.aio.ServerInterceptor):
    """The one place of a service where exceptions become statuses."""

    def __init__(self, status_by_error: StatusByError) -> None:
        self._status_by_error = status_by_error

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler that the server would call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        decode = handler.request_deserializer if handler.request_streaming else make_lenient_decoder(handler.request_deserializer)
        return wrap_handler(handler, self._unary, self._stream, decode=decode)

    def _unary(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await behaviour(require_decoded(request), context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary is where every error ends
                await self._abort(context, error)

        return call

    def _stream(self, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                async for response in behaviour(require_decoded(request), context):
                    yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary is where every error ends
                await self._abort(context, error)

        return call

    async def _abort(self, context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
        await context.abort_with_status(rpc_status.to_status(self.status_of(error)))

    def status_of(self, error: Exception) -> status_pb2.Status:
        """Describe an exception: a domain error by the table, a failed onward call as it came, anything else as INTERNAL.

        What the machine refuses (`host_faults`) is UNAVAILABLE.
        """
        if isinstance(error, RemoteError):
            if not error.spoken:
                return status_pb2.Status(code=error.status.value[0], message=error.message)
            return make_rich_status(error.status, error.message, error)
        if isinstance(error, UndecodableRequest):
            return make_rich_status(grpc.StatusCode.INVALID_ARGUMENT, str(error), error)
        for kind in type(error).__mro__:
            if kind in self._status_by_error:
                return make_rich_status(self._status_by_error[kind], str(error), error)
        log_unexpected(error)
        fault = find_fault(error)
        if fault is not None:
            return make_rich_status(grpc.StatusCode.UNAVAILABLE, str(fault), fault)
        return make_rich_status(grpc.StatusCode.INTERNAL, "maand failed unexpectedly; its service log knows more", None)


def find_fault(error: Exception) -> HostFault | None:
    """Return what the machine refused, if it is that; imported here, like logs, for clients that start often."""
    from maand_wire.host_faults import find_host_fault

    return find_host_fault(error)


def log_unexpected(error: Exception) -> None:
    """Write the traceback to the service's log; imported here because clients, which start often, never log."""
    import structlog

    structlog.get_logger("maand.wire").error("unexpected error", exc_info=error)


def make_rich_status(code: grpc.StatusCode, message: str, error: Exception | None) -> status_pb2.Status:
    """Build the status with its `ErrorDetail` from what the exception carries."""
    detail = error_pb2.ErrorDetail(
        code=getattr(error, "code", None) or (to_snake_case(type(error).__name__) if error else ACCIDENT),
        help=getattr(error, "help", None) or "",
        facts={key: str(value) for key, value in (getattr(error, "facts", None) or {}).items()},
        problems=[problem_to_message(problem) for problem in getattr(error, "problems", None) or ()],
    )
    packed = any_pb2.Any()
    packed.Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=[packed])


def problem_to_message(problem: Any) -> error_pb2.Problem:
    """Copy a domain problem (any value with the contract's attributes) into the contract."""
    if isinstance(problem, error_pb2.Problem):
        return problem
    return error_pb2.Problem(
        code=problem.code,
        message=problem.message,
        file=problem.file,
        line=problem.line,
        column=problem.column,
        help=problem.help,
    )


def to_snake_case(name: str) -> str:
    """Turn a class name into its stable word: `KvPreconditionLost` -> `kv_precondition_lost`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def wrap_handler(
    handler: grpc.RpcMethodHandler[Any, Any],
    unary: Callable[[Callable[..., Any]], Callable[..., Any]],
    stream: Callable[[Callable[..., Any]], Callable[..., Any]],
    *,
    decode: Callable[[bytes], Any] | None = None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the same handler with its behaviour wrapped, by what it answers with, and another decoder when one is given."""
    kind = ("stream" if handler.request_streaming else "unary") + "_" + ("stream" if handler.response_streaming else "unary")
    wrap = stream if handler.response_streaming else unary
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    wrapped: grpc.RpcMethodHandler[Any, Any] = make(
        wrap(getattr(handler, kind)), decode or handler.request_deserializer, handler.response_serializer
    )
    return wrapped
