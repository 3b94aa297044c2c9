"""Workers that left the fleet: dead only when nothing can be connected to; broken ones hold nobody up for ever."""

from dataclasses import replace
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_executor.rules.facts import AllocationState
from maand_executor.ssh.errors import (
    AgentUnusable,
    AuthenticationRefused,
    CannotConnect,
    CommandNotStarted,
    ConnectionLost,
    ConnectionUnusable,
    HostKeyChanged,
    KeyUnusable,
    KnownHostsUnreadable,
    NothingFree,
    SshError,
)
from tests.unit.executor.fakes_runs import RunBed

GONE = "10.0.0.2"
WAY_OUT = f"maand worker forget {GONE} --lost"
GC = spec.RunSpec(gc=spec.GcSpec())


@pytest.fixture
async def bed(tmp_path: Path) -> RunBed:
    """Two workers with a job that changed; one of them left the fleet since the last deploy."""
    bed = RunBed(tmp_path)
    bed.add_job("api", workers=2)
    await bed.deploy()
    leave(bed)
    bed.catalog.change("api", "10.0.0.1", new_version="2.0.0")
    return bed


def leave(bed: RunBed, *, lost: bool = False) -> None:
    bed.catalog.change("api", GONE, removed=True)
    bed.catalog.workers[GONE] = replace(bed.catalog.workers[GONE], removed=True, lost=lost)


ALIVE: tuple[type[SshError], ...] = (
    *(ConnectionLost, ConnectionUnusable, AuthenticationRefused, HostKeyChanged, CommandNotStarted),
)
BROKEN = pytest.mark.parametrize("kind", ALIVE)


@BROKEN
async def test_a_worker_that_answers_somehow_is_not_dead(bed: RunBed, kind: type[SshError]) -> None:
    bed.remote.broken[GONE] = kind(GONE, "no")
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert bed.did == []
    assert WAY_OUT in ended.result.failures[0].help
    assert bed.catalog.states("api") == ["promoted", "promoted"]


@BROKEN
@pytest.mark.parametrize("flag", ["skip_unreachable", "keep_going"])
async def test_a_broken_worker_that_left_is_left_out_when_asked_to(bed: RunBed, kind: type[SshError], flag: str) -> None:
    bed.remote.broken[GONE] = kind(GONE, "no")
    ended = await bed.deploy(skip_unreachable=flag == "skip_unreachable", keep_going=flag == "keep_going")
    assert ended.word == ("succeeded" if flag == "skip_unreachable" else "failed")
    assert bed.did == ["copy api 10.0.0.1", "restart api 10.0.0.1"]
    assert list(ended.result.unreachable_workers) == [GONE]
    assert bed.catalog.states("api") == ["promoted", "promoted"]


@BROKEN
async def test_gc_keeps_what_is_on_a_worker_that_answers_somehow(bed: RunBed, kind: type[SshError]) -> None:
    bed.catalog.change("api", GONE, state=AllocationState.REMOVED)
    bed.remote.broken[GONE] = kind(GONE, "no")
    ended = await bed.run(GC)
    assert ended.word == "failed"
    assert WAY_OUT in ended.result.failures[0].help
    assert f"api@{GONE}" in bed.catalog.allocations


LOCAL = pytest.mark.parametrize("kind", [CannotConnect, AgentUnusable, KeyUnusable, KnownHostsUnreadable, NothingFree])


@LOCAL
@pytest.mark.parametrize("skip", [False, True])
async def test_a_fault_of_this_machine_leaves_no_worker_out(bed: RunBed, kind: type[SshError], skip: bool) -> None:
    bed.remote.broken[GONE] = kind(GONE, "no")
    ended = await bed.deploy(skip_unreachable=skip)
    (failure,) = ended.result.failures
    assert (ended.word, failure.kind) == ("failed", pb.FAILURE_KIND_LOCAL)
    assert WAY_OUT not in failure.help
    assert bed.did == []
    assert bed.catalog.states("api") == ["promoted", "promoted"]


@LOCAL
async def test_gc_keeps_what_this_machine_keeps_it_from_removing(bed: RunBed, kind: type[SshError]) -> None:
    bed.catalog.change("api", GONE, state=AllocationState.REMOVED)
    bed.remote.broken[GONE] = kind(GONE, "no")
    ended = await bed.run(GC)
    assert (ended.word, ended.result.failures[0].kind) == ("failed", pb.FAILURE_KIND_LOCAL)
    assert f"api@{GONE}" in bed.catalog.allocations


async def test_a_stop_that_fails_names_the_way_out_and_keeps_the_job_back(bed: RunBed) -> None:
    bed.remote.fail[f"stop api {GONE}"] = 2
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert WAY_OUT in ended.result.failures[0].help
    assert bed.catalog.states("api") == ["promoted", "failed"]


@pytest.mark.parametrize("broken_by", ["make stop", "a read-only disk"])
async def test_with_keep_going_the_healthy_ones_are_updated_and_the_run_has_failed(bed: RunBed, broken_by: str) -> None:
    if broken_by == "make stop":
        bed.remote.fail[f"stop api {GONE}"] = 2
    else:
        bed.remote.refuse[f"stop api {GONE}"] = CommandNotStarted(GONE, "cannot write the file `fence`")
    ended = await bed.deploy(keep_going=True)
    assert ended.word == "failed"
    assert ended.result.message == "failed: api"
    assert "restart api 10.0.0.1" in bed.did
    assert bed.catalog.states("api") == ["promoted", "failed"]
    assert [failure.worker for failure in ended.result.failures] == [GONE]


async def test_with_skip_unreachable_a_worker_that_cannot_be_written_to_is_left_out(bed: RunBed) -> None:
    bed.remote.refuse[f"stop api {GONE}"] = CommandNotStarted(GONE, "cannot write the file `fence`")
    ended = await bed.deploy(skip_unreachable=True)
    assert ended.word == "succeeded", ended.result
    assert list(ended.result.unreachable_workers) == [GONE]
    assert "restart api 10.0.0.1" in bed.did


async def test_skip_unreachable_does_not_hide_a_stop_that_failed(bed: RunBed) -> None:
    bed.remote.fail[f"stop api {GONE}"] = 2
    assert (await bed.deploy(skip_unreachable=True)).word == "failed"


async def test_of_a_stop_batch_with_one_failure_the_others_are_recorded_as_stopped(tmp_path: Path) -> None:
    bed = RunBed(tmp_path)
    bed.add_job("api", workers=3, hooks=("after_allocation_stopped",))
    await bed.deploy()
    for host in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        bed.catalog.change("api", host, disabled=True)
    bed.remote.fail["stop api 10.0.0.2"] = 2
    assert (await bed.deploy()).word == "failed"
    assert bed.catalog.states("api") == ["stopped", "failed", "stopped"]
    assert bed.did[-1] == "hook after_allocation_stopped api 10.0.0.1,10.0.0.3"
    bed.remote.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    assert bed.did == ["stop api 10.0.0.2", "hook after_allocation_stopped api 10.0.0.2"]


async def test_a_worker_that_was_given_up_is_never_contacted(bed: RunBed) -> None:
    leave(bed, lost=True)
    bed.remote.contacted.clear()
    ended = await bed.deploy()
    assert ended.word == "succeeded", ended.result
    assert bed.catalog.states("api") == ["promoted", "removed"]
    assert (await bed.run(GC)).word == "succeeded"
    assert list(bed.catalog.allocations) == ["api@10.0.0.1"]
    assert bed.remote.contacted == {"10.0.0.1"}


async def test_gc_forgets_what_was_given_up_without_a_deploy_before_it(bed: RunBed) -> None:
    leave(bed, lost=True)
    bed.remote.contacted.clear()
    ended = await bed.run(GC)
    assert ended.word == "succeeded", ended.result
    assert (f"api@{GONE}", "removed") in bed.catalog.moves
    assert list(bed.catalog.allocations) == ["api@10.0.0.1"]
    assert bed.remote.contacted == set()


async def test_skip_unreachable_leaves_out_a_present_worker_whose_connection_breaks(bed: RunBed) -> None:
    bed.remote.broken["10.0.0.1"] = ConnectionLost("10.0.0.1", "the connection was lost")
    ended = await bed.deploy(skip_unreachable=True)
    assert ended.word == "succeeded"
    assert list(ended.result.unreachable_workers) == ["10.0.0.1"]


async def test_a_present_worker_that_refuses_us_is_not_left_out(bed: RunBed) -> None:
    bed.remote.broken["10.0.0.1"] = AuthenticationRefused("10.0.0.1", "no")
    ended = await bed.deploy(skip_unreachable=True, keep_going=True)
    assert [(failure.kind, failure.worker) for failure in ended.result.failures] == [(pb.FAILURE_KIND_AUTHENTICATION, "10.0.0.1")]
    assert "forget" not in ended.result.failures[0].help
