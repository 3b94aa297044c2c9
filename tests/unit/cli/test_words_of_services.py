"""What people are told of a call that failed: the service's own words where it has some, the command line's where gRPC speaks."""

import grpc
import pytest

from maand_cli.exits import Exit
from maand_cli.output.failures import describe_error
from maand_wire.errors import RemoteError

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DATABASE_AWAY = "the catalog's database cannot be reached"


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (RemoteError(UNAVAILABLE, DATABASE_AWAY, code="unavailable", help="try again"), DATABASE_AWAY, Exit.SERVICE),
        (
            RemoteError(UNAVAILABLE, "failed to connect", spoken=False),
            "the services do not answer",
            Exit.SERVICE,
        ),
        (RemoteError(grpc.StatusCode.INTERNAL, "x", code="internal", spoken=False), "a service failed unexpectedly", Exit.FAILED),
    ],
)
def test_a_failed_call_is_told_in_the_best_words_there_are(error: RemoteError, message: str, code: Exit) -> None:
    (problem,), exit_code = describe_error(error)

    assert (problem.message, exit_code) == (message, code)
    assert problem.help
