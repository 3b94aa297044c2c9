"""Rolling upgrades, failures and their mending, on a real catalog and real OpenSSH workers."""

import asyncio
import socket
from pathlib import Path

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2
from tests.integration.executor.deploy_bed import deploy_bed
from tests.testbed.sshd import SshTestBed


async def test_an_upgrade_rolls_through_batches_in_order(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
        bed.write_job("api", {"version": "1.0.0", "max_concurrent_upgrades": 2}, {"app.conf": "v1"})
        await bed.build()
        await bed.deploy()
        bed.write_job("api", {"version": "1.1.0", "max_concurrent_upgrades": 2}, {"app.conf": "v2"})
        await bed.build()
        assert set((await bed.states("api")).values()) == {"pending"}

        ended = await bed.deploy()
        assert ended.state == "succeeded", ended.result
        assert ended.batches("update") == [bed.hosts[:2], bed.hosts[2:]]
        assert [list(event.promoted.workers) for event in ended.of_kind("promoted")] == [bed.hosts[:2], bed.hosts[2:]]
        for index, worker in enumerate(bed.workers):
            assert bed.log_of(worker)[-1] == f"restart api 1.0.0 1.1.0 {index} {worker.host}"
            assert bed.on(worker, "jobs/api/app.conf").read_text() == "v2"


async def test_a_failure_in_the_middle_batch_is_mended_by_the_next_deploy(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=3) as bed:
        bed.write_job("api", {}, {"app.conf": "v1"})
        await bed.build()
        await bed.deploy()
        data = bed.on(bed.workers[0], "jobs/api/data/kept")
        data.parent.mkdir()
        data.write_text("precious")
        bed.workers[1].stand_in("make", "#!/bin/sh\necho broken >&2\nexit 4\n")
        bed.write_job("api", {}, {"app.conf": "v2"})
        await bed.build()

        failed = await bed.deploy()
        assert failed.state == "failed"
        (failure,) = failed.result.failures
        assert (failure.worker, failure.step, failure.exit_code) == (bed.hosts[1], "restart", 4)
        assert list(failure.last_lines) == ["broken"]
        assert list((await bed.states("api")).values()) == ["promoted", "failed", "pending"]

        bed.workers[1].stand_in("make", '#!/bin/sh\nexec /usr/bin/make "$@"\n')
        mended = await bed.deploy()
        assert mended.state == "succeeded", mended.result
        assert mended.actions("api") == dict(zip(bed.hosts, ("skip", "restart", "restart"), strict=True))
        assert [len(bed.log_of(worker)) for worker in bed.workers] == [2, 2, 2]
        assert data.read_text() == "precious"


async def test_of_a_batch_with_failures_of_every_kind_the_healthy_one_is_promoted(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=4) as bed:
        await bed.start_gateway()
        probe = {"type": "ssh", "command": "! test -e /opt/worker/sick"}
        manifest = {
            "max_concurrent_upgrades": 4,
            "hooks": {"hook_active": {"executed_on": ["after_allocation_started"]}},
            "health_check": {"checks": [probe], "wait": {"attempts": 2, "interval_seconds": 1}},
        }
        bed.write_job("api", manifest, {"app.conf": "v1", "_hooks/hook_active.py": ""})
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        well, no_make, no_hook, sick = bed.workers
        no_make.stand_in("make", "#!/bin/sh\nexit 4\n")
        sick.path("/opt/worker/sick").touch()
        fails = f"import os\nraise SystemExit(os.environ['ALLOCATION_IP'] == '{no_hook.host}')\n"
        bed.write_job("api", manifest, {"app.conf": "v2", "_hooks/hook_active.py": fails})
        await bed.build()

        failed = await bed.deploy()
        assert failed.state == "failed"
        assert {failure.worker: failure.step for failure in failed.result.failures} == {
            no_make.host: "restart",
            no_hook.host: "hook_active",
            sick.host: "health",
        }
        assert list((await bed.states("api")).values()) == ["promoted", "failed", "failed", "failed"]
        assert failed.result.counts == {"promoted": 1, "failed": 3}

        no_make.stand_in("make", '#!/bin/sh\nexec /usr/bin/make "$@"\n')
        sick.path("/opt/worker/sick").unlink()
        bed.write_job("api", manifest, {"app.conf": "v2", "_hooks/hook_active.py": ""})
        await bed.build()
        mended = await bed.deploy()
        assert mended.state == "succeeded", mended.result
        assert mended.actions("api") == dict(zip(bed.hosts, ("skip", "restart", "restart", "restart"), strict=True))
        assert len(bed.log_of(well)) == 2


async def test_a_worker_that_cannot_be_reached_stops_everything_or_is_left_out(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {})
        await bed.build()
        bed.workers[1].stop()

        refused = await bed.deploy()
        assert refused.state == "failed"
        assert [failure.kind for failure in refused.result.failures] == [pb.FAILURE_KIND_UNREACHABLE]
        assert bed.log_of(bed.workers[0]) == []

        partial = await bed.deploy(skip_unreachable=True)
        assert partial.state == "succeeded"
        assert list(partial.result.unreachable_workers) == [bed.hosts[1]]
        assert await bed.states("api") == {bed.hosts[0]: "promoted", bed.hosts[1]: "planned"}

        bed.workers[1].start()
        assert (await bed.deploy()).state == "succeeded"
        assert set((await bed.states("api")).values()) == {"promoted"}


async def test_disable_enable_and_remove_stop_once_and_keep_data(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=2) as bed:
        bed.write_job("api", {}, {"app.conf": "v1"})
        await bed.build()
        await bed.deploy()
        first, second = bed.workers
        bed.on(second, "jobs/api/data").mkdir()

        bed.write("disabled.json", f'{{"jobs": {{"api": {{"allocations": ["{second.host}"]}}}}}}')
        await bed.build()
        stopped = await bed.deploy()
        assert stopped.state == "succeeded", stopped.result
        assert stopped.actions("api") == {first.host: "skip", second.host: "stop"}
        assert (await bed.states("api"))[second.host] == "stopped"
        assert (await bed.deploy()).result.message == "nothing to do, every allocation is as it should be"
        assert [line.split()[0] for line in bed.log_of(second)] == ["start", "stop"]

        bed.remove("disabled.json")
        await bed.build()
        assert (await bed.deploy()).actions("api") == {first.host: "skip", second.host: "start"}

        bed.write_workers([first.host])
        await bed.build()
        removed = await bed.deploy()
        assert removed.state == "succeeded", removed.result
        assert removed.actions("api") == {first.host: "skip", second.host: "remove"}
        assert (await bed.states("api"))[second.host] == "removed"
        assert [line.split()[0] for line in bed.log_of(second)] == ["start", "stop", "start", "stop"]
        assert [path.name for path in bed.on(second, "jobs/api").iterdir()] == ["data"]


async def test_a_dry_run_shows_reasons_and_diffs_and_touches_nothing(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {}, {"app.conf": "colour = red\n", "site.j2": "index {{ allocation_index }}\n"})
        await bed.build()
        await bed.deploy()
        bed.write_job("api", {}, {"app.conf": "colour = blue\n", "site.j2": "number {{ allocation_index }}\n"})
        await bed.build()
        before = bed.log_of(bed.workers[0])

        shown = await bed.deploy(dry_run=True)
        assert shown.state == "succeeded", shown.result
        assert shown.result.changes
        (planned,) = shown.of_kind("job_planned")
        (allocation,) = planned.job_planned.allocations
        assert list(allocation.changed_paths) == ["app.conf", "site"]
        assert "-colour = red\n+colour = blue" in allocation.diff
        assert "-index 0\n+number 0" in allocation.diff
        assert bed.log_of(bed.workers[0]) == before
        assert bed.on(bed.workers[0], "jobs/api/app.conf").read_text() == "colour = red\n"


LISTENS = """\
start restart:
\t@mkdir -p data; [ ! -f data/pid ] || $(MAKE) -s stop
\t@setsid -f sh -c 'echo $$$$ > data/pid; exec python3 -m http.server --bind $(ALLOCATION_IP) `cat port`' >log 2>&1 </dev/null
stop:
\t@kill `cat data/pid`; while kill -0 `cat data/pid` 2>/dev/null; do sleep 0.05; done; rm data/pid
"""


async def test_jobs_that_swap_their_ports_are_refused_and_get_there_in_two_steps(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        (worker,) = bed.workers
        with socket.socket() as first, socket.socket() as second:
            for one in (first, second):
                one.bind((worker.host, 0))
            ports = [str(one.getsockname()[1]) for one in (first, second)]

        def write(job: str, port: str) -> None:
            probe = {"checks": [{"type": "tcp", "port": f"{job}_port"}]}
            manifest = {"resources": {"ports": {f"{job}_port": int(port)}}, "health_check": probe}
            bed.write_job(job, manifest, {"Makefile": LISTENS, "port": port})

        async def listening(job: str) -> str:
            """The port that the job's own process was started with, and lives."""
            pid = bed.on(worker, f"jobs/{job}/data/pid").read_text().strip()
            return (await asyncio.to_thread(worker.run, f"tr '\\0' ' ' </proc/{pid}/cmdline")).split()[-1]

        for job, port in zip(("aa", "bb"), ports, strict=True):
            write(job, port)
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        for job, port in zip(("bb", "aa"), ports, strict=True):
            write(job, port)
        snapshot = await bed.upload()
        refused = await bed.run(run_spec_pb2.RunSpec(deploy=run_spec_pb2.DeploySpec(build_snapshot_id=snapshot)))
        assert refused.state == "failed"
        assert [one.code for one in refused.result.problems] == ["port_held", "port_held"]
        assert [await listening("aa"), await listening("bb")] == ports

        bed.write("disabled.json", '{"jobs": {"bb": {}}}')
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        bed.remove("disabled.json")
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        assert [await listening("bb"), await listening("aa")] == ports


async def test_waves_block_what_demands_a_failed_job(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        schema = {"hook_schema": {"executed_on": ["cli"]}}
        migrate = {"hook_migrate": {"executed_on": ["cli"], "demands": {"job": "database", "hook": "hook_schema"}}}
        bed.write_job("database", {"version": "1.0.0", "hooks": schema}, {"_hooks/hook_schema.py": "", "fail-start": ""})
        bed.write_job("api", {"version": "1.0.0", "hooks": migrate}, {"_hooks/hook_migrate.py": ""})
        await bed.build()
        ended = await bed.deploy()
        assert ended.state == "failed"
        finished = {event.job: event.job_finished.outcome for event in ended.of_kind("job_finished")}
        assert finished == {"database": pb.JOB_OUTCOME_FAILED, "api": pb.JOB_OUTCOME_BLOCKED}
        assert await bed.states("api") == {bed.hosts[0]: "planned"}
