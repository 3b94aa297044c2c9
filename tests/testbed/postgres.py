"""A private PostgreSQL cluster for tests: a free port on loopback, a temporary directory, gone when the test session ends.

PostgreSQL refuses to run as root, so root becomes another user with setpriv. Durability is off unless asked for: a test's
data need not survive the machine.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

NOT_DURABLE = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


@dataclass(frozen=True, kw_only=True)
class PostgresCluster:
    """A running cluster."""

    directory: Path
    binaries: Path
    port: int
    options: str

    def url(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://maand@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Run one statement of administration."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create_database(self, name: str, *, template: str = "template0") -> str:
        """Create a database, a copy of the template, and return its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, throwing out who is still connected."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c max_connections=200 {self.options}"
        log = self.directory / "log"
        self._run("pg_ctl", "-D", self.data, "-w", "-s", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` ends sessions, `immediate` is a crash."""
        self._run("pg_ctl", "-D", self.data, "-w", "-s", "-m", mode, "stop")

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def initialize(self) -> None:
        """Create the data directory."""
        self._run("initdb", "-D", self.data, "-U", "maand", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def _run(self, program: str, *arguments: object) -> None:
        command = [*as_other_user(), str(self.binaries / program), *map(str, arguments)]
        # Output goes to a file: the server inherits it, and a pipe would stay open for as long as the server lives.
        with (self.directory / "output").open("ab") as output:
            finished = subprocess.run(command, cwd=self.directory, stdout=output, stderr=output, timeout=60, check=False)
        if finished.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{(self.directory / 'output').read_text()}")


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[PostgresCluster]:
    """Start a cluster, hand it out, stop it, remove it."""
    directory = Path(tempfile.mkdtemp(prefix="maand-postgres-"))
    cluster = PostgresCluster(
        directory=directory, binaries=find_binaries(), port=free_port(), options="" if durable else NOT_DURABLE
    )
    try:
        if os.geteuid() == 0:
            user = other_user()
            os.chown(directory, user.pw_uid, user.pw_gid)
        cluster.initialize()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def find_binaries() -> Path:
    """Find the directory with initdb: on PATH, or where Debian keeps the newest version."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not candidates:
        raise RuntimeError("PostgreSQL is not installed: apt-get install -y postgresql")
    return candidates[-1].parent


def as_other_user() -> list[str]:
    """Return the launcher that makes root somebody else; nothing for anybody else."""
    if os.geteuid() != 0:
        return []
    user = other_user()
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def other_user() -> pwd.struct_passwd:
    """Return the user whom the server runs as when the tests run as root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def free_port() -> int:
    """Return a port that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
