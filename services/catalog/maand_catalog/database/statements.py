"""Statements over many rows at once, in the form each database plans best.

INSERT … ON CONFLICT: both databases have it under the same words, SQLAlchemy under two imports.

Finding many rows: SQLite searches its index for each element of an IN list. PostgreSQL would plan a long list anew each time
(6 ms for 64 pairs); given as arrays the statement is always the same text, planned once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Table, Text, any_, bindparam, cast, func, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY

from maand_catalog.database.transaction import Transaction

T = TypeVar("T")

NAMES_AT_ONCE = 500
"""Values in one IN list, far below what either database takes."""

ROWS_AT_ONCE = 2_000
"""Rows handed to the driver at once: bounds memory, and keeps the connection from idling while rows are made."""


def upsert(tx: Transaction, table: Table) -> postgresql.Insert:
    """Return an INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`, for the transaction's database."""
    return upsert_for(tx.dialect, table)


def upsert_for(dialect: str, table: Table) -> postgresql.Insert:
    """Return such an INSERT for one of the two databases: for statements that are made once."""
    if dialect == "postgresql":
        return postgresql.insert(table)
    insert: postgresql.Insert = sqlite.insert(table)  # type: ignore[assignment]  # same methods, no common base
    return insert


def put_rows(tx: Transaction, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows, or replace those with the same primary key."""
    statement = upsert(tx, table)
    keys = [column.name for column in table.primary_key]
    others = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    statement = (
        statement.on_conflict_do_update(index_elements=keys, set_=others)
        if others
        else statement.on_conflict_do_nothing(index_elements=keys)
    )
    for chunk in in_chunks(list(rows), ROWS_AT_ONCE):
        tx.connection.execute(statement, chunk)


def in_chunks(items: Sequence[T], size: int = NAMES_AT_ONCE) -> Iterator[Sequence[T]]:
    """Cut a list into lists of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def one_of(tx: Transaction, column: ColumnElement[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition that a column holds one of many values.

    On PostgreSQL the values are one array to join with. A list of parameters there may be planned once, while the table is small,
    as a scan that compares every row with every value; that plan is then kept (measured: 1 s instead of 2 ms for 500 of 20,000).
    """
    if tx.dialect != "postgresql":
        return column.in_(values)
    array = bindparam(None, list(values), type_=postgresql.ARRAY(column.type), unique=True)
    return column.in_(select(func.unnest(cast(array, postgresql.ARRAY(column.type)))))


def work_long(tx: Transaction) -> None:
    """Let this transaction pause between statements for longer than others may: a build plans in between, on a busy machine."""
    if tx.dialect == "postgresql":
        tx.connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '60s'"))


DIALECTS = ("sqlite", "postgresql")


def numbers_in(dialect: str, column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Keep rows whose number is one of the parameter `numbers`, a list."""
    if dialect == "postgresql":
        return column == any_(bindparam("numbers", type_=ARRAY(BigInteger)))
    return column.in_(bindparam("numbers", expanding=True))


def names_in(dialect: str, first: ColumnElement[str], second: ColumnElement[str]) -> ColumnElement[bool]:
    """Keep rows whose two names are one of the pairs that `names_asked` makes parameters of."""
    if dialect != "postgresql":
        return tuple_(first, second).in_(bindparam("names", expanding=True))
    wanted = func.unnest(bindparam("firsts", type_=ARRAY(Text)), bindparam("seconds", type_=ARRAY(Text)))
    pairs = wanted.table_valued("first", "second").render_derived()
    return tuple_(first, second).in_(select(pairs.c.first, pairs.c.second))


def names_asked(dialect: str, names: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the parameters of `names_in`."""
    if dialect != "postgresql":
        return {"names": list(names)}
    return {"firsts": [first for first, _ in names], "seconds": [second for _, second in names]}
