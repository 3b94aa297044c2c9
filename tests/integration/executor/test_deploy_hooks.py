"""Deploys with real hooks: what they store is rendered at once, the order they set is kept, their failures stop a job."""

from pathlib import Path

from tests.integration.executor.deploy_bed import deploy_bed
from tests.testbed.sshd import SshTestBed

LEADER_LAST = """
from maand import allocation_ip, is_one_shot, put_rollout_order, put_job_secret, rollout_order
if is_one_shot():
    hosts = rollout_order()
    put_rollout_order(hosts[1:] + hosts[:1]).raise_for_status()
    put_job_secret("token", "s3cr3t-token", if_absent=True)
"""
FAILS_ON_THE_SECOND = """
import os, sys
print("looking at", os.environ["ALLOCATION_IP"], os.environ["BATCH_INDEX"], os.environ["BATCH_COUNT"], os.environ["DEPLOY_PHASE"])
sys.exit(3 if os.environ["ALLOCATION_INDEX"] == "1" else 0)
"""


async def test_a_hook_sets_the_order_and_a_secret_that_the_same_deploy_uses(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
        await bed.start_gateway()
        manifest = {"max_concurrent_starts": 1, "hooks": {"hook_order": {"executed_on": ["pre_deploy"]}}}
        files = {"_hooks/hook_order.py": LEADER_LAST, "app.conf.j2": "token = {{ secret('token') }}\n"}
        bed.write_job("api", manifest, files)
        await bed.build()

        ended = await bed.deploy()
        assert ended.state == "succeeded", ended.result
        leader, *others = bed.hosts
        assert ended.batches("start") == [[host] for host in (*others, leader)]
        rendered = bed.on(bed.workers[0], "jobs/api/app.conf")
        assert rendered.read_text() == "token = s3cr3t-token\n"
        assert rendered.stat().st_mode & 0o777 == 0o600
        assert "s3cr3t-token" not in str(ended.events)

        assert (await bed.deploy()).actions("api") == dict.fromkeys(bed.hosts, "skip")


async def test_a_hook_that_fails_in_the_middle_batch_keeps_it_from_being_promoted(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
        hooks = {"hook_active": {"executed_on": ["after_allocation_started"]}}
        bed.write_job("api", {}, {"app.conf": "v1"})
        await bed.build()
        await bed.deploy()
        bed.write_job("api", {"hooks": hooks}, {"_hooks/hook_active.py": FAILS_ON_THE_SECOND, "app.conf": "v2"})
        await bed.build()

        ended = await bed.deploy()
        assert ended.state == "failed"
        (failure,) = ended.result.failures
        assert (failure.worker, failure.step, failure.exit_code) == (bed.hosts[1], "hook_active", 3)
        assert list(failure.last_lines) == [f"looking at {bed.hosts[1]} 1 3 update"]
        assert list((await bed.states("api")).values()) == ["promoted", "failed", "pending"]

        bed.write_job("api", {"hooks": hooks}, {"_hooks/hook_active.py": "", "app.conf": "v2"})
        await bed.build()
        mended = await bed.deploy()
        assert mended.state == "succeeded", mended.result
        assert mended.actions("api") == dict(zip(bed.hosts, ("skip", "restart", "restart"), strict=True))


async def test_post_deploy_that_fails_is_owed_and_repeated(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        hooks = {"hook_after": {"executed_on": ["post_deploy"]}}
        bed.write_job("api", {"hooks": hooks}, {"_hooks/hook_after.py": "raise SystemExit(1)"})
        await bed.build()
        assert (await bed.deploy()).state == "failed"
        assert set((await bed.states("api")).values()) == {"promoted"}

        bed.write_job("api", {"hooks": hooks}, {"_hooks/hook_after.py": "print('done')"})
        await bed.build()
        mended = await bed.deploy()
        assert mended.state == "succeeded"
        assert mended.batches("post_deploy") == [bed.hosts]
        assert len(bed.log_of(bed.workers[0])) == 1
        assert (await bed.deploy()).batches("post_deploy") == []


async def test_a_job_control_hook_owns_the_lifecycle(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        hooks = {"hook_control": {"executed_on": ["job_control"]}}
        say = "import os; print('new', os.environ['NEW_ALLOCATIONS'], 'updated', os.environ['UPDATED_ALLOCATIONS'])"
        bed.write_job("api", {"hooks": hooks}, {"_hooks/hook_control.py": say})
        await bed.build()
        ended = await bed.deploy()
        assert ended.state == "succeeded", ended.result
        lines = {line for event in ended.of_kind("output") for line in event.output.lines}
        assert lines == {f"new {','.join(bed.hosts)} updated "}
        assert bed.log_of(bed.workers[0]) == []
