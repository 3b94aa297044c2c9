"""A bucket with a database to back up and restore, and runs that are open in it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maand_contracts.catalog.v1 import run_pb2 as pb
from tests.contracts.catalog.run_builders import COMMAND, a_bucket, a_create
from tests.contracts.catalog.run_verbs import create, must_claim
from tests.contracts.catalog.serving import ServedCatalog


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended and what it said."""

    code: int
    err: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """A bucket directory with a database, and the program in it."""

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "data/maand.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.database}"

    def run(self, *arguments: object, cwd: Path | None = None, **environment: str) -> Said:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAAND_")}
        ended = subprocess.run(
            [sys.executable, "-m", "maand_catalog", *map(str, arguments)],
            cwd=cwd or self.directory,
            env={**kept, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return Said(code=ended.returncode, err=ended.stderr)

    def must(self, *arguments: object) -> str:
        said = self.run(*arguments)
        assert said.code == 0, said.err
        return said.err

    def kept(self) -> list[Path]:
        return sorted(self.database.parent.glob("maand.db.before-restore-*"))

    def leftovers(self) -> list[str]:
        """Everything in the data directory that a restore should not leave there."""
        names = {path.name for path in self.database.parent.iterdir()} - {path.name for path in self.kept()}
        return sorted(names - {"maand.db", "maand.db.lock"})

    def ask(self, query: str, file: Path | None = None) -> Any:
        with closing(sqlite3.connect(file or self.database)) as connection:
            return connection.execute(query).fetchone()[0]


async def runs_in_every_open_state(catalog: ServedCatalog) -> list[pb.Run]:
    """Leave a running and a waiting deploy, and a command that is running."""
    bucket_id = await a_bucket(catalog.database)
    running = await create(catalog, a_create(bucket_id))
    await must_claim(catalog)
    waiting = await create(catalog, a_create(bucket_id, lock_timeout_seconds=600))
    command = await create(catalog, a_create(bucket_id, COMMAND))
    await must_claim(catalog)
    return [running, waiting, command]
