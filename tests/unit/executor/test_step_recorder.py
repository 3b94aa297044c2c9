"""Steps that come at once are recorded in one call, and none is taken for recorded that is not."""

import asyncio
from collections.abc import Sequence

import pytest

from maand_executor.rules.facts import RunIdentity
from maand_executor.steps.step_recorder import StepRecorder

RUN = RunIdentity(bucket_id="b", run_id="r", seq=1, fence=1)


class Catalog:
    """Takes its time, and fails as often as it is told to."""

    def __init__(self, *, failures: int = 0) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.calls: list[list[str]] = []
        self.recorded: set[str] = set()
        self._failures = failures

    async def record_steps(self, run: RunIdentity, names: Sequence[str]) -> None:
        self.calls.append(list(names))
        self.asked.set()
        await self.go.wait()
        if self._failures:
            self._failures -= 1
            raise ConnectionError("away")
        self.recorded.update(names)


async def test_those_that_come_while_a_call_is_on_its_way_share_the_next_one() -> None:
    catalog = Catalog()
    recorder = StepRecorder(catalog, RUN)
    first = asyncio.create_task(recorder.record("0"))
    await catalog.asked.wait()
    others = [asyncio.create_task(recorder.record(str(number))) for number in range(1, 10)]
    await asyncio.sleep(0)
    catalog.go.set()
    await asyncio.gather(first, *others)
    assert catalog.calls == [["0"], [str(number) for number in range(1, 10)]]


@pytest.mark.parametrize("failures", [1, 2, 3])
async def test_who_is_told_that_a_step_is_recorded_finds_it_recorded(failures: int) -> None:
    catalog = Catalog(failures=failures)
    recorder = StepRecorder(catalog, RUN)
    names = [str(number) for number in range(6)]
    catalog.go.set()
    ends = await asyncio.gather(*map(recorder.record, names), return_exceptions=True)
    assert sum(isinstance(end, ConnectionError) for end in ends) == failures
    assert all(name in catalog.recorded for name, end in zip(names, ends, strict=True) if end is None)


async def test_one_who_gives_up_takes_nobody_along() -> None:
    catalog = Catalog()
    recorder = StepRecorder(catalog, RUN)
    tasks = [asyncio.create_task(recorder.record(str(number))) for number in range(4)]
    await catalog.asked.wait()
    tasks[0].cancel()
    tasks[2].cancel()
    catalog.go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert {"1", "3"} <= catalog.recorded
