"""Where a database lives: a mark that stays through restarts, moves and changes of its content, and that no copy shares.

| Database   | Mark                                               | Another one after                                         |
|------------|----------------------------------------------------|-----------------------------------------------------------|
| SQLite     | inode of its file                                  | any copy, also a move to another file system              |
| PostgreSQL | identifier of the cluster, number of the database  | pg_restore, CREATE DATABASE … TEMPLATE, pg_upgrade        |

A snapshot of a whole disk or cluster keeps the mark. The device of a SQLite file is no part of it: its number changes when the
machine is started again.
"""

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from maand_catalog.database.transaction import Transaction

DATABASE_NUMBER = text("SELECT oid FROM pg_database WHERE datname = current_database()")
CLUSTER_IDENTIFIER = text("SELECT system_identifier FROM pg_control_system()")


def read_home(tx: Transaction) -> str:
    """Return the mark of where the database lives; empty where that cannot be told: in memory."""
    return read_postgresql_home(tx) if tx.dialect == "postgresql" else read_sqlite_home(tx)


def read_sqlite_home(tx: Transaction) -> str:
    """Return the inode of the main file."""
    for _, name, file in tx.connection.exec_driver_sql("PRAGMA database_list"):
        if name == "main" and file:
            return f"inode:{Path(file).stat().st_ino}"
    return ""


def read_postgresql_home(tx: Transaction) -> str:
    """Return the cluster's identifier, where its administrator lets us read it, and the database's number."""
    number = tx.connection.execute(DATABASE_NUMBER).scalar_one()
    try:
        with tx.connection.begin_nested():
            cluster = tx.connection.execute(CLUSTER_IDENTIFIER).scalar_one()
    except DBAPIError:
        cluster = ""
    return f"cluster:{cluster} database:{number}"
