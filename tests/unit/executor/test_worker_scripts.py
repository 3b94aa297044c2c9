"""Commands for workers: their exact text, and that bash understands them."""

import json
import subprocess
from pathlib import Path

import pytest

from maand_executor.rules.facts import Allocation, BucketConfig, Worker
from maand_executor.rules.worker_scripts import (
    WorkerFacts,
    describe_worker,
    describe_worker_script,
    facts_script,
    make_environment,
    make_script,
    parse_preflight,
    parse_worker_facts,
    preflight_script,
    remove_directory_script,
    remove_files_script,
    stop_script,
)

ABSOLUTE = BucketConfig(bucket_id="b-1")
ALLOCATION = Allocation(allocation_id="id", job="api", worker="10.0.0.1", index=2, current_version="1.0.0", new_version="1.1.0")


def bash(script: str, directory: Path, stdin: bytes = b"") -> str:
    done = subprocess.run(["bash", "-c", script], cwd=directory, input=stdin, capture_output=True, check=True)
    return done.stdout.decode()


def relative(root: Path) -> BucketConfig:
    """Settings whose worker root is relative, so that scripts work below a directory of the test."""
    (root / "w").mkdir()
    return BucketConfig(bucket_id="b-1", worker_root="w")


def test_a_make_target_runs_in_the_job_s_directory_with_every_argument_quoted() -> None:
    assert make_script(ABSOLUTE, "api", "start") == "make -s -C /opt/worker/b-1/jobs/api -- start"
    assert make_script(ABSOLUTE, "api", "a b; rm") == "make -s -C /opt/worker/b-1/jobs/api -- 'a b; rm'"


def test_a_makefile_is_told_versions_index_and_address() -> None:
    assert make_environment(ALLOCATION) == {
        "CURRENT_VERSION": "1.0.0",
        "NEW_VERSION": "1.1.0",
        "ALLOCATION_INDEX": "2",
        "ALLOCATION_IP": "10.0.0.1",
        "JOB": "api",
    }


def test_stopping_what_was_never_deployed_is_nothing(tmp_path: Path) -> None:
    assert bash(stop_script(relative(tmp_path), "api"), tmp_path) == ""


def test_removing_keeps_data_and_logs(tmp_path: Path) -> None:
    config = relative(tmp_path)
    job = tmp_path / "w/b-1/jobs/api"
    for path in ("data/x", "logs/y", "conf/z", ".hidden/a", "bin/b"):
        (job / path).parent.mkdir(parents=True)
        (job / path).write_text("")
    (job / "Makefile").write_text("")
    bash(remove_files_script(config, "api"), tmp_path)
    assert sorted(path.name for path in job.iterdir()) == ["data", "logs"]


def test_a_directory_that_removing_emptied_goes_too(tmp_path: Path) -> None:
    config = relative(tmp_path)
    (tmp_path / "w/b-1/jobs/api/conf").mkdir(parents=True)
    bash(remove_files_script(config, "api"), tmp_path)
    bash(remove_files_script(config, "api"), tmp_path)
    assert not (tmp_path / "w/b-1/jobs/api").exists()


def test_gc_deletes_data_and_logs_too(tmp_path: Path) -> None:
    config = relative(tmp_path)
    (tmp_path / "w/b-1/jobs/api/data").mkdir(parents=True)
    bash(remove_directory_script(config, "api"), tmp_path)
    assert list((tmp_path / "w/b-1/jobs").iterdir()) == []


def test_worker_json_and_jobs_json_describe_the_worker(tmp_path: Path) -> None:
    config = relative(tmp_path)
    worker = Worker(name="10.0.0.1", worker_id="w-1", hostname="one\\two", labels=("api", "worker"), tags={"a": "b c"})
    bash(describe_worker_script(config), tmp_path, describe_worker(config, worker, [ALLOCATION]))
    about = json.loads((tmp_path / "w/b-1/worker.json").read_text())
    jobs = json.loads((tmp_path / "w/b-1/jobs.json").read_text())
    assert (about["bucket_id"], about["worker_id"], about["host"], about["hostname"]) == ("b-1", "w-1", "10.0.0.1", "one\\two")
    assert [(job["job"], job["version"], job["allocation_index"]) for job in jobs] == [("api", "1.1.0", 2)]
    assert sorted(path.name for path in (tmp_path / "w/b-1").iterdir()) == ["jobs", "jobs.json", "worker.json"]


def test_a_worker_that_has_every_tool_names_none(tmp_path: Path) -> None:
    assert bash(preflight_script(sudo=False), tmp_path) == ""


def test_a_worker_names_the_tools_it_lacks(tmp_path: Path) -> None:
    script = f"PATH={tmp_path}\n{preflight_script(sudo=True)}; true"
    assert parse_preflight(bash(script, tmp_path)).missing_tools == ("bash", "make", "rsync", "timeout", "flock", "sudo")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo We trust you have received the lecture. >&2; echo sudo: a password is required >&2; exit 1",
            "sudo: a password is required",
        ),
        ("exit 1", "`sudo -n bash` fails and says nothing"),
        ("exit 0", ""),
    ],
)
def test_sudo_that_refuses_is_told_in_its_own_words(script: str, words: str, tmp_path: Path) -> None:
    sudo = tmp_path / "sudo"
    sudo.write_text(f"#!/bin/sh\n{script}\n")
    sudo.chmod(0o755)
    found = parse_preflight(bash(f"PATH={tmp_path}:$PATH\n{preflight_script(sudo=True)}; true", tmp_path))
    assert (found.missing_tools, found.sudo_refusal) == ((), words)


def test_memory_and_cpu_are_read_from_this_machine(tmp_path: Path) -> None:
    found = parse_worker_facts(bash(facts_script() + "; true", tmp_path))
    assert found is not None
    assert found.memory_mb > 100
    assert found.cpu_mhz > 100


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("MemTotal: 2048000 kB\nprocessor : 0\ncpu MHz : 2400.5\n", WorkerFacts(memory_mb=2000, cpu_mhz=2400)),
        ("MemTotal: 1024000 kB\nprocessor : 0\nprocessor : 1\n", WorkerFacts(memory_mb=1000, cpu_mhz=2000)),
        ("MemTotal: 1024000 kB\nprocessor : 0\ncpu MHz : 800\nmax_khz: 3000000\n", WorkerFacts(memory_mb=1000, cpu_mhz=3000)),
        ("nothing of the kind", None),
    ],
)
def test_memory_and_cpu_are_read_as_linux_tells_them(text: str, facts: WorkerFacts | None) -> None:
    assert parse_worker_facts(text) == facts
