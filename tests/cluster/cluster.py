"""A cluster of its own for tests: the project's compose file under another name, on other ports."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.e2e.maand import Bucket

ROOT = Path(__file__).parents[2]
PROJECT = "maand-test"
EXECUTORS = ("executor1", "executor2")
WORKERS = ("worker1", "worker2", "worker3")
POD = {"executor1": "pod1", "executor2": "pod2"}
"""Whose network an executor and its gateway use."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster; `config` is where its context and the people's files are."""

    config: Path

    @property
    def environment(self) -> dict[str, str]:
        """Say to Compose and to `maand` which cluster is meant."""
        return {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "CATALOG1_PORT": "17600",
            "CATALOG2_PORT": "17610",
            "XDG_CONFIG_HOME": str(self.config),
            "MAAND": str(Path(sys.executable).parent / "maand"),
        }

    @property
    def people(self) -> Path:
        """Where CA and tokens of people are."""
        return self.config / "maand" / "cluster"

    def script(self, act: str) -> None:
        """Run scripts/cluster."""
        subprocess.run([ROOT / "scripts" / "cluster", act], env={**os.environ, **self.environment}, check=True, timeout=900)

    def bucket(self, directory: Path) -> Bucket:
        """Make a bucket whose commands speak to this cluster."""
        directory.mkdir()
        bucket = Bucket(path=directory, environment={**self.environment, "MAAND_CONTEXT": "cluster"})
        bucket.must("init")
        return bucket

    def container(self, service: str) -> str:
        """Return a service's container."""
        return docker(
            "ps", "-aq", "-f", f"label=com.docker.compose.project={PROJECT}", "-f", f"label=com.docker.compose.service={service}"
        ).strip()

    def worker(self, name: str) -> "ContainerWorker":
        """Return one of its workers."""
        return ContainerWorker(host=name, container=self.container(name))

    def processes(self, service: str) -> list[str]:
        """Return the command lines of a service's processes."""
        return docker("top", self.container(service), "-eo", "pid,args").splitlines()[1:]

    def kill(self, service: str) -> None:
        """End a service as a power failure does."""
        docker("kill", "--signal", "KILL", self.container(service))

    def stop(self, service: str) -> None:
        """Ask a service to stop, and wait until it has."""
        docker("stop", "--time", "20", self.container(service))

    def start(self, service: str) -> None:
        """Start a service that was ended."""
        docker("start", self.container(service))

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """Stop every process of a service while inside, as a machine does that hangs."""
        docker("pause", self.container(service))
        try:
            yield
        finally:
            docker("unpause", self.container(service))

    @contextmanager
    def cut_off(self, executor: str) -> Iterator[None]:
        """Let an executor and its gateway reach no catalog while inside; workers they do reach."""
        network, pod = f"{PROJECT}_default", self.container(POD[executor])
        docker("network", "disconnect", network, pod)
        try:
            yield
        finally:
            docker("network", "connect", network, pod)

    def wait_until_healthy(self, service: str, *, seconds: float = 120) -> None:
        """Return when a service that was started says that it is well: its own health check, asked without its pauses."""
        container = self.container(service)
        (described,) = json.loads(docker("inspect", container))
        _, *check = described["Config"]["Healthcheck"]["Test"]
        ends = time.monotonic() + seconds
        while subprocess.run(["docker", "exec", container, *check], capture_output=True, timeout=60, check=False).returncode:
            assert time.monotonic() < ends, f"{service} is not healthy after {seconds:.0f} s"
            time.sleep(0.5)

    def copy(self, service: str, path: str, to: Path) -> None:
        """Copy a file out of a container, of its volumes too."""
        docker("cp", f"{self.container(service)}:{path}", str(to))

    def log(self, service: str) -> list[str]:
        """Return the lines a service wrote."""
        return docker("logs", self.container(service)).splitlines()

    def owners_of(self, run_id: str) -> list[str]:
        """Return the executors that claimed a run so far."""
        return [executor for executor in EXECUTORS if self.logged(executor, "run claimed", run_id)]

    def logged(self, service: str, event: str, run_id: str) -> datetime | None:
        """Return when a service last told of an event (the beginning of its words) of a run."""
        lines = [line for line in self.log(service) if f"event='{event}" in line and run_id in line]
        found = re.search("time='([^']+)'", lines[-1]) if lines else None
        return datetime.fromisoformat(found[1]) if found else None


@dataclass(frozen=True, kw_only=True)
class ContainerWorker:
    """One of a cluster's workers, looked at past maand."""

    host: str
    container: str

    def run(self, script: str) -> str:
        """Run a shell script on it as root and return what it prints."""
        return docker("exec", self.container, "bash", "-c", script)

    def stand_in(self, name: str, script: str) -> None:
        """Put a command first on the PATH of the worker's user and of sudo."""
        path = f"/usr/local/sbin/{name}"
        self.run(f"cat >{path} <<'END'\n{script}END\nchmod 755 {path}")


def docker(*arguments: str) -> str:
    """Run the engine's client; return what it printed."""
    done = subprocess.run(
        ["docker", *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    return done.stdout


def engine_answers() -> bool:
    """Whether there is a container engine to start a cluster in."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return False
