"""Runs through the client: asked for once, followed through every loss, ended as frozen values."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest

from maand_client import Ended, RunOptions, specs
from maand_client.errors import BucketHeld, FailedPrecondition, Invalid, NotFound, RunFailed, Unavailable
from maand_contracts.catalog.v1 import run_event_pb2 as events
from maand_contracts.catalog.v1 import run_pb2, run_spec_pb2
from tests.contracts.catalog.run_builders import NOWHERE, an_output
from tests.contracts.catalog.run_verbs import append, finish, must_claim
from tests.unit.client.conftest import Bed, first
from tests.waiting import until

FAILED = events.RunResult(
    message="1 of 2 workers failed",
    failures=[
        events.Failure(
            kind=events.FAILURE_KIND_UNREACHABLE,
            worker="10.0.0.2",
            message="10.0.0.2 does not answer",
            help="maand worker ping",
            last_lines=["one", "two"],
        )
    ],
    counts={"succeeded": 1, "failed": 1},
    next_command="maand run_command uptime",
    unreachable_workers=["10.0.0.2"],
)


async def all_of(stream: AsyncIterator[events.RunEvent]) -> list[events.RunEvent]:
    return [event async for event in stream]


async def end_failed(bed: Bed, run: run_pb2.Run) -> None:
    request = run_pb2.FinishRunRequest(
        bucket_id=run.bucket_id, run_id=run.run_id, fence=run.fence, state=run_pb2.RUN_STATE_FAILED, result=FAILED
    )
    await bed.catalog.local.runs.FinishRun(request)


async def test_a_run_is_asked_for_with_typed_arguments_and_options(bed: Bed) -> None:
    async with await bed.remote() as maand:
        options = RunOptions(keep_going=True, timeout=timedelta(seconds=90), requested_by="reports@host")
        run = await maand.runs.start(specs.run_command("uptime", labels=["db"]), options)
        known = await run.get()
        assert (known.kind, known.requested_by) == (run_spec_pb2.RUN_KIND_RUN_COMMAND, "reports@host")
        assert (known.spec.run_command.command, list(known.spec.run_command.labels)) == ("uptime", ["db"])
        assert (known.spec.keep_going, known.spec.timeout_seconds) == (True, 90)


async def test_the_specification_of_a_caller_stays_as_it_was(bed: Bed) -> None:
    async with bed.local() as maand:
        spec = specs.health_check()
        before = spec.SerializeToString()
        await maand.runs.start(spec, RunOptions(keep_going=True))
        assert spec.SerializeToString() == before


async def test_asking_twice_with_one_request_id_is_one_run(bed: Bed) -> None:
    async with bed.local() as maand:
        options = RunOptions(request_id="nightly-2026-11-27")
        once = await maand.runs.start(specs.health_check(), options)
        assert (await maand.runs.start(specs.health_check(), options)).run_id == once.run_id
        assert (await maand.runs.start(specs.health_check())).run_id != once.run_id


async def test_events_come_in_order_to_the_end_of_the_run(bed: Bed) -> None:
    async with await bed.remote() as maand:
        run = await maand.runs.start(specs.health_check())
        claimed = await must_claim(bed.catalog)
        await append(bed.catalog, claimed, an_output("one"), an_output("two"))
        await finish(bed.catalog, claimed)
        seen = [event async for event in run.events()]
        assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].WhichOneof("event") == "run_finished"
        after = [event.sequence async for event in run.events(after=2)]
        assert after == [event.sequence for event in seen[2:]]


async def test_following_goes_on_when_replicas_are_lost_one_after_the_other(bed: Bed) -> None:
    async with await bed.remote() as maand:
        run = await maand.runs.start(specs.health_check())
        claimed = await must_claim(bed.catalog)
        seen: list[str] = []
        reached = asyncio.Event()

        async def follow() -> None:
            async for event in run.events():
                seen.extend(event.output.lines)
                reached.set()

        async def print_and_see(line: str) -> None:
            reached.clear()
            await append(bed.catalog, claimed, an_output(line))
            while line not in seen:
                await reached.wait()
                reached.clear()

        following = asyncio.create_task(follow())
        await print_and_see("with both")
        await bed.kill(0)
        await print_and_see("with the second")
        await bed.kill(1)
        await append(bed.catalog, claimed, an_output("with none"))
        await bed.revive(0)
        await print_and_see("with the first again")
        await finish(bed.catalog, claimed)
        await following
        assert seen == ["with both", "with the second", "with none", "with the first again"]


async def test_following_gives_up_when_nobody_comes_back(bed: Bed) -> None:
    async with await bed.remote(patience=timedelta(milliseconds=300)) as maand:
        run = await maand.runs.start(specs.health_check())
        stream = aiter(run.events())
        claimed = await must_claim(bed.catalog)
        await append(bed.catalog, claimed, an_output("one"))
        await anext(stream)
        await bed.kill(0)
        await bed.kill(1)
        with pytest.raises(Unavailable):
            await all_of(stream)


async def test_waiting_returns_the_end_as_a_frozen_value(bed: Bed) -> None:
    async with bed.local() as maand:
        run = await maand.runs.start(specs.health_check())
        waiting = asyncio.create_task(run.wait())
        await end_failed(bed, await must_claim(bed.catalog))
        ended = await waiting
    assert (ended.state, ended.succeeded, ended.message) == ("failed", False, "1 of 2 workers failed")
    assert (ended.failures[0].kind, ended.failures[0].last_lines) == ("unreachable", ("one", "two"))
    assert (dict(ended.counts), ended.unreachable_workers) == ({"succeeded": 1, "failed": 1}, ("10.0.0.2",))
    with pytest.raises(FrozenInstanceError):
        ended.state = "succeeded"  # type: ignore[misc]  # that is the point
    with pytest.raises(RunFailed, match=r"health_check .* failed: 10\.0\.0\.2: 10\.0\.0\.2 does not answer") as raised:
        ended.raise_for_state()
    assert (raised.value.code, raised.value.help) == ("run_failed", "maand worker ping")


def test_a_run_that_succeeded_raises_nothing() -> None:
    Ended(run_id="r", kind="deploy", state="succeeded", message="").raise_for_state()


async def test_a_pending_run_is_cancelled_at_once_and_then_no_more(bed: Bed) -> None:
    async with await bed.remote() as maand:
        run = await maand.runs.start(specs.health_check())
        await run.cancel()
        assert (await run.wait()).state == "cancelled"
        with pytest.raises(FailedPrecondition):
            await run.cancel()


async def test_the_first_cancel_is_after_the_batch_and_the_second_is_now(bed: Bed) -> None:
    async with bed.local() as maand:
        run = await maand.runs.start(specs.deploy())
        await must_claim(bed.catalog)
        assert [await run.cancel(), await run.cancel()] == [run_pb2.CANCEL_LEVEL_AFTER_BATCH, run_pb2.CANCEL_LEVEL_NOW]


async def test_a_held_bucket_says_by_whom(bed: Bed) -> None:
    async with bed.local() as maand:
        holder = await maand.runs.start(specs.deploy())
        with pytest.raises(BucketHeld) as raised:
            await maand.runs.start(specs.deploy())
    assert raised.value.facts["run_id"] == holder.run_id


async def test_an_interrupted_run_can_be_resumed(bed: Bed) -> None:
    async with bed.local() as maand:
        run = await maand.runs.start(specs.run_command("uptime"))
        await finish(bed.catalog, await must_claim(bed.catalog), run_pb2.RUN_STATE_INTERRUPTED)
        assert (await run.wait()).state == "interrupted"
        await run.resume()
        assert (await run.get()).state == run_pb2.RUN_STATE_PENDING


async def test_recent_runs_come_newest_first_over_all_pages(bed: Bed) -> None:
    async with bed.local() as maand:
        asked = [(await maand.runs.start(specs.health_check())).run_id for _ in range(25)]
        assert [run.run_id for run in await maand.runs.recent(limit=None)] == asked[::-1]
        assert [run.run_id for run in await maand.runs.recent(kinds=["health_check"], limit=2)] == asked[:-3:-1]


async def test_what_does_not_exist_and_what_makes_no_sense_are_told_apart(bed: Bed) -> None:
    async with bed.local() as maand:
        with pytest.raises(NotFound):
            await maand.runs.get(NOWHERE).get()
        with pytest.raises(Invalid):
            await maand.runs.start(run_spec_pb2.RunSpec())


async def test_leaving_the_iteration_ends_the_stream_and_not_the_run(bed: Bed) -> None:
    async with bed.local() as maand:
        run = await maand.runs.start(specs.health_check())
        claimed = await must_claim(bed.catalog)
        await append(bed.catalog, claimed, an_output("one"))
        following = asyncio.create_task(first(run.events(after=1)))
        await until(lambda: bed.catalog.running.open_streams == 1)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        await until(lambda: bed.catalog.running.open_streams == 0)
        await finish(bed.catalog, claimed)
        assert (await run.wait()).succeeded
