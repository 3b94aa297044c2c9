"""Life and death of invocations with real processes: how they end, who is told, what is left behind."""

import asyncio
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import InvocationOutcome
from maand_executor.rules.waves import BatchPosition
from maand_wire.errors import RemoteError
from tests.integration.executor.hook_bed import (
    CANCELLED,
    FAILED,
    INTERRUPTED,
    OK,
    RUN,
    SAY_WHERE,
    SLEEP,
    TIMED_OUT,
    HookBed,
    is_alive,
    until,
)
from tests.unit.executor.fake_catalog import STALE


@pytest.mark.parametrize(
    ("script", "outcome", "exit_code", "message"),
    [
        ("raise SystemExit(3)", FAILED, 3, "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", FAILED, 139, "ended by SIGSEGV"),
        ("import time; time.sleep(60)", TIMED_OUT, 143, "timed out after 2 s"),
    ],
)
async def test_a_hook_that_does_not_succeed_says_how(
    bed: HookBed, script: str, outcome: InvocationOutcome, exit_code: int, message: str
) -> None:
    bed.add("hook_bad", f"print('last words')\n{script}", timeout=timedelta(seconds=2 if outcome is TIMED_OUT else 60))
    (result,) = (await bed.run()).results
    assert (result.outcome, result.exit_code, result.message) == (outcome, exit_code, message)
    assert set(bed.catalog.ended.values()) == {outcome}
    (finished,) = bed.finished()
    assert (finished.exit_code, finished.message) == (exit_code, message)
    assert finished.outcome == (pb.STEP_OUTCOME_TIMED_OUT if outcome is TIMED_OUT else pb.STEP_OUTCOME_FAILED)


async def test_what_is_left_of_a_gates_time_ends_the_hooks_that_hang_each_with_its_own_outcome(bed: HookBed) -> None:
    """Hooks of the first batch run out of the gate's time, long before their own; those of the second are not begun."""
    bed.add("hook_ready", SLEEP, "health_check")
    outcome = await bed.run("health_check", targets=3, batch_size=2, ends_at=time.monotonic() + 3)
    assert [result.outcome for result in outcome.results] == [TIMED_OUT] * 3
    assert [result.worker for result in outcome.results] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert all(result.message.startswith("timed out after ") for result in outcome.results[:2])
    assert outcome.results[2].message == "not started: the time of its health gate was over"
    assert len(bed.lines()) == 2
    assert not any(is_alive(int(line)) for line in bed.lines())


async def test_a_failure_carries_its_last_lines_masked(bed: HookBed) -> None:
    bed.catalog.secrets = ["hunter2secret"]
    bed.add("hook_bad", "print('on stdout')\nraise ValueError('cannot use hunter2secret')")
    (result,) = (await bed.run()).results
    assert result.last_lines[0] == "on stdout"
    assert result.last_lines[-1] == "ValueError: cannot use ***"
    assert not [line for line in bed.lines() if "hunter2" in line]


async def test_notices_of_hooks_reach_the_run(bed: HookBed) -> None:
    bed.add("hook_note", "from maand import notice; notice('schema is at 42')")
    outcome = await bed.run(targets=2)
    assert outcome.notices == ("schema is at 42",)
    assert [event.notice.text for event in bed.catalog.events if event.WhichOneof("event") == "notice"] == ["schema is at 42"] * 2


async def test_cancel_now_ends_the_hooks_and_nothing_more_is_started(bed: HookBed) -> None:
    bed.add("hook_sleep", SLEEP)
    task = asyncio.create_task(bed.run(targets=3, batch_size=2))
    await until(lambda: len(bed.lines()) == 2)
    bed.cancel.raise_to(CancelLevel.NOW)
    outcome = await task
    assert [result.outcome for result in outcome.results] == [CANCELLED, CANCELLED]
    assert (outcome.cancelled, outcome.untouched) == (True, ("10.0.0.3",))
    assert not any(is_alive(int(line)) for line in bed.lines())


async def test_cancel_after_the_batch_lets_the_batch_finish(bed: HookBed) -> None:
    bed.add("hook_a", "import time; time.sleep(0.5)")
    asyncio.get_running_loop().call_later(0.2, bed.cancel.raise_to, CancelLevel.AFTER_BATCH)
    outcome = await bed.run(targets=2)
    assert [result.outcome for result in outcome.results] == [OK]
    assert (outcome.cancelled, outcome.untouched, outcome.ok) == (True, ("10.0.0.2",), False)


async def test_hooks_inside_a_lifecycle_batch_run_although_the_run_stops_after_it(bed: HookBed) -> None:
    bed.add("hook_a", SAY_WHERE, "after_allocation_started")
    bed.cancel.raise_to(CancelLevel.AFTER_BATCH)
    assert (await bed.run("after_allocation_started", batch=BatchPosition(index=0, count=2))).ok


async def test_a_stopping_executor_ends_its_hooks_and_says_interrupted(bed: HookBed) -> None:
    bed.add("hook_sleep", SLEEP)
    task = asyncio.create_task(bed.run(targets=2, batch_size=2))
    await until(lambda: len(bed.lines()) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bed.journal.flush()
    assert set(bed.catalog.ended.values()) == {INTERRUPTED}
    assert [one.message for one in bed.finished()] == ["ended because its executor stopped"] * 2
    assert not any(is_alive(int(line)) for line in bed.lines())


async def test_hooks_of_a_run_whose_work_is_broken_off_by_a_cancel_say_cancelled(bed: HookBed) -> None:
    bed.add("hook_sleep", SLEEP)
    task = asyncio.create_task(bed.run())
    await until(lambda: len(bed.lines()) == 1)
    bed.cancel.raise_to(CancelLevel.NOW)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await bed.journal.flush()
    assert set(bed.catalog.ended.values()) == {CANCELLED}
    assert [one.message for one in bed.finished()] == ["ended because the run was cancelled"]
    assert all(one.duration_seconds > 0 for one in bed.finished()), "it says how long it ran"


async def test_a_lost_lease_kills_without_grace(bed: HookBed) -> None:
    bed.add("hook_stubborn", f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}")
    task = asyncio.create_task(bed.run())
    await until(lambda: len(bed.lines()) == 1)
    bed.engine.kill(RUN)
    (result,) = (await task).results
    assert result.exit_code == 128 + signal.SIGKILL


async def test_a_stale_fence_starts_nothing(bed: HookBed) -> None:
    bed.add("hook_a", SAY_WHERE)
    bed.catalog.begin_failure = STALE
    with pytest.raises(RemoteError, match="another executor"):
        await bed.run()
    assert bed.lines() == []


async def test_an_invocation_is_live_while_its_process_is_and_knows_what_it_may_reach(bed: HookBed) -> None:
    bed.add("hook_sleep", SLEEP)
    task = asyncio.create_task(bed.run(targets=2, batch_size=2))
    await until(lambda: len(bed.lines()) == 2)
    live, _ = sorted(bed.engine.live.all(), key=lambda one: one.worker)
    assert bed.engine.live.find(live.token) is live
    assert (live.job, live.hook, live.event, live.worker) == ("api", "hook_sleep", "pre_deploy", "10.0.0.1")
    assert [worker.name for worker in live.workers] == ["10.0.0.1", "10.0.0.2"]
    assert live.token not in repr(live)
    bed.cancel.raise_to(CancelLevel.NOW)
    await task
    assert bed.engine.live.find(live.token) is None


async def test_the_end_of_one_hook_frees_its_token_while_others_of_the_batch_run(bed: HookBed, tmp_path: Path) -> None:
    go = tmp_path / "go"
    bed.add(
        "hook_wait",
        f"""
        import os, pathlib, time
        while os.environ["ALLOCATION_INDEX"] == "1" and not pathlib.Path({str(go)!r}).exists():
            time.sleep(0.01)
        """,
    )
    task = asyncio.create_task(bed.run(targets=2, batch_size=2))
    await until(lambda: len(bed.catalog.ended) == 1)
    assert len(bed.catalog.alive) == 1
    go.touch()
    assert (await task).ok


async def test_what_this_host_refuses_is_a_failure_of_the_hook(bed: HookBed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.add("hook_a", SAY_WHERE)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maand_executor.content.content_store.ContentStore.materialise", refuse)
    (result,) = (await bed.run()).results
    assert result.exit_code == 126
    assert result.message.startswith("could not be started: the disk is full on ")
    assert set(bed.catalog.ended.values()) == {FAILED}


async def test_two_hundred_hooks_of_a_batch_all_end_well(bed: HookBed) -> None:
    bed.add("hook_many", "import os; print(os.environ['ALLOCATION_ID'])")
    outcome = await bed.run(targets=200, batch_size=200)
    assert outcome.ok
    assert sorted(bed.lines()) == sorted(f"id-{index}" for index in range(200))
