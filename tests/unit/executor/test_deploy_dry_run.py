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


async def test_a_template_that_waits_for_a_hook_s_value_is_told_and_no_failure(bed: RunBed) -> None:
    bed.add_job("api", files={"a.j2": "{{ get('vars/bucket', 'colour') }}"}, hooks=("pre_deploy",))
    ended = await bed.deploy(dry_run=True)
    assert ended.word == "succeeded"
    assert any("cannot be planned before its hooks ran" in notice for notice in ended.result.notices)


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
