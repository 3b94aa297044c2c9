"""The one table from what services answer (gRPC status and ErrorDetail.code) to what a hook is told (HTTP status).

Pure: gRPC statuses are named by their words, so that the table can be read and tested without gRPC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

STATUS_BY_CODE: dict[str, int] = {
    "semaphore_timeout": 408,
    "worker_unreachable": 502,
    "connection_unusable": 502,
    "connection_lost": 502,
}
"""ErrorDetail.code words that say more than their gRPC status."""

STATUS_BY_GRPC: dict[str, int] = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "FAILED_PRECONDITION": 409,
    "UNAVAILABLE": 503,
    "RESOURCE_EXHAUSTED": 503,
    "CANCELLED": 503,
    "UNIMPLEMENTED": 503,
    "DEADLINE_EXCEEDED": 504,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
}
"""Every gRPC status but OK."""

NUMERIC_FACTS = frozenset({"current_version", "capacity"})
"""Facts that are numbers; the wire carries all facts as text."""


@dataclass(frozen=True, kw_only=True)
class ErrorAnswer:
    """What a hook is told when a call failed."""

    status: int
    code: str
    message: str
    details: Mapping[str, object] = field(default_factory=dict)

    def body(self) -> dict[str, object]:
        """Return the error in the form every route uses."""
        return {"error": {"code": self.code, "message": self.message, "details": dict(self.details)}}


def answer_for(
    *,
    grpc_status: str,
    code: str,
    message: str,
    help: str,  # noqa: A002 - the contract's word
    facts: Mapping[str, str],
    spoken: bool,
) -> ErrorAnswer:
    """Translate one failed call; one that no service has `spoken` of gets words of ours."""
    if not spoken:
        message, help = answer_without_detail(grpc_status, message, help)  # noqa: A001 - the contract's word
    return ErrorAnswer(
        status=STATUS_BY_CODE.get(code) or STATUS_BY_GRPC[grpc_status],
        code=code,
        message=join_sentence(message, help),
        details={name: parse_fact(name, value) for name, value in facts.items()},
    )


def answer_without_detail(grpc_status: str, message: str, help: str) -> tuple[str, str]:  # noqa: A002
    """Choose words for a failure that no service put into words: it came from the connection itself."""
    match grpc_status:
        case "UNAVAILABLE" | "CANCELLED":
            return "the service behind this route cannot be reached", help or "try again"
        case "DEADLINE_EXCEEDED":
            return "the service behind this route did not answer in time", help or "try again"
        case "INTERNAL" | "UNKNOWN" | "DATA_LOSS":
            return "maand failed unexpectedly", "its service log knows more"
        case _:
            return message, help


def join_sentence(message: str, help: str) -> str:  # noqa: A002 - the contract's word
    """Join what happened and what to do into one sentence."""
    return f"{message.rstrip('. ')}; {help}" if help and help not in message else message


def parse_fact(name: str, value: str) -> object:
    """Give a fact its type back."""
    return int(value) if name in NUMERIC_FACTS and value.isdigit() else value
