"""Putting a backup in the place of a SQLite database. PostgreSQL brings tools of its own for that.

    FILE ──copy──► a private directory beside the database: examined, brought up to date, a new epoch begun
                     └──rename──► the database; what was there stays beside it under another name

Everything that can go wrong goes wrong in the private directory. A crash at any moment leaves the old database or the new one,
never one beside the write-ahead log of the other.
"""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from maand_catalog.database.database import Database
from maand_catalog.database.engine import parse_database_url, sqlite_path
from maand_catalog.database.failures import translate_refusals
from maand_catalog.database.filelock import FileLock
from maand_catalog.database.migrate import migrate_database
from maand_catalog.database.soundness import find_damage
from maand_catalog.errors import FailedPrecondition, InvalidArgument
from maand_catalog.store.backup import make_durable
from maand_catalog.store.runs.epochs import NewEpoch, begin_epoch

HEADER = b"SQLite format 3\0"
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database: parts of it, useless and dangerous beside any other."""


class RestoreFailed(FailedPrecondition):
    """The backup could not be put in place; the database is as it was. Mend what the message names and begin again."""

    code = "restore_failed"


class UnsoundDatabase(InvalidArgument):
    """The file is no whole database of maand. Use another backup."""

    code = "unsound_database"
    help = "use another backup: a file that `maand-catalog backup` made, or data/maand.db copied while the services were stopped"


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What a restore did. `kept` is where the replaced database is now; None = there was none."""

    database: Path
    kept: Path | None
    revision: str
    epoch: NewEpoch


async def restore_database(database_url: str, source: Path) -> Restored:
    """Put a backup in the place of the database, in a new epoch; durable when this returns.

    Raises InvalidArgument for PostgreSQL, DatabaseInUse, UnsoundDatabase, SchemaTooNew, or RestoreFailed; then nothing changed.
    """
    named = require_sqlite_file(database_url, otherwise="use pg_restore, then `maand-catalog new-epoch`: see docs/operations.md")
    try:
        with lock_for_restore(named):
            target = named.resolve()  # the lock is beside the name, as every catalog takes it; the rest beside the file itself
            return await restore_under_lock(source, target)
    except (OSError, sqlite3.Error) as error:
        raise RestoreFailed(f"{source} could not be put in the place of {named}: {error}", help="nothing changed") from error


def require_sqlite_file(database_url: str, *, otherwise: str) -> Path:
    """Return the file that the URL of a SQLite database names. InvalidArgument for any other, with what to do instead."""
    url = parse_database_url(database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise InvalidArgument("this is for a database in a SQLite file", help=f"for PostgreSQL {otherwise}")
    return sqlite_path(url).absolute()


@contextmanager
def lock_for_restore(database: Path) -> Iterator[None]:
    """Keep catalogs off the database, which need not exist yet. DatabaseInUse."""
    database.parent.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(database)
    lock.take()
    try:
        give_to_owner(database.with_name(f"{database.name}.lock"), like=database if database.exists() else database.parent)
        yield
    finally:
        lock.release()


async def restore_under_lock(source: Path, target: Path) -> Restored:
    """Prepare the copy, then put it in place."""
    check_source(source, target)
    staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.restoring-", dir=target.parent))
    try:
        staged = staging / target.name
        await asyncio.to_thread(copy_database, source, staged)
        replaced = await asyncio.to_thread(write_out_log, target)
        revision, epoch = await begin_new_life(staged, replaced)
        kept = await asyncio.to_thread(put_in_place, staged, target)
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    return Restored(database=target, kept=kept, revision=revision, epoch=epoch)


def check_source(source: Path, target: Path) -> None:
    """Refuse what is no database file, the database itself, and a database that a catalog writes to at this moment."""
    if not source.exists():
        raise UnsoundDatabase(f"there is no file {source}", help="name the file that `maand-catalog backup` made")
    if not source.is_file():
        raise UnsoundDatabase(f"{source} is no file", help="name the file that `maand-catalog backup` made")
    if target.exists() and source.samefile(target):
        raise InvalidArgument(
            f"{source} is the database itself", help="name a backup; after a copy by hand `maand-catalog new-epoch` is enough"
        )
    if source.with_name(f"{source.name}.lock").exists():
        # Only then may a catalog serve it; a backup need not lie where we may write.
        lock = FileLock(source)
        lock.take()
        lock.release()


def copy_database(source: Path, staged: Path) -> None:
    """Copy a database with the log that may belong to it, and see that it is sound. UnsoundDatabase."""
    for suffix in ("", "-wal", "-journal"):  # the shared memory is made anew from the log
        part, copy = (file.with_name(file.name + suffix) for file in (source, staged))
        if not suffix or part.is_file():
            shutil.copyfile(part, copy)
            copy.chmod(0o600)
    check_sound(staged, called=source)


def check_sound(database: Path, *, called: Path) -> None:
    """Raise `UnsoundDatabase` unless this is a whole SQLite database, indexes too, with the tables of maand."""
    if not has_header(database):
        raise UnsoundDatabase(f"{called} is no SQLite database")
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            damage = find_damage(connection, thorough=True)
    except sqlite3.Error as error:
        raise UnsoundDatabase(f"{called} cannot be read: {error}") from error
    if damage:
        raise UnsoundDatabase(f"{called} is damaged: {damage}")
    if not {"alembic_version", "buckets"} <= tables:
        raise UnsoundDatabase(f"{called} is no database of maand: it has other tables")


def has_header(file: Path) -> bool:
    """Whether a file begins as SQLite's do."""
    with file.open("rb") as opened:
        return opened.read(len(HEADER)) == HEADER


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """What is known of the database that is being replaced. Nothing where it cannot tell: it may be missing or broken.

    Its epoch matters only where the clock was set back since it began, its owner where the backup is older than owners.
    """

    epoch: int = 0
    owner_id: str = ""


def write_out_log(target: Path) -> Replaced:
    """Write the log of a killed catalog into the database that is being replaced, so that it is one file, and tell what it knows.

    What is no database is not even opened: SQLite would remove the log beside it.
    """
    if not (target.is_file() and has_header(target)):
        return Replaced()
    try:
        with closing(sqlite3.connect(f"{target.as_uri()}?mode=rw", uri=True, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            facts = dict(connection.execute("SELECT * FROM database_facts").fetchone() or {})
            return Replaced(epoch=int(facts.get("epoch") or 0), owner_id=str(facts.get("owner_id") or ""))
    except (sqlite3.Error, ValueError):
        return Replaced()


async def begin_new_life(staged: Path, replaced: Replaced) -> tuple[str, NewEpoch]:
    """Bring the copy up to date, begin an epoch in it, and leave it as one file. SchemaTooNew."""
    database = await Database.open(f"sqlite:///{staged}")
    try:
        with translate_refusals():
            revision = await migrate_database(database)
            epoch = await database.write(
                lambda tx: begin_epoch(tx, above=replaced.epoch, known_owner=replaced.owner_id), alone=True
            )
    finally:
        await database.close()  # the last connection's end writes the log into the file and removes it
    if staged.with_name(f"{staged.name}-wal").exists():
        raise RestoreFailed(f"{staged} was not written out whole", help="nothing changed; begin again")
    return revision, epoch


def put_in_place(staged: Path, target: Path) -> Path | None:
    """Give the prepared file the database's name, the replaced one another; return that. None when nothing was replaced.

    1. The replaced file gets its second name: it is the same file, not a copy, so that there is a database at every moment.
    2. What SQLite keeps beside it goes along: all that is left of the last changes of a file too broken to be written out.
    3. The new file takes the name.
    """
    give_to_owner(staged, like=target if target.exists() else target.parent)
    make_durable(staged)
    kept = target.with_name(f"{target.name}.before-restore-{datetime.now(tz=UTC):%Y%m%dT%H%M%S.%fZ}")
    replaces = target.exists()
    if replaces:
        give_second_name(target, kept)
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            target.with_name(target.name + suffix).rename(kept.with_name(kept.name + suffix))
    staged.replace(target)
    make_durable(target)
    return kept if replaces else None


def give_second_name(file: Path, name: Path) -> None:
    """Let a file have two names; where the file system knows no such thing, the other one only."""
    try:
        os.link(file, name)
    except OSError:
        file.rename(name)


def give_to_owner(file: Path, *, like: Path) -> None:
    """Root works for the user whose catalog must open the file."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(file, owner.st_uid, owner.st_gid)


async def begin_epoch_by_hand(database_url: str, *, above: int) -> NewEpoch:
    """Begin a new epoch of a database that was put back by other means. UnsoundDatabase, DatabaseInUse, SchemaTooNew."""
    url = parse_database_url(database_url)
    file = sqlite_path(url).absolute() if url.get_backend_name() == "sqlite" else None
    if file is not None and not file.is_file():
        raise UnsoundDatabase(f"there is no database {file}")
    database = await Database.open(database_url)
    try:
        if file is not None:
            await asyncio.to_thread(check_sound, file, called=file)
        with translate_refusals():
            await migrate_database(database)
            return await database.write(lambda tx: begin_epoch(tx, above=above), alone=True)
    finally:
        await database.close()
