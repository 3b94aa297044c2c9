"""What a build takes in, with the real command line and services: no edit is missed, nothing vanishes without a word."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Maand

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def jobs(maand: Maand) -> Path:
    """Build a bucket with two jobs and return where they are."""
    for name in ("api", "db"):
        job = maand.bucket / "workspace/jobs" / name
        job.mkdir(parents=True)
        (job / "manifest.json").write_text("{}")
        (job / "Makefile").write_text("start stop restart:\n\ttrue\n")
        (job / "app.conf").write_text("version=1.0.1\n")
        os.utime(job / "app.conf", (1, 1))
    maand.must("build")
    return maand.bucket / "workspace/jobs"


def built(maand: Maand) -> list[str]:
    return [row["name"] for row in json.loads(maand.must("cat", "jobs", "-o", "json").out)]


def refused(maand: Maand, *words: str) -> None:
    """See that a build fails with these words and leaves the catalog as it is."""
    said = maand("build")
    assert said.code == 3, said
    for word in words:
        assert word in said.err
    assert built(maand) == ["api", "db"]


def test_a_file_replaced_by_one_of_equal_size_and_time_is_built(maand: Maand, jobs: Path) -> None:
    other = maand.bucket / "other"
    other.write_text("version=1.0.2\n")
    os.utime(other, (1, 1))
    subprocess.run(["cp", "-p", str(other), str(jobs / "api/app.conf")], check=True)
    assert "nothing changed" not in maand.must("build").err
    assert "nothing changed" in maand.must("build").err


@pytest.mark.parametrize("stand_in", ["link", "dangling link", "file"])
def test_what_stands_in_the_place_of_jobs_removes_no_job(stand_in: str, maand: Maand, jobs: Path) -> None:
    jobs.rename(maand.bucket / "real")
    if stand_in == "file":
        jobs.write_text("../real")
    else:
        jobs.symlink_to("../real" if stand_in == "link" else "../nowhere")
    (maand.bucket / "workspace/workers.json").write_text("[")
    refused(maand, '"jobs" is a', "it must be a directory", "  workspace/jobs\n", "workspace/workers.json:1")


@pytest.mark.parametrize("stand_in", ["link", "dangling link", "file", "empty directory"])
def test_what_stands_in_the_place_of_a_job_removes_it_not(stand_in: str, maand: Maand, jobs: Path) -> None:
    (jobs / "api").rename(maand.bucket / "real")
    if stand_in == "file":
        (jobs / "api").write_text("../../real")
    elif stand_in == "empty directory":
        (jobs / "api").mkdir()
    else:
        (jobs / "api").symlink_to("../../real" if stand_in == "link" else "../../nowhere")
    refused(maand, "workspace/jobs/api")


@pytest.mark.parametrize("gone", ["the directory", "what is in it"])
def test_a_workspace_without_any_job_is_built_only_when_that_is_meant(gone: str, maand: Maand, jobs: Path) -> None:
    shutil.rmtree(jobs)
    if gone == "what is in it":
        jobs.mkdir()
    refused(maand, "the last build had 2 jobs", "nobody is here to confirm", "--yes")
    assert maand("deploy", "--build").code == 3
    assert built(maand) == ["api", "db"]
    maand.must("build", "--yes")
    assert built(maand) == []
    maand.must("build")


def test_a_removed_job_beside_another_needs_no_question(maand: Maand, jobs: Path) -> None:
    shutil.rmtree(jobs / "db")
    maand.must("build")
    assert built(maand) == ["api"]


def test_a_workspace_that_is_a_link_to_a_directory_is_followed(maand: Maand, jobs: Path) -> None:
    (maand.bucket / "workspace").rename(maand.bucket / "elsewhere")
    (maand.bucket / "workspace").symlink_to("elsewhere")
    assert "nothing changed" in maand.must("build").err
    (maand.bucket / "elsewhere").rename(maand.bucket / "away")
    said = maand("build")
    assert said.code == 3
    assert "does not exist" in said.err


def test_a_file_over_the_limit_is_named_before_anything_is_sent_together_with_other_errors(maand: Maand, jobs: Path) -> None:
    with (jobs / "api/big.bin").open("wb") as file:
        file.truncate(65 << 20)
    (jobs / "db/pipe").unlink(missing_ok=True)
    os.mkfifo(jobs / "db/pipe")
    refused(maand, "the file has 65.0 MiB, the limit is 64 MiB", "  workspace/jobs/api/big.bin\n", "  workspace/jobs/db/pipe\n")


def test_a_setuid_bit_that_is_lost_is_told(maand: Maand, jobs: Path) -> None:
    (jobs / "api/app.conf").chmod(0o4755)
    said = maand.must("build").err
    assert "workspace/jobs/api/app.conf: its setuid and setgid bits are not copied to workers" in said


def test_names_are_utf_8_whatever_the_locale(maand: Maand, jobs: Path) -> None:
    maand.environment |= {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    maand.must("services", "stop")
    (jobs / "api/größe.txt").write_text("x")
    maand.must("build")
    maand.must("kv", "set", "vars/notes", "schlüssel", "grüße")
    assert maand.must("kv", "get", "vars/notes", "schlüssel").out == "grüße\n"
