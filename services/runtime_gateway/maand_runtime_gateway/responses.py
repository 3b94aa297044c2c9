"""Writing responses: models and errors as JSON."""

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

from maand_runtime_gateway.errors import MethodNotAllowed, MissingToken, RequestRefused
from maand_runtime_gateway.statuses import ErrorAnswer, answer_for
from maand_wire.errors import RemoteError

JSON = "application/json"

UNEXPECTED = ErrorAnswer(status=500, code="internal", message="the runtime gateway failed unexpectedly; its log knows more")


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Write a model, or anything made of them."""
    return Response(to_json(content), status_code=status, media_type=JSON, headers=headers)


def error_response(answer: ErrorAnswer, headers: dict[str, str] | None = None) -> Response:
    """Write an error."""
    return json_response(answer.body(), answer.status, headers)


def refusal_response(error: RequestRefused) -> Response:
    """Answer a request that cannot be translated."""
    answer = ErrorAnswer(status=error.status, code=error.code, message=error.message, details=error.details)
    return error_response(answer, refusal_headers(error))


def refusal_headers(error: RequestRefused) -> dict[str, str] | None:
    """Return the headers that HTTP wants beside some statuses."""
    match error:
        case MissingToken():
            return {"www-authenticate": "Bearer"}
        case MethodNotAllowed():
            return {"allow": error.allowed}
        case _:
            return None


def remote_failure_response(error: RemoteError) -> Response:
    """Answer with what the catalog or the executor said."""
    answer = answer_for(
        grpc_status=error.status.name,
        code=error.code,
        message=error.message,
        help=error.help,
        facts=error.facts,
        spoken=error.spoken,
    )
    return error_response(answer, {"www-authenticate": "Bearer"} if answer.status == 401 else None)
