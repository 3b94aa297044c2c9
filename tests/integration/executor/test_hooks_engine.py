"""The hook engine with real processes: order, batches, environment, life and death of invocations."""

import asyncio
import os
import resource
import signal
import stat
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_executor.cancel import CancelLevel
from maand_executor.facts import HookScope, InvocationOutcome, RolloutOrder
from maand_executor.hooks.batches import BatchPosition
from maand_executor.hooks.environment import lifecycle_variables
from maand_wire.errors import RemoteError
from tests.integration.executor.hook_bed import RUN, SHOW_ENVIRONMENT, HookBed, allocations, is_alive, until
from tests.unit.executor.fake_catalog import STALE

OK, FAILED, TIMED_OUT = InvocationOutcome.SUCCEEDED, InvocationOutcome.FAILED, InvocationOutcome.TIMED_OUT
CANCELLED, INTERRUPTED = InvocationOutcome.CANCELLED, InvocationOutcome.INTERRUPTED
SAY_WHERE = "import os; print(os.environ['HOOK'], os.environ['ALLOCATION_IP'])"
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[HookBed]:
    bed = HookBed(state_dir=tmp_path / "state")
    yield bed
    await bed.close()
    assert bed.left_behind() == []


def fail_on(*hosts: str, code: int = 3) -> str:
    return (
        f"import os, sys; print('saw', os.environ['ALLOCATION_IP']); sys.exit({code} * (os.environ['ALLOCATION_IP'] in {hosts}))"
    )


# ---------------------------------------------------------------------------------------------------------------- order


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


async def test_no_more_processes_than_the_limit_run_at_once(tmp_path: Path) -> None:
    bed = HookBed(state_dir=tmp_path / "state", process_limit=2)
    bed.add(
        "hook_count",
        f"""
        import os, pathlib, time
        place = pathlib.Path({str(tmp_path)!r})
        mine = place / ("here-" + os.environ["ALLOCATION_ID"])
        mine.touch()
        time.sleep(0.1)
        print(len(list(place.glob("here-*"))))
        mine.unlink()
        """,
    )
    assert (await bed.run(targets=6, batch_size=6)).ok
    assert max(map(int, bed.lines())) <= 2
    await bed.close()


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


# ------------------------------------------------------------------------------------------------------------- one-shot


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


# ------------------------------------------------------------------------------------------------------- recorded steps


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


# ---------------------------------------------------------------------------------------------------------- environment


async def test_the_environment_of_the_process_is_clean_and_complete(tmp_path: Path) -> None:
    host = {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8", "TZ": "UTC", "SECRET_OF_HOST": "x"}
    bed = HookBed(state_dir=tmp_path / "state", host=host)
    bed.add("hook_env", SHOW_ENVIRONMENT, "job_control")
    assert (
        await bed.run(
            "job_control",
            targets=allocations(3)[1:],
            batch=BatchPosition(index=2, count=3),
            phase="update",
            order=RolloutOrder(hosts=("10.0.0.3", "10.0.0.2"), set_by_hook=True),
            lifecycle=lifecycle_variables(new=(), updated=("10.0.0.2", "10.0.0.3")),
            hook_env={"CLOUD_REGION": "eu-1", "LD_PRELOAD": "not listed"},
        )
    ).ok
    first = min(bed.environments(), key=lambda one: one["ALLOCATION_IP"])
    token = first.pop("HOOK_API_TOKEN")
    assert token in bed.catalog.tokens.values()
    assert first.pop("TRACEPARENT").startswith("00-0197c0deaaaa70008000000000000001-")
    assert first.pop("JOB_PATH").endswith("/jobs/api")
    assert first.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"  # Python sets it for itself where LANG is C
    assert first == {
        "PATH": os.environ["PATH"],
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": "/tmp",
        "CLOUD_REGION": "eu-1",
        "ALLOCATION_ID": "id-1",
        "ALLOCATION_IP": "10.0.0.2",
        "ALLOCATION_INDEX": "1",
        "JOB": "api",
        "EVENT": "job_control",
        "HOOK": "hook_env",
        "DISABLED": "0",
        "CURRENT_VERSION": "0.0.0",
        "NEW_VERSION": "1.0.0",
        "BATCH_INDEX": "2",
        "BATCH_COUNT": "3",
        "BATCH_ALLOCATIONS": "10.0.0.2,10.0.0.3",
        "ROLLOUT_ORDER": "10.0.0.3,10.0.0.2",
        "ROLLOUT_ORDER_SOURCE": "hook",
        "DEPLOY_PHASE": "update",
        "NEW_ALLOCATIONS": "",
        "UPDATED_ALLOCATIONS": "10.0.0.2,10.0.0.3",
        "HOOK_API_HOST": "127.0.0.1",
        "HOOK_API_PORT": "8081",
        "RUN_ID": RUN.run_id,
        "BUCKET_ID": RUN.bucket_id,
    }
    await bed.close()


async def test_every_invocation_has_a_token_of_its_own(bed: HookBed) -> None:
    bed.add("hook_env", SHOW_ENVIRONMENT)
    await bed.run(targets=3, batch_size=3)
    assert {one["HOOK_API_TOKEN"] for one in bed.environments()} == set(bed.catalog.tokens.values())


# ------------------------------------------------------------------------------------------------------------ workspace


async def test_the_directory_is_private_holds_the_job_as_built_and_is_gone_afterwards(bed: HookBed) -> None:
    bed.files |= {"conf/app.toml": "a = 1\n", "_hooks/helper.py": "WORD = 'helped'\n"}
    bed.catalog.certificate_names = ("tls",)
    bed.add(
        "hook_look",
        """
        import helper, maand, os, stat
        from pathlib import Path
        top = Path("..")
        print(Path.cwd().name, helper.WORD, Path(maand.__file__).parent == Path.cwd())
        print((top / "conf/app.toml").read_text().strip(), Path("maand.ts").exists(), (top / "Makefile").exists())
        print((top / "certs/tls.crt").read_text(), (top / "certs/tls.key").read_text(), (top / "certs/ca.crt").read_text())
        print(oct(stat.S_IMODE((top / "certs/tls.key").stat().st_mode)), oct(stat.S_IMODE(top.stat().st_mode)))
        """,
    )
    assert (await bed.run()).ok
    assert bed.lines() == ["_hooks helped True", "a = 1 True True", "crt tls key tls id-0 the CA", "0o600 0o700"]


async def test_content_is_linked_and_not_copied(bed: HookBed) -> None:
    bed.add("hook_link", "import os; print(os.stat('hook_link.py').st_ino, os.stat('maand.py').st_ino)")
    await bed.run(targets=2, batch_size=2)
    assert len(set(bed.lines())) == 1
    assert bed.catalog.blob_reads == 1


async def test_a_directory_is_kept_when_asked_and_the_run_says_where(bed: HookBed) -> None:
    bed.add("hook_keep", "open('written', 'w').write('by the hook')")
    await bed.run(keep_workdir=True)
    (notice,) = [event.notice.text for event in bed.catalog.events if event.WhichOneof("event") == "notice"]
    kept = Path(notice.partition(": ")[2])
    assert kept.parent == bed.state_dir / "kept"
    assert (kept / "_hooks/written").read_text() == "by the hook"


async def test_a_directory_goes_whatever_the_hook_did_to_it(bed: HookBed) -> None:
    bed.add(
        "hook_mess", "import os; os.makedirs('a/b/c'); open('a/b/c/file', 'w').close(); os.chmod('a/b', 0); os.chmod('..', 0o500)"
    )
    assert (await bed.run()).ok


async def test_directories_of_a_killed_executor_go_at_the_next_start(tmp_path: Path) -> None:
    leftover = tmp_path / "state/invocations/old/_hooks"
    leftover.mkdir(parents=True)
    bed = HookBed(state_dir=tmp_path / "state")
    assert not leftover.exists()
    await bed.close()


async def test_the_sdk_is_loaded_from_bytecode(bed: HookBed) -> None:
    bed.add("hook_sdk", "import maand, os; print(maand.__cached__, os.stat(maand.__cached__).st_nlink > 1)")
    await bed.run()
    assert bed.lines() == [f"{bed.lines()[0].split()[0]} True"]
    assert f"maand.{sys.implementation.cache_tag}.pyc" in bed.lines()[0]


# ------------------------------------------------------------------------------------------------------- life and death


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


async def test_a_lost_lease_kills_without_grace(bed: HookBed) -> None:
    bed.add("hook_stubborn", f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEP}")
    task = asyncio.create_task(bed.run())
    await until(lambda: len(bed.lines()) == 1)
    bed.engine.kill_run(RUN.run_id)
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
    assert [worker.host for worker in live.workers] == ["10.0.0.1", "10.0.0.2"]
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

    monkeypatch.setattr("maand_executor.content.ContentStore.materialise", refuse)
    (result,) = (await bed.run()).results
    assert (result.exit_code, result.message) == (126, "could not be started: [Errno 28] No space left on device")
    assert set(bed.catalog.ended.values()) == {FAILED}


async def test_two_hundred_hooks_of_a_batch_all_end_well(bed: HookBed) -> None:
    bed.add("hook_many", "import os; print(os.environ['ALLOCATION_ID'])")
    outcome = await bed.run(targets=200, batch_size=200)
    assert outcome.ok
    assert sorted(bed.lines()) == sorted(f"id-{index}" for index in range(200))


# --------------------------------------------------------------------------------------------------------------- output


async def test_lines_are_seen_while_the_hook_runs(bed: HookBed) -> None:
    bed.add("hook_live", "import time; print('began'); time.sleep(60)")
    task = asyncio.create_task(bed.run())
    await until(lambda: bed.lines() == ["began"])
    bed.cancel.raise_to(CancelLevel.NOW)
    await task


async def test_a_huge_line_is_split_cut_and_does_not_stop_the_hook(bed: HookBed) -> None:
    bed.add("hook_line", "import sys; sys.stdout.write('x' * 50_000_000); sys.stdout.flush(); print('end', file=sys.stderr)")
    assert (await bed.run()).ok
    lines = bed.lines()
    assert max(map(len, lines)) <= 64 * 1024
    assert sum(map(len, lines)) < 11 * 1024 * 1024
    assert any("output cut after 10 MiB" in line for line in lines)


async def test_two_hundred_megabytes_through_the_journal_keep_memory_bounded_and_the_end_known(bed: HookBed) -> None:
    bed.add(
        "hook_flood",
        """
        import sys
        block = b"x" * 99 + b"\\n"
        for _ in range(2_000):
            sys.stdout.buffer.write(block * 1_000)
        sys.exit("gave up after 200 MB")
        """,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (result,) = (await bed.run()).results
    assert result.last_lines[-1] == "gave up after 200 MB"
    assert "output cut after 10 MiB" in bed.lines()[-1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


async def test_binary_output_is_shown_as_far_as_it_is_text(bed: HookBed) -> None:
    bed.add("hook_binary", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000 + b'\\nplain\\n')")
    assert (await bed.run()).ok
    assert bed.lines()[-1] == "plain"


async def test_a_secret_is_masked_plain_encoded_and_split_by_flushes(bed: HookBed) -> None:
    bed.catalog.secrets = ["p@ss word/42"]
    bed.add(
        "hook_leak",
        """
        import base64, json, sys, time
        from urllib.parse import quote
        secret = "p@ss word/42"
        print(secret, base64.b64encode(secret.encode()).decode(), quote(secret, safe=""), json.dumps({"a": secret}))
        for part in ("p@ss ", "wor", "d/42\\n"):
            sys.stdout.write(part)
            sys.stdout.flush()
            time.sleep(0.1)
        sys.exit(secret)
        """,
    )
    (result,) = (await bed.run()).results
    assert bed.lines() == ['*** *** *** {"a": "***"}', "***", "***"]
    assert result.last_lines == ('*** *** *** {"a": "***"}', "***", "***")


async def test_modes_of_scripts_do_not_matter(bed: HookBed) -> None:
    bed.add("hook_mode", "import os, stat; print(oct(stat.S_IMODE(os.stat('hook_mode.py').st_mode)))")
    await bed.run()
    assert bed.lines() == [oct(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)]
