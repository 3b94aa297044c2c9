"""What a hook finds around it: its environment, its workspace, the SDK."""

import os
import sys
from pathlib import Path

from maand_executor.rules.facts import RolloutOrder
from maand_executor.rules.hook_environment import lifecycle_variables
from maand_executor.rules.waves import BatchPosition
from tests.integration.executor.hook_bed import RUN, SHOW_ENVIRONMENT, HookBed, allocations


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
            order=RolloutOrder(workers=("10.0.0.3", "10.0.0.2"), set_by_hook=True),
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
    bed.add("hook_sdk", "import maand; print(maand.__cached__, list(open(maand.__cached__, 'rb').read(8)[4:]))")
    await bed.run()
    assert bed.lines()[0].endswith("[1, 0, 0, 0]"), "valid by hash, unchecked: what Python writes itself has zeros there"
    assert f"maand.{sys.implementation.cache_tag}.pyc" in bed.lines()[0]
