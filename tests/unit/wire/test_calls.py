"""Patience: what passes by itself is tried again for as long as pauses last; lists are read page by page."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import islice

import grpc
import pytest

from maand_contracts.catalog.v1 import run_pb2
from maand_wire.calls import growing_pauses, is_passing, read_pages, retry_call
from maand_wire.errors import RemoteError

AWAY = RemoteError(grpc.StatusCode.UNAVAILABLE, "nobody answers")
UNTRUSTED = RemoteError(grpc.StatusCode.UNAVAILABLE, "not trusted", code="server_certificate_untrusted")
ENDED = RemoteError(grpc.StatusCode.CANCELLED, "the server ended the call")
REFUSED = RemoteError(grpc.StatusCode.NOT_FOUND, "no such thing")


def attempts(*answers: object) -> tuple[Callable[[], Awaitable[object]], list[object]]:
    """Make an attempt that gives these answers in turn, and what is left of them."""
    left = list(answers)

    async def attempt() -> object:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return attempt, left


async def test_an_attempt_is_made_once_more_after_each_pause() -> None:
    attempt, left = attempts(AWAY, ENDED, "answer", "more")
    assert await retry_call(attempt, pauses=(0, 0)) == "answer"
    assert left == ["more"]


async def test_the_last_error_is_told_when_pauses_are_used_up() -> None:
    attempt, left = attempts(AWAY, AWAY, "too late")
    with pytest.raises(RemoteError, match="nobody answers"):
        await retry_call(attempt, pauses=(0,))
    assert left == ["too late"]


@pytest.mark.parametrize("error", [REFUSED, UNTRUSTED])
async def test_what_does_not_pass_by_itself_is_told_at_once(error: RemoteError) -> None:
    attempt, left = attempts(error, "answer")
    with pytest.raises(RemoteError, match=error.message):
        await retry_call(attempt, pauses=(0,), when=is_passing)
    assert left == ["answer"]


def test_pauses_grow_up_to_the_longest_and_none_goes_past_the_end() -> None:
    second = timedelta(seconds=1)
    drawn = list(islice(growing_pauses(first=second, longest=4 * second, within=60 * second), 6))
    ceilings = [1, 2, 4, 4, 4, 4]
    assert all(ceiling / 2 <= pause <= ceiling for pause, ceiling in zip(drawn, ceilings, strict=True))
    assert list(growing_pauses(first=second, longest=second, within=timedelta(milliseconds=500))) == []


def test_pauses_count_from_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("maand_wire.calls.time.monotonic", lambda: now)
    second = timedelta(seconds=1)
    pauses = growing_pauses(first=second, longest=second, within=5 * second)
    now = 3600.0
    assert next(pauses, None) is not None
    now += 6
    assert next(pauses, None) is None


async def test_pages_are_read_until_there_are_no_more_or_enough() -> None:
    asked: list[str] = []

    async def read(request: run_pb2.ListRunsRequest) -> run_pb2.ListRunsResponse:
        asked.append(request.page_token)
        number = int(request.page_token or "0")
        return run_pb2.ListRunsResponse(
            runs=[run_pb2.Run(seq=2 * number), run_pb2.Run(seq=2 * number + 1)],
            next_page_token=str(number + 1) if number < 2 else "",
        )

    assert [run.seq async for run in read_pages(read, run_pb2.ListRunsRequest(), "runs")] == [0, 1, 2, 3, 4, 5]
    assert asked == ["", "1", "2"]
    assert [run.seq async for run in read_pages(read, run_pb2.ListRunsRequest(), "runs", limit=3)] == [0, 1, 2]
    assert asked[3:] == ["", "1"]
