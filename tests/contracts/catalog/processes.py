"""Catalogs and crowds as processes of their own, to be killed without warning."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from maand_contracts.catalog.v1 import bucket_pb2
from maand_contracts.catalog.v1.bucket_pb2_grpc import BucketServiceStub
from maand_wire.channels import OPTIONS

ROOT = Path(__file__).parents[3]


class Process:
    """A child process that may be killed, and is gone when the test is over."""

    def __init__(self, *command: str, log: Path, **environment: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def kill(self) -> None:
        """Kill it as a crash does, and return when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def finish(self, timeout: float) -> int:
        """Return its exit code once it is through."""
        return self._process.wait(timeout)


class Fleet:
    """Catalog processes on one database, and crowds that use them."""

    def __init__(self, directory: Path, database_url: str, key_file: Path) -> None:
        self.directory = directory
        self._database_url = database_url
        self._key_file = key_file
        self._sockets = Path(tempfile.mkdtemp(prefix="maand-"))
        self._catalogs: dict[str, Process] = {}
        self._crowds: list[Process] = []

    def address(self, name: str) -> str:
        return f"unix:{self._sockets}/{name}.sock"

    async def start(self, name: str) -> str:
        """Start a catalog (again) and return its address when it answers."""
        self._catalogs[name] = Process(
            "-m",
            "maand_catalog",
            log=self.directory / f"{name}.log",
            MAAND_CATALOG_LISTEN=self.address(name),
            MAAND_DATABASE_URL=self._database_url,
            MAAND_KV_KEY_FILE=str(self._key_file),
            MAAND_CA_DIR=str(self.directory),
        )
        options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]  # else it may be a broken connection to the one before
        async with grpc.aio.insecure_channel(self.address(name), options=options) as channel:
            await BucketServiceStub(channel).ListBuckets(bucket_pb2.ListBucketsRequest(), wait_for_ready=True, timeout=30)
        return self.address(name)

    def kill(self, name: str) -> None:
        """Kill a catalog as a crash does."""
        self._catalogs[name].kill()

    def crowd(self, **task: Any) -> Process:
        """Start a crowd."""
        log = self.directory / f"crowd{len(self._crowds)}.log"
        self._crowds.append(Process("-m", "tests.contracts.catalog.crowd", json.dumps(task), log=log))
        return self._crowds[-1]

    def close(self) -> None:
        """Kill everybody."""
        for process in (*self._crowds, *self._catalogs.values()):
            process.kill()
        for socket in self._sockets.iterdir():
            socket.unlink()
        self._sockets.rmdir()


@contextmanager
def running_fleet(directory: Path, database_url: str, key_file: Path) -> Iterator[Fleet]:
    """Hand out a fleet, and leave nothing of it behind."""
    fleet = Fleet(directory, database_url, key_file)
    try:
        yield fleet
    finally:
        fleet.close()
