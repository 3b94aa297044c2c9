"""The order and the rules of a deploy, on a bucket in memory."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.hooks.request import EventRun
from maand_executor.rules.cancel import CancelLevel
from maand_executor.rules.facts import AllocationState, JobFile, Namespace
from tests.unit.executor.fakes_runs import RunBed


@pytest.fixture
def bed(tmp_path: Path) -> RunBed:
    return RunBed(tmp_path)


async def test_a_first_deploy_copies_then_starts_then_promotes(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    ended = await bed.deploy()
    assert ended.word == "succeeded"
    assert sorted(bed.did) == sorted(["copy api 10.0.0.1", "copy api 10.0.0.2", "start api 10.0.0.1", "start api 10.0.0.2"])
    assert bed.catalog.states("api") == ["promoted", "promoted"]
    assert ended.jobs() == {"api": "succeeded"}
    assert ended.result.counts["promoted"] == 2


async def test_a_template_that_names_versions_is_rolled_out_once_for_each(bed: RunBed) -> None:
    bed.add_job("api", files={"Makefile": "", "info.j2": "from {{ current_version }} to {{ new_version }}"})
    for version, said in (("1.0.0", "from 0.0.0 to 1.0.0"), ("2.0.0", "from 1.0.0 to 2.0.0")):
        bed.catalog.change("api", "10.0.0.1", new_version=version)
        assert (await bed.deploy()).word == "succeeded"
        (info,) = (file for file in bed.catalog.deployed["api@10.0.0.1"] if file.path == "info")
        assert info.sha256 == sha256(said.encode()).digest()
        for _ in range(2):
            assert (await bed.deploy()).jobs() == {"api": "skipped"}
    bed.write("api", {"Makefile": "changed", "info.j2": "from {{ current_version }} to {{ new_version }}"})
    await bed.deploy()
    assert info in bed.catalog.deployed["api@10.0.0.1"], "other content of the same version leaves what it says of versions"
    assert (await bed.deploy()).jobs() == {"api": "skipped"}


async def test_what_an_older_executor_promoted_is_not_rolled_out_because_kinds_are_recorded_now(bed: RunBed) -> None:
    bed.add_job("api")
    bed.catalog.files["api"] += (JobFile(path="current", mode=0o777, link_target="Makefile"),)
    await bed.deploy()
    files = [replace(file, mode=file.mode & 0o777) for file in bed.catalog.deployed["api@10.0.0.1"]]
    older = sha256(b"".join(f"{file.path}\0{file.mode:o}\0".encode() + file.sha256 for file in files)).digest()
    bed.catalog.deployed["api@10.0.0.1"] = tuple(files)
    assert bed.catalog.allocations["api@10.0.0.1"].deployed_sha256 != older
    bed.catalog.change("api", "10.0.0.1", deployed_sha256=older)
    assert (await bed.deploy()).jobs() == {"api": "skipped"}

    bed.catalog.files["api"] += (JobFile(path="spool", mode=0o755, directory=True),)
    await bed.deploy()
    assert bed.did == ["copy api 10.0.0.1", "restart api 10.0.0.1"]


async def test_a_second_deploy_contacts_nobody(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    await bed.deploy()
    bed.remote.contacted.clear()
    ended = await bed.deploy()
    assert ended.word == "succeeded"
    assert ended.jobs() == {"api": "skipped"}
    assert bed.remote.contacted == set()
    assert not ended.result.changes


async def test_hooks_run_around_the_rollout_in_their_order(bed: RunBed) -> None:
    bed.add_job("api", hooks=("pre_deploy", "post_deploy", "after_allocation_started", "health_check"))
    await bed.deploy()
    assert bed.did == [
        "hook pre_deploy api 10.0.0.1",
        "copy api 10.0.0.1",
        "start api 10.0.0.1",
        "hook after_allocation_started api 10.0.0.1",
        "hook health_check api 10.0.0.1",
        "hook post_deploy api 10.0.0.1",
    ]


async def test_what_hooks_give_for_the_summary_is_in_the_result_once(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("pre_deploy", "post_deploy"))
    bed.hooks.notices = ("the schema is at version 42",)
    ended = await bed.deploy()
    assert list(ended.result.notices) == ["the schema is at version 42"]


async def test_pre_deploy_runs_also_when_nothing_changes_and_post_deploy_does_not(bed: RunBed) -> None:
    bed.add_job("api", hooks=("pre_deploy", "post_deploy"))
    await bed.deploy()
    await bed.deploy()
    assert bed.did == ["hook pre_deploy api 10.0.0.1"]


async def test_a_value_stored_by_pre_deploy_is_rendered_in_the_same_deploy(bed: RunBed) -> None:
    bed.add_job("api", files={"Makefile": "", "app.conf.j2": "{{ get('vars/job/api', 'colour') }}"}, hooks=("pre_deploy",))

    def store(request: EventRun) -> None:
        bed.catalog.values["vars/job/api"] = Namespace(values={"colour": "blue"})

    bed.hooks.on_event = store
    ended = await bed.deploy()
    assert ended.word == "succeeded", ended.result


async def test_jobs_are_rolled_out_after_those_they_demand(bed: RunBed) -> None:
    bed.add_job("api", deployment_seq=1, demanded_jobs=("database",))
    bed.add_job("database")
    await bed.deploy()
    assert bed.did == [f"{step} {job} 10.0.0.1" for job in ("database", "api") for step in ("copy", "start")]


async def test_a_job_whose_demanded_job_failed_is_blocked_and_the_rest_goes_on(bed: RunBed) -> None:
    bed.add_job("database")
    bed.add_job("api", deployment_seq=1, demanded_jobs=("database",))
    bed.add_job("web", deployment_seq=2, demanded_jobs=("api",))
    bed.add_job("cache", deployment_seq=1)
    bed.remote.fail["start database 10.0.0.1"] = 1
    ended = await bed.deploy()
    assert ended.jobs() == {"database": "failed", "api": "blocked", "web": "blocked", "cache": "succeeded"}
    assert [failure.kind for failure in ended.result.failures].count(pb.FAILURE_KIND_BLOCKED) == 2


async def test_a_failed_hook_ends_its_job_before_anything_is_copied(bed: RunBed) -> None:
    bed.add_job("api", hooks=("pre_deploy",))
    bed.hooks.fail["pre_deploy 10.0.0.1"] = 7
    ended = await bed.deploy()
    assert ended.word == "failed"
    assert bed.did == ["hook pre_deploy api 10.0.0.1"]
    assert ended.result.failures[0].exit_code == 7
    assert ended.result.next_command == "maand deploy --build", "the same broken hook would run again without a build"


async def test_after_a_broken_template_the_next_command_takes_the_mended_one_in(bed: RunBed) -> None:
    bed.add_job("api", files={"Makefile": "", "app.conf.j2": "{{ get('vars/job/api', 'nowhere') }}"})
    ended = await bed.deploy(jobs=["api"], force=True)
    assert ended.word == "failed"
    assert ended.result.next_command == "maand deploy --jobs api --build --force"


async def test_failed_post_deploy_hooks_run_again_with_the_next_deploy(bed: RunBed) -> None:
    bed.add_job("api", hooks=("post_deploy",))
    bed.hooks.fail["post_deploy 10.0.0.1"] = 1
    assert (await bed.deploy()).word == "failed"
    assert bed.catalog.states("api") == ["promoted"]
    bed.hooks.fail.clear()
    assert (await bed.deploy()).word == "succeeded"
    assert bed.did == ["hook post_deploy api 10.0.0.1"]
    await bed.deploy()
    assert bed.did == []


async def test_job_control_hooks_replace_make_in_the_same_batches(bed: RunBed) -> None:
    bed.add_job("api", workers=2, hooks=("job_control",))
    await bed.deploy()
    assert sorted(bed.did) == ["copy api 10.0.0.1", "copy api 10.0.0.2", "hook job_control api 10.0.0.1,10.0.0.2"]
    request = bed.hooks.requests[-1]
    assert request.phase == "new"
    assert request.lifecycle == {"NEW_ALLOCATIONS": "10.0.0.1,10.0.0.2", "UPDATED_ALLOCATIONS": ""}


async def test_sync_only_copies_and_promotes_without_lifecycle(bed: RunBed) -> None:
    bed.add_job("api", hooks=("after_allocation_started", "health_check"))
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    ended = await bed.deploy(sync_only=True)
    assert ended.word == "succeeded"
    assert bed.did == ["copy api 10.0.0.1"]


async def test_sync_only_refuses_what_was_never_started(bed: RunBed) -> None:
    bed.add_job("api")
    ended = await bed.deploy(sync_only=True)
    assert ended.word == "failed"
    assert bed.did == []
    assert ended.result.failures[0].help == "run `maand deploy` without --sync-only once"
    assert ended.result.next_command == "maand deploy"


async def test_force_rolls_out_what_is_unchanged(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    await bed.deploy(force=True)
    assert bed.did == ["copy api 10.0.0.1", "restart api 10.0.0.1"]


async def test_only_the_named_jobs_are_deployed(bed: RunBed) -> None:
    bed.add_job("api")
    bed.add_job("database")
    await bed.deploy(jobs=["api"])
    assert bed.did == ["copy api 10.0.0.1", "start api 10.0.0.1"]


async def test_an_unknown_job_is_refused_with_the_nearest_name(bed: RunBed) -> None:
    bed.add_job("database")
    ended = await bed.deploy(jobs=["databse"])
    assert ended.word == "failed"
    assert ended.result.failures[0].kind == pb.FAILURE_KIND_INVALID
    assert ended.result.failures[0].help == 'did you mean "database"?'


async def test_a_broken_template_fails_its_job_with_file_and_line(bed: RunBed) -> None:
    bed.add_job("api", files={"app.conf.j2": "\n{{ nope }}"})
    bed.add_job("web")
    ended = await bed.deploy()
    assert ended.jobs() == {"api": "failed", "web": "succeeded"}
    assert "workspace/jobs/api/app.conf.j2:2" in ended.result.failures[0].message


async def test_a_takeover_repeats_no_promoted_allocation_even_when_forced(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    await bed.deploy()
    await bed.deploy(force=True, steps=["api/10.0.0.1/promoted"])
    assert bed.did == ["copy api 10.0.0.2", "restart api 10.0.0.2"]


async def test_the_end_of_a_deploy_that_was_taken_over_tells_what_every_owner_did(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    bed.add_job("web")
    await bed.deploy()
    steps = ["api/10.0.0.1/promoted", "web/10.0.0.1/promoted:started", "old/10.0.0.1/stopped", "api/10.0.0.1/pre_deploy:hook_a"]
    ended = await bed.deploy(force=True, steps=steps)
    assert ended.result.counts == {"promoted": 4, "stopped": 1}
    assert ended.result.message == "api: 3 updated; web: 1 started"
    assert ended.jobs() == {"api": "succeeded", "web": "succeeded"}
    assert ended.result.changes


async def test_starts_and_updates_are_recorded_apart_and_neither_is_repeated(bed: RunBed) -> None:
    bed.add_job("api", workers=2)
    await bed.deploy()
    assert [step for step in bed.catalog.steps if "promoted" in step] == [f"api/10.0.0.{n}/promoted:started" for n in (1, 2)]
    await bed.deploy(force=True, steps=["api/10.0.0.1/promoted:started"])
    assert bed.did == ["copy api 10.0.0.2", "restart api 10.0.0.2"]


async def test_a_build_that_changed_nothing_on_the_worker_is_settled_as_promoted(bed: RunBed) -> None:
    bed.add_job("api")
    await bed.deploy()
    bed.catalog.change("api", "10.0.0.1", state=AllocationState.PENDING)
    assert (await bed.deploy()).jobs() == {"api": "skipped"}
    assert bed.catalog.states("api") == ["promoted"]


# Cancel -----------------------------------------------------------------------------------------------------------------


async def test_a_cancel_lets_the_batch_finish_and_starts_no_further_one(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    bed.remote.on_command = lambda did: bed.cancel.raise_to(CancelLevel.AFTER_BATCH) if did == "restart api 10.0.0.1" else None
    ended = await bed.deploy()
    assert ended.word == "cancelled"
    assert bed.did == ["copy api 10.0.0.1", "restart api 10.0.0.1"]
    assert bed.catalog.states("api") == ["promoted"] * 3
    assert ended.jobs() == {"api": "cancelled"}
    assert ended.result.next_command == "maand deploy"


async def test_a_cancel_between_batches_takes_nothing_of_what_failed_in_those_before(bed: RunBed) -> None:
    bed.add_job("api", workers=3)
    await bed.deploy()
    bed.write("api", {"Makefile": "changed"})
    bed.remote.fail["restart api 10.0.0.1"] = 3
    bed.remote.on_command = lambda did: bed.cancel.raise_to(CancelLevel.AFTER_BATCH) if did == "restart api 10.0.0.1" else None
    ended = await bed.deploy(keep_going=True)
    assert [(failure.worker, failure.step) for failure in ended.result.failures] == [("10.0.0.1", "restart")]
    assert bed.did == ["copy api 10.0.0.1", "restart api 10.0.0.1"]


async def test_jobs_that_demand_a_cancelled_job_are_cancelled_too(bed: RunBed) -> None:
    bed.add_job("database", workers=2)
    bed.add_job("api", deployment_seq=1, demanded_jobs=("database",))
    bed.remote.on_command = lambda _: bed.cancel.raise_to(CancelLevel.AFTER_BATCH)
    ended = await bed.deploy()
    assert ended.jobs() == {"database": "succeeded", "api": "cancelled"}
