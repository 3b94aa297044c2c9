"""A deploy tells what was edited since the last build: with real services, in a bucket whose job matches no worker."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Maand

pytestmark = pytest.mark.timeout(180)

HINT = "`maand deploy --build` takes"


@pytest.fixture
def job(maand: Maand) -> Path:
    """Build a bucket with one job and return the job's directory."""
    job = maand.bucket / "workspace/jobs/api"
    job.mkdir(parents=True)
    (job / "manifest.json").write_text('{"selectors": ["nobody"]}')
    (job / "Makefile").write_text("start stop restart:\n\ttrue\n")
    (job / "app.conf").write_text("version=1\n")
    (job / "current").symlink_to("app.conf")
    (job / "_hooks/.venv/bin").mkdir(parents=True)
    (job / "_hooks/.venv/bin/python").symlink_to("/usr/bin/python3")
    maand.must("build")
    return job


def test_a_deploy_of_what_was_built_says_nothing(maand: Maand, job: Path) -> None:
    assert "workspace" not in maand.must("deploy").err
    assert json.loads(maand.must("deploy", "-o", "json").out)["unbuilt"] is None
    assert json.loads(maand.must("info", "-o", "json").out)["unbuilt"] is None


def test_an_edited_workspace_is_told_by_every_deploy_that_does_not_build(maand: Maand, job: Path) -> None:
    (job / "app.conf").write_text("version=2\n")
    (job / "new.conf").write_text("x")
    (job / "Makefile").chmod(0o755)

    for arguments in (("deploy",), ("deploy", "--dry-run"), ("deploy", "--detach"), ("info",)):
        said = maand.must(*arguments)
        told = said.err + said.out
        assert "the workspace differs from the build of " in told, arguments
        assert "(3 files changed: jobs/api/Makefile, jobs/api/app.conf, jobs/api/new.conf)" in told
        assert HINT in told
    assert "workspace" not in maand.must("deploy", "-q").err

    document = json.loads(maand.must("deploy", "-o", "json").out)
    assert document["unbuilt"]["changed_files"] == 3
    assert document["unbuilt"]["paths"] == ["jobs/api/Makefile", "jobs/api/app.conf", "jobs/api/new.conf"]
    assert document["unbuilt"]["built_at"].startswith("20")
    lines = [json.loads(line) for line in maand.must("deploy", "-o", "jsonl").out.splitlines()]
    assert lines[-1]["unbuilt"]["changed_files"] == 3
    assert json.loads(maand.must("deploy", "--detach", "-o", "json").out)["unbuilt"]["changed_files"] == 3

    assert HINT not in maand.must("deploy", "--build").err
    assert HINT not in maand.must("deploy").err


def test_files_that_went_are_told_and_so_is_an_edit_that_keeps_size_and_time(maand: Maand, job: Path) -> None:
    (job / "current").unlink()
    before = (job / "app.conf").stat()
    (job / "app.conf").write_text("version=3\n")
    os.utime(job / "app.conf", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "(2 files changed: jobs/api/app.conf, jobs/api/current)" in maand.must("deploy").err


def test_a_workspace_that_cannot_be_built_is_told_and_fails_no_deploy(maand: Maand, job: Path) -> None:
    (maand.bucket / "workspace/workers.json").write_text('[\n  {"host": }\n]')
    said = maand.must("deploy")
    assert "cannot be built as it is: workspace/workers.json:2:12: not JSON" in said.err
    (maand.bucket / "workspace/workers.json").write_text("[]")

    (job / "vars.toml").write_text("a = \n")
    assert "cannot be built as it is: workspace/jobs/api/vars.toml:1:5: not TOML" in maand.must("deploy").err
    (job / "vars.toml").unlink()

    os.mkfifo(job / "pipe")
    said = maand.must("deploy")
    assert "cannot be built as it is: workspace/jobs/api/pipe: this is neither a file nor a symbolic link" in said.err
    problems = json.loads(maand.must("deploy", "-o", "json").out)["unbuilt"]["problems"]
    assert [problem["code"] for problem in problems] == ["not_a_file"]


def test_where_there_is_no_workspace_a_deploy_says_nothing(maand: Maand, job: Path) -> None:
    shutil.rmtree(maand.bucket / "workspace")
    assert "workspace" not in maand.must("deploy").err
    assert json.loads(maand.must("deploy", "-o", "json").out)["unbuilt"] is None
