"""Day 2 on real workers: commands, job control, health, probes, garbage."""

import json
from pathlib import Path

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from tests.integration.executor.deploy_bed import DeployBed, Ended, deploy_bed
from tests.testbed.sshd import SshTestBed


def output(ended: Ended, worker: str) -> list[str]:
    return [line for event in ended.of_kind("output") if event.worker == worker for line in event.output.lines]


async def command(bed: DeployBed, text: str, *, keep_going: bool = False, at_once: int = 0, limit: int = 0) -> Ended:
    asked = spec.RunCommandSpec(command=text, concurrency=at_once, command_timeout_seconds=limit)
    return await bed.run(spec.RunSpec(run_command=asked, keep_going=keep_going))


async def test_a_command_runs_in_the_bucket_s_directory_and_tells_its_exit_code(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {})
        await bed.build()
        before = await command(bed, 'echo "$BUCKET_ID $WORKER_IP"; pwd', at_once=1)
        assert before.batches("command") == [[bed.hosts[0]], [bed.hosts[1]]]
        assert output(before, bed.hosts[0])[0] == f"{bed.bucket_id} {bed.hosts[0]}"

        await bed.deploy()
        after = await command(bed, "pwd\nexit 7", keep_going=True)
        assert after.state == "failed"
        assert output(after, bed.hosts[1]) == [f"/opt/worker/{bed.bucket_id}"]
        assert [failure.exit_code for failure in after.result.failures] == [7, 7]

        late = await command(bed, "sleep 60", limit=1)
        assert {failure.kind for failure in late.result.failures} == {pb.FAILURE_KIND_TIMED_OUT}


async def test_a_job_is_controlled_by_hand_and_another_bucket_s_worker_is_refused(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {})
        await bed.build()
        await bed.deploy()

        async def control(action: "spec.JobAction.ValueType") -> Ended:
            return await bed.run(spec.RunSpec(job_control=spec.JobControlSpec(job="api", action=action)))

        assert (await control(spec.JOB_ACTION_RESTART)).batches("restart") == [[host] for host in bed.hosts]
        assert (await control(spec.JOB_ACTION_STOP)).state == "succeeded"
        assert [line.split()[0] for line in bed.log_of(bed.workers[0])] == ["start", "restart", "stop"]

        about = bed.on(bed.workers[1], "worker.json")
        about.write_text(about.read_text().replace(bed.bucket_id, "00000000-0000-4000-8000-000000000000"))
        refused = await control(spec.JOB_ACTION_STATUS)
        assert refused.state == "failed"
        assert [failure.worker for failure in refused.result.failures] == [bed.hosts[1]]
        assert [line.split()[0] for line in bed.log_of(bed.workers[1])] == ["start", "restart", "stop"]


async def test_health_is_checked_over_tcp_http_and_ssh(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        checks = [{"type": "tcp", "port": "api_port"}, {"type": "ssh", "command": "test -e /opt/healthy"}]
        wait = {"attempts": 2, "interval_seconds": 0.1}
        manifest = {"resources": {"ports": {"api_port": bed.ssh.port}}, "health_check": {"checks": checks, "wait": wait}}
        bed.write_job("api", manifest)
        await bed.build()

        gated = await bed.deploy()
        assert gated.state == "failed"
        assert {failure.kind for failure in gated.result.failures} == {pb.FAILURE_KIND_UNHEALTHY}
        assert await bed.states("api") == {bed.hosts[0]: "failed"}

        bed.workers[0].path("/opt/healthy").write_text("")
        assert (await bed.deploy()).state == "succeeded"
        checked = await bed.run(spec.RunSpec(health_check=spec.HealthCheckSpec()))
        assert checked.result.message == "1 allocations are healthy"


async def test_a_command_that_hangs_or_fails_on_one_worker_is_told_of_that_one_with_what_it_said(
    tmp_path: Path, test_bed: SshTestBed
) -> None:
    """It runs in the job's directory; the other two stay healthy, at one look and at a gate."""
    async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
        well, hangs, fails = bed.hosts
        text = f"""case $ALLOCATION_IP in
          {hangs}) echo waits for its lock; sleep 60;;
          {fails}) test -e data/ready || {{ echo "$JOB $NEW_VERSION is not ready" >&2; exit 3; }};;
        esac"""
        health_check = {"checks": [{"type": "ssh", "command": text}], "timeout_seconds": 2, "wait": {"attempts": 1}}
        bed.write_job("api", {"version": "2.1.0", "health_check": health_check})
        await bed.build()
        gated = await bed.deploy()
        checked = await bed.run(spec.RunSpec(health_check=spec.HealthCheckSpec()))
        for ended in (gated, checked):
            found = {one.worker: (one.message.rpartition(": ")[2], list(one.last_lines)) for one in ended.result.failures}
            assert found == {
                hangs: ("no answer within 2 s", ["waits for its lock"]),
                fails: ("exit code 3", ["api 2.1.0 is not ready"]),
            }
        assert checked.result.counts == {"healthy": 1, "unhealthy": 2}
        assert well not in {one.worker for one in checked.result.failures}


async def test_workers_are_pinged_and_measured(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()

        async def probe(what: "spec.WorkerProbe.ValueType") -> pb.WorkerReport:
            ended = await bed.run(spec.RunSpec(worker_probe=spec.WorkerProbeSpec(probe=what)))
            return ended.of_kind("worker_report")[0].worker_report

        pinged = await probe(spec.WORKER_PROBE_PING)
        assert pinged.reachable
        assert not pinged.problem
        facts = await probe(spec.WORKER_PROBE_FACTS)
        assert facts.memory_mb > 100
        assert facts.cpu_mhz > 100


async def test_gc_deletes_data_of_what_was_removed_and_forgets_it(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {})
        await bed.build()
        await bed.deploy()
        data = bed.on(bed.workers[1], "jobs/api/data")
        data.mkdir()
        bed.write_workers(bed.hosts[:1])
        await bed.build()

        early = await bed.run(spec.RunSpec(gc=spec.GcSpec()))
        assert early.result.counts["refused"] == 1
        await bed.deploy()
        assert data.exists()

        ended = await bed.run(spec.RunSpec(gc=spec.GcSpec()))
        assert ended.state == "succeeded", ended.result
        assert not data.exists()
        assert list(await bed.allocations("api")) == bed.hosts[:1]


async def test_secrets_used_by_a_template_arrive_private(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        files = {"app.conf.j2": "token = {{ secret('token', 'none') }}\n", "bin.sh": "#!/bin/sh\n"}
        bed.write_job("api", {"certs": {"tls": {"subject": {"common_name": "api"}}}}, files)
        bed.write("jobs/api/bin.sh", "#!/bin/sh\n", 0o755)
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        job = bed.on(bed.workers[0], "jobs/api")
        modes = {str(path.relative_to(job)): path.stat().st_mode & 0o777 for path in job.rglob("*") if path.is_file()}
        assert modes == {
            "Makefile": 0o644,
            "app.conf": 0o600,
            "bin.sh": 0o755,
            "certs/ca.crt": 0o644,
            "certs/tls.crt": 0o644,
            "certs/tls.key": 0o600,
        }
        assert json.loads(bed.on(bed.workers[0], "jobs.json").read_text())[0]["version"] == "0.0.0"
