"""The hook engine with real processes: which hooks run, in which order and batches, what a takeover repeats."""

from pathlib import Path

from maand_executor.rules.facts import HookScope
from maand_executor.rules.waves import BatchPosition
from tests.integration.executor.hook_bed import FAILED, OK, SAY_WHERE, SHOW_ENVIRONMENT, HookBed, allocations


def fail_on(*hosts: str, code: int = 3) -> str:
    return (
        f"import os, sys; print('saw', os.environ['ALLOCATION_IP']); sys.exit({code} * (os.environ['ALLOCATION_IP'] in {hosts}))"
    )


async def test_hooks_run_one_after_another_in_name_order(bed: HookBed) -> None:
    bed.add("hook_b", SAY_WHERE)
    bed.add("hook_a", SAY_WHERE)
    bed.add("hook_other", SAY_WHERE, "post_deploy")
    outcome = await bed.run(targets=2)
    assert outcome.ok
    assert bed.lines() == ["hook_a 10.0.0.1", "hook_a 10.0.0.2", "hook_b 10.0.0.1", "hook_b 10.0.0.2"]


async def test_the_first_hook_that_fails_ends_the_event(bed: HookBed) -> None:
    bed.add("hook_a", "raise SystemExit(1)")
    bed.add("hook_b", SAY_WHERE)
    assert not (await bed.run()).ok
    assert bed.lines() == []


async def test_batches_hold_max_concurrent_upgrades_workers_in_rollout_order(bed: HookBed) -> None:
    bed.add("hook_a", SAY_WHERE)
    one, two, three = allocations(3)
    assert (await bed.run(targets=[three, one, two], batch_size=2)).ok
    assert bed.batches() == [("hook_a", 0, 2, [three.worker, one.worker]), ("hook_a", 1, 2, [two.worker])]
    assert bed.lines()[-1] == "hook_a 10.0.0.2"


async def test_all_of_a_batch_finish_and_a_failing_batch_ends_the_event(bed: HookBed) -> None:
    bed.add("hook_a", fail_on("10.0.0.3"))
    outcome = await bed.run(targets=6, batch_size=2)
    assert [result.outcome for result in outcome.results] == [OK, OK, FAILED, OK]
    assert outcome.failed_workers == ("10.0.0.3",)
    assert outcome.untouched == ("10.0.0.5", "10.0.0.6")
    assert len(bed.batches()) == 2


async def test_with_keep_going_the_following_batches_run(bed: HookBed) -> None:
    bed.add("hook_a", fail_on("10.0.0.1"))
    outcome = await bed.run(targets=3, keep_going=True)
    assert [result.outcome for result in outcome.results] == [FAILED, OK, OK]
    assert not outcome.untouched


async def test_health_checks_always_go_on_and_are_never_recorded(bed: HookBed) -> None:
    bed.add("hook_health", fail_on("10.0.0.1"), "health_check")
    for _ in range(2):
        outcome = await bed.run("health_check", targets=3)
        assert [result.outcome for result in outcome.results] == [FAILED, OK, OK]
    assert bed.steps == set()


async def test_inside_a_batch_all_run_in_parallel(bed: HookBed, tmp_path: Path) -> None:
    bed.add(
        "hook_meet",
        f"""
        import os, pathlib, time
        place = pathlib.Path({str(tmp_path)!r})
        (place / ("here-" + os.environ["ALLOCATION_ID"])).touch()
        while len(list(place.glob("here-*"))) < 8:
            time.sleep(0.01)
        """,
    )
    assert (await bed.run(targets=8, batch_size=8)).ok


async def test_only_one_hook_runs_when_only_one_is_wanted(bed: HookBed) -> None:
    bed.add("hook_a", SAY_WHERE, "cli")
    bed.add("hook_b", "import sys; print(sys.argv[1:])", "cli", "pre_deploy")
    outcome = await bed.run("cli", only_hook="hook_b", arguments=("--dry-run", "x y"))
    assert outcome.ok
    assert bed.lines() == ["['--dry-run', 'x y']"]


async def test_an_event_without_hooks_or_targets_is_well_and_asks_nothing(bed: HookBed) -> None:
    assert (await bed.run()).ok
    bed.add("hook_a", SAY_WHERE)
    assert (await bed.run(targets=[])).ok
    assert bed.catalog.begun == {}


async def test_a_hook_with_scope_rollout_runs_once_on_the_first_worker_that_can_be_reached(bed: HookBed) -> None:
    bed.add("hook_once", SHOW_ENVIRONMENT, scope=HookScope.ROLLOUT)

    async def reachable(host: str) -> bool:
        return host != "10.0.0.1"

    assert (await bed.run(targets=3, reachable=reachable)).ok
    (environment,) = bed.environments()
    assert environment["ALLOCATION_IP"] == "10.0.0.2"
    assert (environment["BATCH_INDEX"], environment["BATCH_COUNT"], environment["BATCH_ALLOCATIONS"]) == ("0", "1", "10.0.0.2")


async def test_a_hook_with_scope_rollout_runs_once_in_all_batches_and_phases_of_a_run(bed: HookBed) -> None:
    bed.add("hook_once", SAY_WHERE, "job_control", scope=HookScope.ROLLOUT)
    one, two, three = allocations(3)
    assert (await bed.run("job_control", targets=[one], batch=BatchPosition(index=0, count=1), phase="new")).ok
    assert (await bed.run("job_control", targets=[two, three], batch=BatchPosition(index=0, count=1), phase="update")).ok
    assert bed.lines() == ["hook_once 10.0.0.1"]


async def test_a_hook_with_scope_rollout_that_reaches_nobody_fails_and_says_so(bed: HookBed) -> None:
    bed.add("hook_once", SAY_WHERE, scope=HookScope.ROLLOUT)

    async def reachable(_: str) -> bool:
        return False

    outcome = await bed.run(targets=2, reachable=reachable)
    assert [result.message for result in outcome.failed] == ["none of the 2 workers that hook_once may run for can be reached"]


async def test_a_build_needs_no_worker_so_its_hooks_with_scope_rollout_run_though_nobody_can_be_reached(bed: HookBed) -> None:
    bed.add("hook_once", SAY_WHERE, "post_build", scope=HookScope.ROLLOUT)

    async def reachable(_: str) -> bool:
        return False

    assert (await bed.run("post_build", targets=2, reachable=reachable)).ok
    assert bed.lines() == ["hook_once 10.0.0.1"]


async def test_is_one_shot_is_true_for_one_allocation_of_all(bed: HookBed) -> None:
    bed.add("hook_shot", "from maand import is_one_shot, allocation_ip; print(allocation_ip(), is_one_shot())")
    one, two, three = allocations(3)
    assert (await bed.run(targets=[two, three, one], batch_size=2)).ok
    assert sorted(bed.lines()) == ["10.0.0.1 False", "10.0.0.2 True", "10.0.0.3 False"]


async def test_a_takeover_repeats_no_recorded_invocation(bed: HookBed) -> None:
    bed.add("hook_a", SAY_WHERE)
    bed.steps.add("api/10.0.0.1/pre_deploy:hook_a")
    assert (await bed.run(targets=2, batch_size=2)).ok
    assert bed.lines() == ["hook_a 10.0.0.2"]
    assert bed.steps == {"api/10.0.0.1/pre_deploy:hook_a", "api/10.0.0.2/pre_deploy:hook_a"}


async def test_what_failed_is_not_recorded(bed: HookBed) -> None:
    bed.add("hook_a", fail_on("10.0.0.1"))
    await bed.run(targets=2, batch_size=2)
    assert bed.steps == {"api/10.0.0.2/pre_deploy:hook_a"}
