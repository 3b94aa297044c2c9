"""A claimed run from claim to recorded end: with cancels, limits, lost leases, shutdown."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_pb2
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_executor.cancel import CancelLevel
from maand_executor.catalog_client import ClaimedRun, RenewedLease
from maand_executor.claims import Claims
from maand_executor.content import ContentStore
from maand_executor.facts import RunIdentity, Worker
from maand_executor.parts import Parts
from maand_executor.runner import Runner
from maand_executor.settings import ExecutorSettings, LeaseSettings
from maand_executor.ssh.command import RemoteCommand, RemoteResult
from maand_wire.endpoints import Endpoint
from maand_wire.errors import RemoteError
from tests.unit.executor.fakes_runs import RUN, FakeHooks, FakeRemote, FleetCatalog

SLEEP = spec.RunSpec(run_command=spec.RunCommandSpec(command="sleep"))
QUICK = spec.RunSpec(run_command=spec.RunCommandSpec(command="true"))


class LeasingCatalog(FleetCatalog):
    """A catalog that gives leases and remembers how runs ended."""

    def __init__(self) -> None:
        super().__init__()
        self.workers["10.0.0.1"] = Worker(host="10.0.0.1")
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
        self.parts = Parts(
            executor_id="executor",
            settings=settings,
            catalog=catalog,
            content=ContentStore(directory / "blobs", catalog),
            hooks=hooks,
            remotes=remotes,
        )

    def of(self, _: object) -> SleepyRemote:
        return self.remote

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


async def test_the_private_staging_directory_goes_with_the_run(bench: Bench, tmp_path: Path) -> None:
    await bench.runner(QUICK).carry_out()
    assert list((tmp_path / "staging").iterdir()) == []


async def test_several_runs_go_side_by_side_and_a_stop_ends_all(bench: Bench) -> None:
    bench.catalog.to_claim = [claim(QUICK, run_id="three"), claim(SLEEP, run_id="two"), claim(SLEEP, run_id="one")]
    claims = Claims(bench.parts)
    loop = asyncio.create_task(claims.run())
    await bench.catalog.recorded.wait()
    await bench.remote.began.wait()
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert bench.remote.interrupted == 2
    assert not claims.active
    assert [state for state, _ in bench.catalog.finished] == ["succeeded"]
