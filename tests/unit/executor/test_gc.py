"""Garbage collection: what is deleted and forgotten, what is kept, who goes on with it."""

from dataclasses import replace
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from maand_executor.rules.facts import AllocationState
from tests.unit.executor.fakes_runs import RunBed

GC = spec.RunSpec(gc=spec.GcSpec())


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    return RunBed(tmp_path)


async def test_gc_deletes_and_forgets_what_was_removed_and_stopped(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.2", removed=True)
    await bed.deploy()
    ended = await bed.run(GC)
    assert ended.word == "succeeded"
    assert bed.did == ["purge 10.0.0.2"]
    assert list(bed.catalog.allocations) == ["api@10.0.0.1"]


async def test_gc_that_is_taken_over_deletes_what_is_left_and_counts_all_of_it(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    await bed.deploy()
    for worker in ("10.0.0.2", "10.0.0.3"):
        bed.catalog.change("api", worker, removed=True)
    await bed.deploy()
    ended = await bed.run(GC, steps=["api/10.0.0.2/deleted", "web/10.0.0.9/deleted"])
    assert bed.did == ["purge 10.0.0.3"]
    assert list(bed.catalog.allocations) == ["api@10.0.0.1"]
    assert ended.result.counts["purged"] == 3, "one of them was forgotten before"


async def test_gc_refuses_what_was_never_stopped(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", removed=True)
    ended = await bed.run(GC)
    assert bed.did == []
    assert ended.result.counts == {"refused": 1}
    assert ended.result.next_command == "maand deploy"


async def test_gc_keeps_what_it_could_not_delete(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", removed=True, state=AllocationState.REMOVED)
    bed.remote.unreachable.add("10.0.0.1")
    ended = await bed.run(GC)
    assert ended.word == "failed"
    assert list(bed.catalog.allocations) == ["api@10.0.0.1"]


async def test_gc_forgets_what_is_on_a_dead_worker_with_a_warning(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", removed=True, state=AllocationState.REMOVED)
    bed.catalog.workers["10.0.0.1"] = replace(bed.catalog.workers["10.0.0.1"], removed=True)
    bed.remote.unreachable.add("10.0.0.1")
    ended = await bed.run(GC)
    assert ended.word == "succeeded"
    assert "assumed dead" in ended.result.notices[0]
    assert bed.catalog.allocations == {}


async def test_a_dry_gc_deletes_nothing(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", removed=True, state=AllocationState.REMOVED)
    ended = await bed.run(spec.RunSpec(gc=spec.GcSpec(dry_run=True)))
    assert ended.result.changes
    assert bed.did == []
