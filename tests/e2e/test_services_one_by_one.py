"""The three services as processes of their own, found through the environment; health and reflection answer strangers."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.maand import PROGRAM, Bucket
from tests.testbed.worker import SshWorker
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.timeout(240)]

BIN = PROGRAM.parent


@contextmanager
def service(name: str, environment: Mapping[str, str], *, until: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Run one service until the test is through with it; wait until it is ready first."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MAAND_")}
    tools = f"{BIN}{os.pathsep}{kept.get('PATH', '')}"
    process = subprocess.Popen([BIN / name], env={**kept, "PATH": tools, **environment})
    try:
        wait_until(lambda: is_ready(process, until), what=f"that {name} is ready")
        yield process
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0, f"{name} did not stop in order"


def is_ready(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> bool:
    """Whether a condition holds for a process, which must live."""
    assert process.poll() is None, "it ended"
    return condition()


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Give a directory whose path is short enough for unix sockets."""
    directory = Path(tempfile.mkdtemp(prefix="maand-"))
    yield directory
    shutil.rmtree(directory)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def catalog_environment(bucket: Bucket, listen: str) -> dict[str, str]:
    return {
        "MAAND_CATALOG_LISTEN": listen,
        "MAAND_DATABASE_URL": f"sqlite:///{bucket.path}/data/one-by-one.db",
        "MAAND_KV_KEY_FILE": str(bucket.path / "secrets/kv.key"),
        "MAAND_CA_DIR": str(bucket.path / "secrets"),
    }


def test_the_same_commands_work_on_services_that_were_started_one_by_one(
    bucket: Bucket, workers: list[SshWorker], sockets: Path
) -> None:
    catalog, executor, hook_api = f"unix:{sockets}/catalog", f"unix:{sockets}/executor", f"127.0.0.1:{free_port()}"
    with ExitStack() as running:
        running.enter_context(service("maand-catalog", catalog_environment(bucket, catalog), until=(sockets / "catalog").exists))
        executes = {
            "MAAND_EXECUTOR_LISTEN": executor,
            "MAAND_CATALOG_ADDRESS": catalog,
            "MAAND_SECRETS_DIR": str(bucket.path / "secrets"),
            "MAAND_STATE_DIR": str(bucket.path / "tmp"),
            "MAAND_HOOK_API": hook_api,
        }
        running.enter_context(service("maand-executor", executes, until=(sockets / "executor").exists))
        gates = {"MAAND_CATALOG_ADDRESS": catalog, "MAAND_EXECUTOR_ADDRESS": executor, "MAAND_HOOK_API_LISTEN": hook_api}
        running.enter_context(service("maand-runtime-gateway", gates, until=lambda: answers(hook_api)))
        found = replace(bucket, environment={"MAAND_CATALOG_ADDRESS": catalog, "MAAND_EXECUTOR_ADDRESS": executor})
        found.must("build")
        found.must("deploy")
        by_hand = found.must("hooks", "hook_migrate", "api")
        assert f"api@{workers[0].host} | migrating api" in by_hand.output
        assert not (bucket.path / "run/services.json").exists(), "no local services were started"


def test_health_and_reflection_answer_a_stranger_on_tcp(bucket: Bucket) -> None:
    address = f"127.0.0.1:{free_port()}"
    with service("maand-catalog", catalog_environment(bucket, address), until=lambda: is_serving(address)):
        listed = buf("curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", f"http://{address}")
        assert "maand.catalog.v1.RunService/CreateRun" in listed.stdout
        checked = buf(
            "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", "{}", f"http://{address}/grpc.health.v1.Health/Check"
        )
        assert "SERVING" in checked.stdout
        refused = buf(
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            "-d",
            "{}",
            f"http://{address}/maand.catalog.v1.RunService/ListRuns",
        )
        assert refused.returncode != 0
        assert "unauthenticated" in refused.stderr


def answers(address: str) -> bool:
    """Tell whether somebody takes connections there."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def is_serving(address: str) -> bool:
    return subprocess.run([sys.executable, "-m", "maand_wire.probe", address], check=False).returncode == 0


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run buf, as somebody who knows nothing but the address."""
    return subprocess.run([BIN / "buf", *arguments], capture_output=True, text=True, timeout=90, check=False)
