"""What lands on a worker is what was built: kinds, modes, empty directories, line ends; whatever anybody's umask."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.executor.deploy_bed import DeployBed, deploy_bed
from tests.testbed.sshd import SshTestBed

CERTIFICATE: dict[str, Any] = {"certs": {"tls": {}}}


def modes(bed: DeployBed, top: str = "jobs/api") -> dict[str, str]:
    """Return kind and mode of everything below a directory of the first worker, itself included."""
    directory = bed.on(bed.workers[0], top)
    return {
        str(path.relative_to(directory)): f"{path.lstat().st_mode:o}"
        for path in (directory, *directory.rglob("*"))
        if "data" not in path.relative_to(directory).parts
    }


@pytest.fixture(params=[0o077, 0o000], ids=["private", "open"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The umask of whoever started the services."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


async def test_trees_land_with_kinds_modes_and_empty_directories(tmp_path: Path, test_bed: SshTestBed, umask: int) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", CERTIFICATE, {"conf/a.conf": "a", "priv/key": "k", "win.txt.j2": "a\r\nb {{ job }}\r\n"})
        job = bed.directory / "workspace/jobs/api"
        for name, mode in (("", 0o755), ("conf", 0o755), ("priv", 0o700), ("spool", 0o755), ("drop", 0o730)):
            (job / name).mkdir(exist_ok=True)
            (job / name).chmod(mode)
        (job / "current").symlink_to("conf")
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        found = modes(bed)
        assert found == {
            ".": "40755",
            "Makefile": "100644",
            "certs": "40755",
            "certs/ca.crt": "100644",
            "certs/tls.crt": "100644",
            "certs/tls.key": "100600",
            "conf": "40755",
            "conf/a.conf": "100644",
            "current": "120777",
            "drop": "40730",
            "priv": "40700",
            "priv/key": "100644",
            "spool": "40755",
            "win.txt": found["win.txt"],
        }
        assert bed.on(bed.workers[0], "jobs/api/win.txt").read_bytes() == b"a\r\nb api\r\n"
        assert set((await bed.deploy()).actions("api").values()) == {"skip"}

        (job / "spool").rmdir()
        (job / "priv").chmod(0o750)
        await bed.build()
        changed = await bed.deploy()
        (planned,) = (event.job_planned for event in changed.of_kind("job_planned"))
        assert list(planned.allocations[0].changed_paths) == ["priv", "spool"]
        assert {path: mode for path, mode in modes(bed).items() if path in ("priv", "spool")} == {"priv": "40750"}


async def test_a_file_that_becomes_a_link_to_what_it_held_is_rolled_out(tmp_path: Path, test_bed: SshTestBed) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        bed.write_job("api", {}, {"releases/x": "x"})
        bed.write("jobs/api/cur", "releases", mode=0o777)
        await bed.build()
        await bed.deploy()
        link = bed.directory / "workspace/jobs/api/cur"
        link.unlink()
        link.symlink_to("releases")
        await bed.build()
        assert set((await bed.deploy()).actions("api").values()) == {"restart"}
        assert bed.on(bed.workers[0], "jobs/api/cur").readlink() == Path("releases")
        assert set((await bed.deploy()).actions("api").values()) == {"skip"}


@pytest.mark.parametrize("login", [0o077, 0o000], ids=["private", "open"])
async def test_what_maand_makes_on_a_worker_has_no_login_s_umask(tmp_path: Path, test_bed: SshTestBed, login: int) -> None:
    async with deploy_bed(tmp_path, test_bed, workers=1) as bed:
        (worker,) = bed.workers
        worker.path("/home/agent/.bashrc").write_text(f"umask {login:03o}\n")  # sshd makes bash read it for every command
        bed.write_job("api", {})
        await bed.build()
        assert (await bed.deploy()).state == "succeeded"
        assert {name: mode for name, mode in modes(bed, ".").items() if not name.startswith("jobs/api/")} == {
            ".": "40755",
            "jobs": "40755",
            "jobs/api": "40755",
            "fence": "100644",
            "fence.gate": "100644",
            "worker.json": "100644",
            "jobs.json": "100644",
        }
