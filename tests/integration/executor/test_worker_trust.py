"""`worker trust` pins just what somebody saw and confirmed; a host with several keys is no changed host."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from maand_contracts.catalog.v1 import run_event_pb2 as pb
from maand_contracts.catalog.v1 import run_spec_pb2 as spec
from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed


async def look(bed: DeployBed) -> pb.WorkerReport:
    """Look at the first worker's host keys."""
    ended = await bed.run(spec.RunSpec(worker_probe=spec.WorkerProbeSpec(probe=spec.WORKER_PROBE_HOST_KEYS)))
    return ended.of_kind("worker_report")[0].worker_report


async def pin(
    bed: DeployBed, confirmed: Mapping[str, Sequence[str]], *, force: bool = False
) -> tuple[pb.WorkerReport, Sequence[pb.Failure]]:
    """Pin what was confirmed, and return what is told of the first worker."""
    asked = spec.WorkerProbeSpec(probe=spec.WORKER_PROBE_HOST_KEYS, pin=True, replace_changed=force)
    for worker, fingerprints in confirmed.items():
        asked.confirmed.add(worker=worker, fingerprints=fingerprints)
    ended = await bed.run(spec.RunSpec(worker_probe=asked))
    return ended.of_kind("worker_report")[0].worker_report, ended.result.failures


def forget_pins(bed: DeployBed) -> Path:
    """Leave no host key pinned; return the file."""
    known_hosts = bed.executor_settings.secrets_dir / "known_hosts"
    known_hosts.write_text("")
    return known_hosts


async def test_what_was_shown_is_pinned_and_pinned_again_is_no_change(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()
        known_hosts = forget_pins(bed)

        seen = await look(bed)
        assert (list(seen.host_key_states), seen.pinned) == ([pb.HOST_KEY_STATE_NEW], False)
        told, failures = await pin(bed, {bed.hosts[0]: seen.fingerprints})

        assert (list(told.host_key_states), told.pinned, list(failures)) == ([pb.HOST_KEY_STATE_PINNED], True, [])
        assert known_hosts.read_text() == bed.workers[0].known_hosts_lines
        assert (await pin(bed, {}))[1] == []


async def test_a_key_that_nobody_saw_is_not_pinned(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()
        known_hosts = forget_pins(bed)
        seen = await look(bed)
        bed.workers[0].change_host_key()

        for force in (False, True):
            told, (failure,) = await pin(bed, {bed.hosts[0]: seen.fingerprints}, force=force)

            assert not told.pinned
            assert known_hosts.read_text() == ""
            assert failure.kind == pb.FAILURE_KIND_AUTHENTICATION
            assert seen.fingerprints[0] in failure.message
            assert told.fingerprints[0] in failure.message
            assert "nothing of it was pinned" in failure.help


async def test_a_pin_without_a_confirmation_pins_nothing(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()
        known_hosts = forget_pins(bed)

        told, (failure,) = await pin(bed, {})

        assert (told.pinned, known_hosts.read_text()) == (False, "")
        assert failure.kind == pb.FAILURE_KIND_AUTHENTICATION
        assert f"maand worker trust -w {bed.hosts[0]}" in failure.help


async def test_a_changed_key_is_replaced_by_the_confirmed_one_only_on_request(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()
        bed.workers[0].change_host_key()

        seen = await look(bed)
        assert list(seen.host_key_states) == [pb.HOST_KEY_STATE_CHANGED]
        told, (failure,) = await pin(bed, {bed.hosts[0]: seen.fingerprints})
        assert not told.pinned
        assert failure.kind == pb.FAILURE_KIND_AUTHENTICATION
        assert f"maand worker trust -w {bed.hosts[0]} --force" in failure.help

        told, failures = await pin(bed, {bed.hosts[0]: seen.fingerprints}, force=True)
        assert (told.pinned, list(failures)) == (True, [])
        assert (bed.executor_settings.secrets_dir / "known_hosts").read_text() == bed.workers[0].known_hosts_lines


async def test_one_more_key_of_a_known_host_is_new_and_needs_no_force(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {})
        await bed.build()
        bed.workers[0].add_host_key("rsa")

        seen = await look(bed)
        assert list(seen.host_key_states) == [pb.HOST_KEY_STATE_PINNED, pb.HOST_KEY_STATE_NEW]
        assert not seen.problem

        told, failures = await pin(bed, {bed.hosts[0]: seen.fingerprints})
        assert (told.pinned, list(failures)) == (True, [])
        assert [line.split()[1] for line in (bed.executor_settings.secrets_dir / "known_hosts").read_text().splitlines()] == [
            "ssh-ed25519",
            "ssh-rsa",
        ]
