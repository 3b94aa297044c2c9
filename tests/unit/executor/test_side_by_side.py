import asyncio

import pytest

from maand_executor.errors import InvalidRequest
from maand_executor.rules.side_by_side import side_by_side
from maand_executor.steps.fleet import known_names


async def test_results_come_in_the_order_of_the_items() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0.001 * (3 - number))
        return number * 10

    assert await side_by_side([1, 2, 3], work) == [10, 20, 30]


async def test_no_more_than_the_limit_run_at_once() -> None:
    running, most = 0, 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await side_by_side(range(10), work, limit=3)
    assert most == 3


async def test_the_first_error_is_raised_as_it_is_and_ends_the_others() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        if number == 0:
            raise InvalidRequest("no")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(InvalidRequest):
        await side_by_side([1, 0, 2], work)
    assert sorted(ended) == [1, 2]


def test_known_names_are_returned() -> None:
    assert known_names("job", ["api"], {"api", "web"}) == {"api"}
    assert known_names("job", [], {"api"}) == frozenset()


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match='no job is called "aip"') as caught:
        known_names("job", ["aip"], {"api", "web"})
    assert caught.value.help == 'did you mean "api"?'


def test_a_name_like_no_other_is_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidRequest) as caught:
        known_names("job", ["zzzzz"], {"web", "api"})
    assert caught.value.help == "known: api, web"
