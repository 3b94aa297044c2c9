"""Places for hook processes: whole batches wait for them, parts never, nested runs not at all."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.hook_outcomes import EventOutcome
from maand_executor.rules.waves import BatchPosition
from tests.integration.executor.hook_bed import SLEEP, HookBed, until

ONE_BATCH = BatchPosition(index=0, count=1)


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[HookBed]:
    """Give a bed with three places, whose hook waits for all others of its batch and counts who else is here."""
    bed = HookBed(state_dir=tmp_path / "state", process_limit=3)
    bed.add(
        "hook_meet",
        f"""
        import os, pathlib, time
        here = pathlib.Path({str(tmp_path)!r}) / "here"
        met = pathlib.Path({str(tmp_path)!r}) / ("met-" + os.environ["DEPLOY_PHASE"])
        for place in (here, met):
            place.mkdir(exist_ok=True)
        mine = here / (os.environ["DEPLOY_PHASE"] + os.environ["ALLOCATION_ID"])
        mine.touch()
        (met / os.environ["ALLOCATION_ID"]).touch()
        while len(list(met.iterdir())) < len(os.environ["BATCH_ALLOCATIONS"].split(",")):
            time.sleep(0.01)
        print(len(list(here.iterdir())), flush=True)
        time.sleep(0.1)
        mine.unlink()
        """,
        "after_allocation_started",
        "cli",
    )
    yield bed
    await bed.close()


async def test_a_batch_that_is_wider_than_all_places_runs_whole(narrow: HookBed) -> None:
    assert (await narrow.run("cli", targets=8, batch_size=8)).ok


async def test_batches_wait_for_places_as_wholes(narrow: HookBed) -> None:
    async def batch(phase: str, targets: int) -> EventOutcome:
        return await narrow.run("after_allocation_started", targets=targets, batch=ONE_BATCH, phase=phase)

    outcomes = await asyncio.gather(
        *(batch(phase, targets) for phase, targets in (("a", 2), ("b", 2), ("c", 5), ("d", 1), ("e", 2)))
    )

    assert all(outcome.ok for outcome in outcomes)
    assert max(map(int, narrow.lines())) == 5, "the wide one alone"


async def test_a_nested_run_waits_for_no_places(narrow: HookBed) -> None:
    narrow.add(
        "hook_start_a_run",
        "import pathlib, time\nwhile not pathlib.Path('../../../nested').exists(): time.sleep(0.01)",
        "pre_deploy",
    )
    holder = asyncio.create_task(narrow.run("pre_deploy", targets=3, batch_size=3))
    await until(lambda: len(narrow.engine.live.all()) == 3)

    assert (await narrow.run("cli", targets=2, batch_size=2, nested=True)).ok

    (narrow.state_dir / "nested").touch()
    assert (await holder).ok


async def test_a_batch_that_waits_for_places_stops_when_asked_to(narrow: HookBed) -> None:
    narrow.add("hook_sleep", SLEEP, "pre_deploy")
    holder = asyncio.create_task(narrow.run("pre_deploy", targets=3, batch_size=3))
    await until(lambda: len(narrow.engine.live.all()) == 3)
    waiting = asyncio.create_task(narrow.run("cli", targets=2, batch_size=2))
    await asyncio.sleep(0)

    narrow.cancel.raise_to(CancelLevel.AFTER_BATCH)
    outcome = await waiting
    narrow.cancel.raise_to(CancelLevel.NOW)
    await holder

    assert (outcome.stopped, outcome.results, outcome.untouched) == (True, (), ("10.0.0.1", "10.0.0.2"))


async def test_a_gate_whose_time_ends_while_it_waits_for_places_says_so(narrow: HookBed) -> None:
    narrow.add("hook_sleep", SLEEP, "pre_deploy")
    holder = asyncio.create_task(narrow.run("pre_deploy", targets=3, batch_size=3))
    await until(lambda: len(narrow.engine.live.all()) == 3)

    outcome = await narrow.run("cli", targets=1, ends_at=time.monotonic() + 0.05)
    narrow.cancel.raise_to(CancelLevel.NOW)
    await holder

    assert [result.message for result in outcome.results] == ["not started: the time of its health gate was over"]


async def test_places_are_free_again_after_waits_that_were_broken_off(narrow: HookBed) -> None:
    narrow.add("hook_sleep", SLEEP, "pre_deploy")
    holder = asyncio.create_task(narrow.run("pre_deploy", targets=3, batch_size=3))
    await until(lambda: len(narrow.engine.live.all()) == 3)
    broken_off = asyncio.create_task(narrow.run("cli", targets=2, batch_size=2))
    await asyncio.sleep(0.05)
    broken_off.cancel()
    holder.cancel()
    await asyncio.gather(broken_off, holder, return_exceptions=True)

    assert (await narrow.run("cli", targets=3, batch_size=3)).ok
