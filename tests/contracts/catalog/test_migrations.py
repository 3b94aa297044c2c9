"""The migrations and the metadata describe one schema, and a start brings a database to it."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import text

from maand_catalog.database.database import Database
from maand_catalog.database.engine import parse_database_url
from maand_catalog.database.migrate import SchemaTooNew, apply_migrations, known_revisions, migrate_database
from maand_catalog.database.transaction import Transaction
from tests.contracts.catalog.conftest import names
from tests.testbed.postgres import PostgresCluster

SQLITE_SCHEMA = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%' ORDER BY name"

POSTGRES_SCHEMA = """
    SELECT c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' ' || a.attcollation
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND a.attnum > 0 AND c.relname NOT LIKE '%alembic%'
    UNION ALL
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    AND conname NOT LIKE '%alembic%'
    UNION ALL
    SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%alembic%'
    ORDER BY 1, 2
"""

OLDER_ROWS = (
    """
    INSERT INTO runs (run_id, bucket_id, seq, kind, spec, state, message, requested_by, created_at, executor_id, fence, cancel,
        last_sequence, result, parent_run_id, sealed_hook_env, hook_env_key_id, steps, trimmed)
    VALUES (:run, :bucket, 1, 'deploy', :digest, 'pending', '', '', 0, '', 0, 0, 0, :digest, '', :digest, '', 0, FALSE)
    """,
    """
    INSERT INTO tasks (task_id, bucket_id, run_id, run_fence, name, kind, spec, state, executor_id, fence, outcomes, sequence)
    VALUES (:task, :bucket, :run, 1, 'old', 'command', :digest, 'pending', '', 0, :digest, 0)
    """,
    """
    INSERT INTO invocations (invocation_id, bucket_id, run_id, fence, job, allocation_id, worker, hook, event, token_sha256,
        begun_at) VALUES (:invocation, :bucket, :run, 1, 'api', :task, '10.0.0.1', 'hook_a', 'cli', :digest, 0)
    """,
)


OLDER_IDS = {"bucket": "b" * 36, "digest": bytes(32)}
OLDER_ALLOCATION = """
    INSERT INTO allocations (bucket_id, allocation_id, job, worker, position, removed, disabled, current_version, new_version,
        deployed_sha256, target_sha256, promoted_target_sha256, state, state_since, message, run_id, post_deploy_owed, moves)
    VALUES (:bucket, :id, :job, '10.0.0.1', 0, FALSE, FALSE, '1', '1', :digest, :digest, :digest, :state, 0, '', '', FALSE, 9)
"""
OLDER_MOVE = """
    INSERT INTO allocation_moves (bucket_id, allocation_id, number, from_state, to_state, moved_at, run_id, message)
    VALUES (:bucket, :id, :number, :before, :after, 0, '', '')
"""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An empty database, and one of the same kind with the schema of the metadata."""

    empty: str
    described: str


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    if request.param == "sqlite":
        return Pair(empty=f"sqlite:///{tmp_path / 'empty.db'}", described=request.getfixturevalue("sqlite_url"))
    return Pair(empty=empty_database(request), described=request.getfixturevalue("postgres_url"))


def empty_database(request: pytest.FixtureRequest) -> str:
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    name = f"empty_{next(names)}"
    request.addfinalizer(lambda: cluster.drop_database(name))
    return cluster.create_database(name)


@pytest.fixture
async def empty(pair: Pair) -> AsyncIterator[Database]:
    database = await Database.open(pair.empty)
    yield database
    await database.close()


async def test_migrations_make_the_schema_that_the_metadata_describes(pair: Pair, empty: Database) -> None:
    await migrate_database(empty)
    assert schema_of(pair.empty) == schema_of(pair.described)


async def test_a_database_that_is_up_to_date_is_left_alone(empty: Database) -> None:
    assert await migrate_database(empty) == await migrate_database(empty) == known_revisions()[-1]


async def test_a_newer_schema_than_the_code_is_refused_and_untouched(pair: Pair, empty: Database) -> None:
    await migrate_database(empty)
    await empty.write(lambda tx: tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    before = schema_of(pair.empty)
    with pytest.raises(SchemaTooNew, match="schema 9999, this maand knows"):
        await migrate_database(empty)
    assert schema_of(pair.empty) == before


async def test_replicas_that_start_together_migrate_once(request: pytest.FixtureRequest) -> None:
    url = empty_database(request)
    replicas = [await Database.open(url) for _ in range(4)]
    assert await asyncio.gather(*(migrate_database(replica) for replica in replicas)) == [known_revisions()[-1]] * 4
    for replica in replicas:
        await replica.close()


async def test_runs_tasks_and_invocations_of_an_older_schema_are_kept(pair: Pair, empty: Database) -> None:
    """Schema 0005 makes `tasks` anew on SQLite, and adds a column to `invocations`."""
    await empty.write(lambda tx: apply_migrations(tx.connection, "0004"))
    ids = {"run": "r" * 36, "bucket": "b" * 36, "task": "t" * 36, "invocation": "i" * 36, "digest": bytes(32)}
    await empty.write(lambda tx: [tx.connection.execute(text(statement), ids) for statement in OLDER_ROWS])
    assert await migrate_database(empty) == known_revisions()[-1]
    query = "SELECT tasks.name, hook, invocations.task_id FROM tasks JOIN invocations ON invocations.run_id = tasks.run_id"
    assert await empty.read(lambda tx: [tuple(row) for row in tx.connection.execute(text(query))]) == [("old", "hook_a", None)]
    await empty.write(lambda tx: tx.connection.execute(text("UPDATE tasks SET kind = 'hooks'")))
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        await empty.write(lambda tx: tx.connection.execute(text("UPDATE tasks SET kind = 'other'")))


HISTORIES: dict[str, tuple[str, bool]] = {
    "promoted": ("planned deploying promoted", False),
    "stopped": ("planned deploying promoted stopped", True),
    "failed-first": ("planned deploying failed", False),
    "failed-update": ("planned deploying promoted deploying failed", False),
    "failed-after-stop": ("planned deploying promoted stopped deploying failed", True),
    "started-after-stop": ("planned deploying promoted stopped deploying failed deploying promoted deploying failed", False),
    "came-back": ("planned deploying promoted removed planned deploying failed", True),
    "never-deployed": ("planned removed planned deploying failed", False),
}
"""States of allocations one after another, and whether the last leaves a start owed."""


async def test_what_older_schemas_knew_of_stopped_allocations_is_in_their_history(pair: Pair, empty: Database) -> None:
    await empty.write(lambda tx: apply_migrations(tx.connection, "0006"))

    def insert(tx: Transaction) -> None:
        for name, (history, _) in HISTORIES.items():
            states = history.split()
            tx.connection.execute(text(OLDER_ALLOCATION), {**OLDER_IDS, "id": name.ljust(36), "job": name, "state": states[-1]})
            for number, (before, after) in enumerate(itertools.pairwise(states), start=1):
                move = {**OLDER_IDS, "id": name.ljust(36), "number": number, "before": before, "after": after}
                tx.connection.execute(text(OLDER_MOVE), move)

    await empty.write(insert)
    await migrate_database(empty)
    rows = await empty.read(lambda tx: list(tx.connection.execute(text("SELECT job, start_owed FROM allocations"))))
    assert {job: bool(owed) for job, owed in rows} == {name: owed for name, (_, owed) in HISTORIES.items()}


def schema_of(url: str) -> list[tuple[str, str]]:
    engine = sqlalchemy.create_engine(parse_database_url(url))
    query = SQLITE_SCHEMA if engine.dialect.name == "sqlite" else POSTGRES_SCHEMA
    with engine.connect() as connection:
        rows = [(str(name), in_any_order(str(definition))) for name, definition in connection.execute(text(query))]
    engine.dispose()
    return rows


def in_any_order(definition: str) -> str:
    """SQLite keeps a statement as it was written, and changed: columns may come in another order, names in quotes or not."""
    parts = re.split(r",\s*(?=\w+ [A-Z])|\n", definition.replace('"', ""))
    return "\n".join(sorted(filter(None, (part.strip(", \t)") for part in parts))))
