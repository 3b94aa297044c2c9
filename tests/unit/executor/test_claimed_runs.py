"""A claimed run from claim to recorded end: with cancels, limits, lost leases, shutdown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_executor.catalog_client import ClaimedRun, RenewedLease
from maand_executor.claims.claim_loop import ClaimLoop
from maand_executor.claims.claimed_runs import RunLoop, Runner
from maand_executor.content.content_store import ContentStore
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import RunIdentity, Worker
from maand_executor.rules.meter import Meter
from maand_executor.rules.remote_commands import RemoteCommand, RemoteResult
from maand_executor.settings import ExecutorSettings, LeaseSettings
from maand_executor.steps.context import ExecutorParts
from maand_wire.endpoints import Endpoint
from maand_wire.errors import RemoteError
from maand_wire.supervision import RestartPauses
from tests.unit.executor.fakes_runs import RUN, FakeHooks, FleetCatalog, RendersHere
from tests.unit.executor.fakes_workers import FakeRemote

SLEEP = spec.RunSpec(run_command=spec.RunCommandSpec(command="sleep"))
QUICKLY = RestartPauses(first=timedelta(milliseconds=1))
QUICK = spec.RunSpec(run_command=spec.RunCommandSpec(command="true"))


class LeasingCatalog(FleetCatalog):
    """A catalog that gives leases and remembers how runs ended."""

    def __init__(self) -> None:
        super().__init__()
        self.workers["10.0.0.1"] = Worker(name="10.0.0.1")
        self.cancel = CancelLevel.NOT_ASKED
        self.renewal_failure: RemoteError | None = None
        self.finished: list[tuple[str, pb.RunResult]] = []
        self.to_claim: list[ClaimedRun] = []
        self.recorded = asyncio.Event()

    async def claim_run(self, executor_id: str, *, wait: timedelta, bucket_ids: Any = ()) -> ClaimedRun | None:
        if not self.to_claim:
            await asyncio.sleep(wait.total_seconds())
            return None
        return self.to_claim.pop()

    async def renew_lease(self, run: RunIdentity, *, deadline: timedelta) -> RenewedLease:
        if self.renewal_failure:
            raise self.renewal_failure
        return RenewedLease(lease=timedelta(seconds=15), cancel=self.cancel)

    async def finish_run(self, run: RunIdentity, state: "run_pb2.RunState.ValueType", result: pb.RunResult) -> None:
        self.finished.append((run_pb2.RunState.Name(state).removeprefix("RUN_STATE_").lower(), result))
        self.recorded.set()


class SleepyRemote(FakeRemote):
    """Workers on which `sleep` never ends by itself."""

    def __init__(self) -> None:
        super().__init__([])
        self.began = asyncio.Event()
        self.interrupted = 0

    async def run(self, worker: Worker, command: RemoteCommand, *, on_output: Any = None) -> RemoteResult:
        if command.script != "sleep":
            return await super().run(worker, command, on_output=on_output)
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.interrupted += 1
            raise
        raise AssertionError


class Bench:
    """One executor's parts, with everything outside replaced."""

    def __init__(self, directory: Path) -> None:
        self.catalog = LeasingCatalog()
        self.remote = SleepyRemote()
        self.killed: list[RunIdentity] = []
        hooks: Any = FakeHooks([])
        hooks.kill = self.killed.append
        settings = ExecutorSettings(
            listen="",
            catalog=Endpoint(address="unix:none"),
            secrets_dir=directory,
            state_dir=directory,
            lease=LeaseSettings(renew_every=timedelta(milliseconds=10), retry_pause=timedelta(milliseconds=10)),
        )
        catalog: Any = self.catalog
        remotes: Any = self
        self.parts = ExecutorParts(
            executor_id="executor",
            settings=settings,
            catalog=catalog,
            content=ContentStore(directory / "blobs", catalog),
            templates=RendersHere(),
            hooks=hooks,
            remotes=remotes,
        )

    @asynccontextmanager
    async def of(self, _: object) -> AsyncIterator[SleepyRemote]:
        yield self.remote

    def runner(self, asked: spec.RunSpec) -> Runner:
        return Runner(self.parts, claim(asked))


def claim(asked: spec.RunSpec, *, run_id: str = RUN.run_id) -> ClaimedRun:
    return ClaimedRun(identity=replace(RUN, run_id=run_id), kind="run_command", spec=asked, lease=timedelta(seconds=15))


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_run_that_ends_by_itself_is_recorded_with_its_result(bench: Bench) -> None:
    await bench.runner(QUICK).carry_out()
    ((state, result),) = bench.catalog.finished
    assert (state, result.message) == ("succeeded", "done on 1 workers")
    assert bench.catalog.events[0].run_started.executor_id == "executor"


async def test_a_second_cancel_ends_the_work_at_once(bench: Bench) -> None:
    running = asyncio.create_task(bench.runner(SLEEP).carry_out())
    await bench.remote.began.wait()
    bench.catalog.cancel = CancelLevel.NOW
    await running
    assert bench.remote.interrupted == 1
    assert bench.catalog.finished[0][0] == "cancelled"


async def test_a_first_cancel_lets_the_work_go_on(bench: Bench) -> None:
    running = asyncio.create_task(bench.runner(SLEEP).carry_out())
    await bench.remote.began.wait()
    bench.catalog.cancel = CancelLevel.AFTER_BATCH
    await asyncio.sleep(0.1)
    assert bench.remote.interrupted == 0
    bench.catalog.cancel = CancelLevel.NOW
    await running


async def test_a_run_has_its_own_time_limit(bench: Bench) -> None:
    await bench.runner(spec.RunSpec(run_command=SLEEP.run_command, timeout_seconds=1)).carry_out()
    ((state, result),) = bench.catalog.finished
    assert state == "failed"
    assert result.failures[0].kind == pb.FAILURE_KIND_TIMED_OUT


async def test_a_lost_lease_kills_hooks_ends_the_work_and_records_nothing(bench: Bench) -> None:
    running = asyncio.create_task(bench.runner(SLEEP).carry_out())
    await bench.remote.began.wait()
    bench.catalog.renewal_failure = RemoteError(grpc.StatusCode.FAILED_PRECONDITION, "taken over", code="stale_fence")
    await running
    assert bench.remote.interrupted == 1
    assert bench.killed == [RUN]
    assert bench.catalog.finished == []


async def test_an_unexpected_error_fails_the_run_without_details(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.catalog.workers = None  # type: ignore[assignment]  # what no catalog would answer
    await bench.runner(QUICK).carry_out()
    ((state, result),) = bench.catalog.finished
    assert (state, result.failures[0].kind) == ("failed", pb.FAILURE_KIND_INTERNAL)
    assert "AttributeError" in result.message


async def test_secrets_are_masked_in_the_result(bench: Bench) -> None:
    bench.catalog.secrets.append("hunter22")
    bench.remote.fail["echo hunter22; false 10.0.0.1"] = 1
    await bench.runner(spec.RunSpec(run_command=spec.RunCommandSpec(command="echo hunter22; false"))).carry_out()
    assert "hunter22" not in str(bench.catalog.finished)


REFUSED = RemoteError(grpc.StatusCode.FAILED_PRECONDITION, "kv.key cannot be read", help="chmod 600 kv.key")


async def test_a_run_whose_masks_cannot_be_had_fails_with_the_reason_and_stores_nothing_unmasked(bench: Bench) -> None:
    bench.catalog.mask_failures = [REFUSED] * 1_000
    bench.remote.fail["echo hunter22; false 10.0.0.1"] = 1
    await bench.runner(spec.RunSpec(run_command=spec.RunCommandSpec(command="echo hunter22; false"))).carry_out()
    ((state, result),) = bench.catalog.finished
    assert (state, bench.catalog.events) == ("failed", [])
    assert result.message == "the output of this run cannot be stored: kv.key cannot be read"
    assert [failure.help for failure in result.failures] == ["chmod 600 kv.key"]
    assert "hunter22" not in str(result)


async def test_a_run_whose_output_is_refused_fails_with_the_reason_and_its_masked_result(bench: Bench) -> None:
    bench.catalog.secrets.append("hunter22")
    bench.catalog.append_failures = [RemoteError(grpc.StatusCode.INVALID_ARGUMENT, "too many events")]
    await bench.runner(QUICK).carry_out()
    ((state, result),) = bench.catalog.finished
    assert (state, result.message) == ("failed", "done on 1 workers")
    assert [failure.message for failure in result.failures] == ["the output of this run cannot be stored: too many events"]


async def test_a_run_that_is_lost_while_its_output_is_stored_records_nothing(bench: Bench) -> None:
    bench.catalog.append_failures = [RemoteError(grpc.StatusCode.FAILED_PRECONDITION, "taken over", code="stale_fence")]
    await bench.runner(QUICK).carry_out()
    assert bench.catalog.finished == []


async def test_the_private_staging_directory_goes_with_the_run(bench: Bench, tmp_path: Path) -> None:
    await bench.runner(QUICK).carry_out()
    assert list((tmp_path / "staging").iterdir()) == []


async def test_several_runs_go_side_by_side_and_a_stop_ends_all(bench: Bench) -> None:
    bench.catalog.to_claim = [claim(QUICK, run_id="three"), claim(SLEEP, run_id="two"), claim(SLEEP, run_id="one")]
    run_loop = RunLoop(bench.parts)
    loop = asyncio.create_task(run_loop.run())
    await bench.catalog.recorded.wait()
    await bench.remote.began.wait()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert bench.remote.interrupted == 2
    assert not run_loop.active_run_ids
    assert [state for state, _ in bench.catalog.finished] == ["succeeded"]


class Handing(LeasingCatalog):
    """A catalog that hands out what it is given, accidents too, and waits when there is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: asyncio.Queue[ClaimedRun | Exception] = asyncio.Queue()

    async def claim_run(self, executor_id: str, *, wait: timedelta, bucket_ids: Any = ()) -> ClaimedRun | None:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Endings:
    """Runners that end when they are told to, each by the fence it works under."""

    def __init__(self) -> None:
        self.began: asyncio.Queue[RunIdentity] = asyncio.Queue()
        self.orders: dict[tuple[str, int], asyncio.Future[None]] = {}
        self.ended: asyncio.Queue[RunIdentity] = asyncio.Queue()

    def __call__(self, parts: ExecutorParts, claimed: ClaimedRun) -> Any:
        endings, run = self, claimed.identity

        class Told:
            async def carry_out(self) -> None:
                order = endings.orders[run.run_id, run.fence] = asyncio.get_running_loop().create_future()
                endings.began.put_nowait(run)
                try:
                    await order
                finally:
                    endings.ended.put_nowait(run)

        return Told()

    async def let_end(self, run_id: str, fence: int) -> None:
        self.orders[run_id, fence].set_result(None)
        assert (await self.ended.get()).fence == fence


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> Endings:
    endings = Endings()
    monkeypatch.setattr("maand_executor.claims.claimed_runs.Runner", endings)
    return endings


def handing(bench: Bench) -> tuple[RunLoop, Handing]:
    catalog: Any = Handing()
    return RunLoop(replace(bench.parts, catalog=catalog)), catalog


def claim_of(run_id: str, fence: int) -> ClaimedRun:
    one = claim(QUICK, run_id=run_id)
    return replace(one, identity=replace(one.identity, fence=fence))


@pytest.mark.parametrize("first_to_end", [1, 2])
async def test_the_same_run_claimed_twice_overlapping_disturbs_neither_claim_nor_the_next(
    bench: Bench, endings: Endings, first_to_end: int
) -> None:
    run_loop, catalog = handing(bench)
    loop = asyncio.create_task(run_loop.run())
    for run_id, fence in (("other", 1), ("frozen", 1), ("frozen", 2)):
        catalog.answers.put_nowait(claim_of(run_id, fence))
        await endings.began.get()
    assert sorted(run_loop.active_run_ids) == ["frozen", "other"]
    await endings.let_end("frozen", first_to_end)
    await asyncio.sleep(0)
    assert sorted(run_loop.active_run_ids) == ["frozen", "other"], "the other claim of the run still works"
    await endings.let_end("frozen", 3 - first_to_end)
    await asyncio.sleep(0)
    assert list(run_loop.active_run_ids) == ["other"], "still carried out"
    catalog.answers.put_nowait(claim_of("next", 1))
    assert (await endings.began.get()).run_id == "next"
    assert not loop.done()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert {(await endings.ended.get()).run_id for _ in range(2)} == {"other", "next"}, "a stop ends all"


async def test_claims_given_back_by_accident_leave_room_for_as_many_as_before(bench: Bench, endings: Endings) -> None:
    run_loop, catalog = handing(bench)
    at_once = bench.parts.settings.work.runs_at_once
    loop = asyncio.create_task(run_loop.run())
    for number in range(at_once):
        catalog.answers.put_nowait(claim_of(f"unlucky-{number}", 1))
        await endings.began.get()
    for number in range(at_once):
        endings.orders[f"unlucky-{number}", 1].set_exception(RuntimeError("an accident"))
    for number in range(at_once):
        catalog.answers.put_nowait(claim_of(f"next-{number}", 1))
        await endings.began.get()
    assert len(run_loop.active_run_ids) == at_once
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def test_an_accident_while_claiming_ends_no_run_and_claiming_goes_on() -> None:
    asked, carried_out, go_on = 0, asyncio.Queue[str](), asyncio.Event()
    claimed_again = asyncio.Event()

    async def claim_one() -> str | None:
        nonlocal asked
        asked += 1
        if asked == 1:
            return "first"
        if asked in (2, 3):
            raise KeyError("nobody foresaw this")
        if asked == 4:
            return "second"
        claimed_again.set()
        await asyncio.Event().wait()
        return None

    async def carry_out(name: str) -> None:
        await go_on.wait()
        carried_out.put_nowait(name)

    with capture_logs() as logs:
        task = asyncio.create_task(ClaimLoop("probe", at_once=3, claim=claim_one, carry_out=carry_out, pauses=QUICKLY).run())
        await claimed_again.wait()
        go_on.set()
        assert {await carried_out.get(), await carried_out.get()} == {"first", "second"}
    assert [line["loop"] for line in logs] == ["probe", "probe"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_meter_that_fails_leaves_no_keeper_behind_that_would_hold_the_run(bench: Bench) -> None:
    def fail(*_: object) -> None:
        raise KeyError("no such metric")

    meter: Any = Meter()
    meter.run_ended = fail
    runner = Runner(replace(bench.parts, meter=meter), claim(QUICK))
    with pytest.raises(KeyError):
        await runner.carry_out()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("lease of")]
