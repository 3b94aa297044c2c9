"""`--dry-run` tells everything and does nothing."""

from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.rules.facts import Namespace
from tests.unit.executor.fakes_runs import Ended, RunBed


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    return RunBed(tmp_path)


def planned(ended: Ended, job: str) -> pb.JobPlanned:
    return next(event.job_planned for event in ended.events if event.job == job and event.HasField("job_planned"))


async def test_a_dry_run_contacts_nobody_runs_no_hook_and_records_nothing(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("pre_deploy",))
    ended = await bed.deploy(dry_run=True)
    assert ended.word == "succeeded"
    assert (bed.did, bed.catalog.moves, bed.remote.contacted) == ([], [], set())
    assert ended.result.changes
    assert planned(ended, "api").may_change


async def test_a_dry_run_says_when_nothing_would_change(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    ended = await bed.deploy(dry_run=True)
    assert not ended.result.changes
    assert ended.result.message == "nothing would change"


async def test_a_dry_run_shows_what_changed_in_rendered_text(bed: RunBed) -> None:
    bed.add_job("api", files={"a.conf.j2": "{{ get('vars/bucket', 'colour', 'red') }}\n"})
    await bed.deploy()
    bed.catalog.values["vars/bucket"] = Namespace(values={"colour": "blue"})
    (allocation,) = planned(await bed.deploy(dry_run=True), "api").allocations
    assert list(allocation.changed_paths) == ["a.conf"]
    assert allocation.diff == "--- a/a.conf\n+++ b/a.conf\n@@ -1 +1 @@\n-red\n+blue"


async def test_secrets_are_masked_in_diffs(bed: RunBed) -> None:
    bed.add_job("api", files={"a.conf.j2": "{{ secret('token') }}\n"})
    bed.catalog.values["secrets/job/api"] = Namespace(values={"token": "hunter11"}, secret=True)
    bed.catalog.secrets += ["hunter11", "hunter22"]
    (allocation,) = planned(await bed.deploy(dry_run=True), "api").allocations
    assert allocation.diff.endswith("\n+***")
    assert (await bed.deploy()).word == "succeeded"
    bed.catalog.values["secrets/job/api"] = Namespace(values={"token": "hunter22"}, secret=True)
    (allocation,) = planned(await bed.deploy(dry_run=True), "api").allocations
    assert "hunter22" not in str(allocation)
    assert list(allocation.changed_paths) == ["a.conf"]
    assert allocation.diff.startswith("a.conf: it holds a secret, so what is on the worker now is not kept here")


async def test_what_cannot_be_planned_before_hooks_ran_counts_as_a_change_and_is_told(bed: RunBed) -> None:
    files = {"a.j2": "{{ get('vars/bucket', 'colour') }}"}
    bed.add_job("api", workers=2, files=files, hooks=("pre_deploy",))
    ended = await bed.deploy(dry_run=True)
    assert ended.word == "succeeded"
    assert any("cannot be planned before its hooks ran" in notice for notice in ended.result.notices)
    assert ended.result.changes
    assert ended.result.message == "2 allocations would change"
    assert [one.action for one in planned(ended, "api").allocations] == [pb.ALLOCATION_ACTION_START] * 2

    bed.catalog.values["vars/bucket"] = Namespace(values={"colour": "blue"})
    assert (await bed.deploy()).word == "succeeded"
    del bed.catalog.values["vars/bucket"]
    ended = await bed.deploy(dry_run=True)
    assert [one.action for one in planned(ended, "api").allocations] == [pb.ALLOCATION_ACTION_UNDECIDED] * 2
    assert ended.result.changes
    assert list(ended.result.may_change_jobs) == ["api"]
    assert ended.result.counts == {"undecided": 2}
    assert ended.result.message == "2 allocations may change, they cannot be planned before hooks ran"


async def test_that_hooks_may_still_change_an_unchanged_job_is_told_and_is_no_change(bed: RunBed) -> None:
    bed.add_job("api", hooks=("pre_deploy",))
    bed.add_job("web", deployment_seq=1, demanded_jobs=("api",))
    bed.add_job("other")
    await bed.deploy()
    ended = await bed.deploy(dry_run=True)
    assert not ended.result.changes
    assert list(ended.result.may_change_jobs) == ["api", "web"]
    assert ended.result.notices == [
        "api: its pre_deploy hooks may still change this",
        "web: hooks of api may still change this",
    ]


async def test_hooks_that_hear_of_a_stop_may_change_what_is_planned_after_it(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("after_allocation_stopped",))
    await bed.deploy()
    assert list((await bed.deploy(dry_run=True)).result.may_change_jobs) == []
    bed.catalog.change("api", "10.0.0.2", disabled=True)
    assert list((await bed.deploy(dry_run=True)).result.may_change_jobs) == ["api"]


async def test_a_template_that_nothing_will_mend_fails_the_dry_run(bed: RunBed) -> None:
    bed.add_job("api", files={"a.j2": "{{ get('vars/bucket', 'colour') }}"})
    assert (await bed.deploy(dry_run=True)).word == "failed"


async def test_a_dry_run_shows_what_would_be_stopped(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", disabled=True)
    (allocation,) = planned(await bed.deploy(dry_run=True), "api").allocations
    assert allocation.action == pb.ALLOCATION_ACTION_STOP


async def test_a_dry_run_does_not_build(bed: RunBed) -> None:
    bed.add_job("api")
    ended = await bed.deploy(dry_run=True, build_snapshot_id="snapshot")
    assert ended.result.failures[0].kind == pb.FAILURE_KIND_INVALID
