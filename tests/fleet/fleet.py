"""Twenty workers with three jobs: `database` on the first four, `web` on the last eight, `api` on all, which demands `database`.

Every lifecycle command writes what begins and ends to its worker's own log, with the content it begins with; `Fleet.acts` reads
the logs of all workers, on the one clock that they share here.
"""

import itertools
import json
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.maand import Bucket
from tests.testbed.fleet import FleetTestBed
from tests.testbed.worker import SshWorker

JOBS = Path(__file__).parent / "jobs"
SIZE = 20

_contents = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Act:
    """One lifecycle command as its worker saw it; `ended` is None when it never came to its end."""

    target: str
    job: str
    content: str
    worker: str
    began: float
    ended: float | None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The workers and the bucket they belong to."""

    bed: FleetTestBed
    bucket: Bucket

    @property
    def workers(self) -> list[SshWorker]:
        """The workers, in position order."""
        return self.bed.workers

    @property
    def hosts(self) -> list[str]:
        """Their addresses."""
        return [worker.host for worker in self.bed.workers]

    def worker(self, host: str) -> SshWorker:
        """Return the worker of an address."""
        return next(worker for worker in self.workers if worker.host == host)

    def hosts_of(self, job: str) -> list[str]:
        """Return the addresses of a job's workers."""
        return {"database": self.hosts[:4], "web": self.hosts[-8:]}.get(job, self.hosts)

    def write_content(self, content: str, *jobs: str) -> None:
        """Change the jobs' content in the workspace; all jobs when none is named."""
        for job in jobs or ("api", "database", "web"):
            self.bucket.write(f"workspace/jobs/{job}/content", f"{content}\n")

    def change(self, content: str, *jobs: str) -> None:
        """Change the jobs' content and build."""
        self.write_content(content, *jobs)
        self.bucket.must("build")

    def change_manifest(self, job: str, **values: object) -> None:
        """Change what a job's manifest says."""
        path = self.bucket.path / f"workspace/jobs/{job}/manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def acts(self, job: str, content: str) -> list[Act]:
        """Return what was done with one content of a job, in order of time."""
        acts = [act for worker in self.workers for act in acts_on(worker) if (act.job, act.content) == (job, content)]
        return sorted(acts, key=lambda act: act.began)

    def allocations(self, *jobs: str) -> list[dict[str, Any]]:
        """Return what the catalog knows of allocations."""
        chosen = ("--jobs", ",".join(jobs)) if jobs else ()
        listed: list[dict[str, Any]] = self.bucket.must("cat", "allocations", *chosen, "-o", "json").json()
        return listed

    def states(self, job: str) -> dict[str, str]:
        """Return the states of a job's allocations, by worker."""
        return {row["worker"]: row["state"] for row in self.allocations(job)}

    def job_path(self, worker: SshWorker, job: str, path: str = "") -> Path:
        """Return a file of a job on a worker."""
        conf = (self.bucket.path / "maand.conf").read_text()
        found = re.search(r'^bucket_id = "(.+)"', conf, re.MULTILINE)
        assert found
        return worker.path(f"/opt/worker/{found[1]}/jobs/{job}/{path}")

    def close(self) -> None:
        """Stop the services and end the workers; nothing more to do the second time."""
        if self.workers:
            self.bucket.stop_services()
            self.bed.stop()
            self.workers.clear()

    def new_content(self) -> str:
        """Return a content that no job has had yet."""
        return f"content-{next(_contents)}"

    def delivered(self, job: str) -> set[str]:
        """Return the contents that a job's workers have."""
        return {self.job_path(self.worker(host), job, "content").read_text().strip() for host in self.hosts_of(job)}


def services_pid(bucket: Bucket) -> int:
    """Return the process id of the bucket's services."""
    return int(json.loads((bucket.path / "run/services.json").read_text())["pid"])


def promoted_steps(bucket: Bucket) -> set[tuple[str, str]]:
    """Return what the newest run recorded as promoted, as (job, worker), from its database, whether it is served or not."""
    with closing(sqlite3.connect(f"file:{bucket.path}/data/maand.db?mode=ro", uri=True)) as database:
        newest = "(SELECT run_id FROM runs ORDER BY seq DESC LIMIT 1)"
        rows = database.execute(f"SELECT name FROM run_steps WHERE run_id = {newest} AND name LIKE '%/promoted%'")
        return {(name.split("/")[0], name.split("/")[1]) for (name,) in rows}


def lifecycle_counts(fleet: Fleet, content: str, *jobs: str) -> Counter[tuple[str, str]]:
    """Count how often each allocation of these jobs was brought up with a content, as (job, worker)."""
    return Counter((act.job, act.worker) for job in jobs for act in fleet.acts(job, content))


def states_after(hosts: Sequence[str], *, failed: str, begun: int) -> list[str]:
    """Return what a deploy leaves that failed on one worker: the others of the batches that were begun are promoted."""
    return ["failed" if host == failed else "promoted" for host in hosts[:begun]] + ["pending"] * (len(hosts) - begun)


def put_right(fleet: Fleet) -> bool:
    """Undo what a test did to a fleet that was deployed; the content stays. Return whether all is well again."""
    for worker in fleet.workers:
        worker.restore()
        worker.run("rm -f /opt/hang-* /opt/refuse /opt/unhealthy /opt/stopped; pkill -CONT . ; true")
    for source in JOBS.rglob("*"):
        path = f"workspace/{source.relative_to(JOBS.parent)}"
        if source.is_file() and not (source.name == "content" and (fleet.bucket.path / path).exists()):
            fleet.bucket.write(path, source.read_text())
    (fleet.bucket.path / "workspace/disabled.json").unlink(missing_ok=True)
    write_workers(fleet, fleet.hosts)
    fleet.bucket.run("kv", "set", "vars/job/api", "leader", "")
    return fleet.bucket.run("deploy", "--build").exit_code == 0


def make_fleet(directory: Path, *, jobs: bool = True) -> Fleet:
    """Start the workers and make their bucket, with the three jobs or none; nothing is built."""
    bed = FleetTestBed(directory / "bed")
    try:
        bed.start_workers(SIZE)
        bucket = Bucket(path=directory / "bucket")
        bucket.path.mkdir()
        bucket.must("init")
        bucket.configure(ssh_user=bed.user)
        bed.write_secrets(bucket.path / "secrets")
        fleet = Fleet(bed=bed, bucket=bucket)
        shutil.rmtree(bucket.path / "workspace" / "jobs", ignore_errors=True)
        if jobs:
            shutil.copytree(JOBS, bucket.path / "workspace" / "jobs")
        write_workers(fleet, fleet.hosts)
    except BaseException:
        bed.stop()
        raise
    return fleet


def write_workers(fleet: Fleet, hosts: Sequence[str]) -> None:
    """Write `workers.json` with these workers."""
    labels = {host: [job for job in ("database", "web") if host in fleet.hosts_of(job)] for host in hosts}
    fleet.bucket.write("workspace/workers.json", json.dumps([{"host": host, "labels": labels[host]} for host in hosts]))


def acts_on(worker: SshWorker) -> list[Act]:
    """Read a worker's log."""
    log = worker.path("/opt/worker/events.log")
    open_acts: list[Act] = []
    done: list[Act] = []
    for line in log.read_text().splitlines() if log.exists() else []:
        target, job, content, what, when = line.split()
        act = Act(target=target, job=job, content=content, worker=worker.host, began=float(when), ended=None)
        if what == "begins":
            open_acts.append(act)
            continue
        begun = next(one for one in reversed(open_acts) if (one.target, one.job, one.content) == (target, job, content))
        open_acts.remove(begun)
        done.append(Act(target=target, job=job, content=content, worker=worker.host, began=begun.began, ended=float(when)))
    return [*done, *open_acts]


def check_batches(acts: Sequence[Act], order: Sequence[str], size: int) -> None:
    """Insist that the workers were taken in this order, so many side by side, each batch after the one before had ended."""
    batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
    assert sorted(act.worker for act in acts) == sorted(order), "each worker once"
    by_worker = {act.worker: act for act in acts}
    for earlier, later in itertools.pairwise(batches):
        last_end = max(by_worker[host].ended or float("inf") for host in earlier)
        first_begin = min(by_worker[host].began for host in later)
        assert last_end < first_begin, f"{later} began before {earlier} had ended"
