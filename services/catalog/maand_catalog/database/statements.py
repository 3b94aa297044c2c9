"""Statements over many rows at once, in the form each database plans best.

INSERT … ON CONFLICT: both databases have it under the same words, SQLAlchemy under two imports.

Finding many rows: `OneOf` in statements that are made once, `one_of` in those made for the moment. Lists that are short by nature
(states, the buckets that one executor serves) are a plain `in_`. Listing them page by page: `select_page`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Select, String, Table, Text, any_, bindparam, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

from maand_catalog.database.transaction import Transaction

T = TypeVar("T")
Row = TypeVar("Row", bound=tuple[Any, ...])

DIALECTS = ("sqlite", "postgresql")

VALUES_AT_ONCE = 500
"""Values that one statement looks for: two or three parameters each on SQLite, far below its limit of 32,766."""

ROWS_AT_ONCE = 2_000
"""Rows made before they are handed to the driver: bounds memory (a build writes 300,000 keys), and keeps the connection from
idling while rows are made."""


def upsert_into(dialect: str, table: Table) -> postgresql.Insert:
    """Return an INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`, for one of the two databases."""
    if dialect == "postgresql":
        return postgresql.insert(table)
    insert: postgresql.Insert = sqlite.insert(table)  # type: ignore[assignment]  # same methods, no common base
    return insert


def put_rows(tx: Transaction, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows, or replace those with the same primary key."""
    statement = upsert_into(tx.dialect, table)
    keys = [column.name for column in table.primary_key]
    others = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    statement = (
        statement.on_conflict_do_update(index_elements=keys, set_=others)
        if others
        else statement.on_conflict_do_nothing(index_elements=keys)
    )
    for chunk in in_chunks(list(rows), ROWS_AT_ONCE):
        tx.connection.execute(statement, chunk)


def in_chunks(items: Sequence[T], size: int = VALUES_AT_ONCE) -> Iterator[Sequence[T]]:
    """Cut a list into lists of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class OneOf:
    """That a column holds one of many values, or some columns together one of many tuples.

    SQLite searches its index for each element of an IN list. On PostgreSQL the values are arrays: the statement is always the
    same text, planned once (a list of 64 pairs is planned anew each time, 6 ms). They are joined with, so that the plan is good
    too: a list may be planned while the table is small, as a scan that compares every row with every value, and that plan is then
    kept (measured: 1 s instead of 2 ms for 500 of 20,000). Statements made once, for one column, compare with the array.
    """

    def __init__(self, name: str, *columns: ColumnElement[Any]) -> None:
        """`name` is what parameters begin with; it must be no other parameter's of the statement."""
        self._name = name
        self._columns = columns

    def condition(self, dialect: str, values: Sequence[Any] | None = None) -> ColumnElement[bool]:
        """Return the condition, for the parameters that `parameters` makes, or with these values in it."""
        given = {} if values is None else self.parameters(dialect, values)

        def bind(name: str, **kind: Any) -> BindParameter[Any]:
            return bindparam(name, given[name], unique=True, **kind) if given else bindparam(name, **kind)

        subject = self._columns[0] if len(self._columns) == 1 else tuple_(*self._columns)
        if dialect != "postgresql":
            return subject.in_(bind(self._name, expanding=True))
        if values is None and len(self._columns) == 1:
            # For a few numbers joining costs more than it saves: 1,350 instead of 2,500 puts a second at 64 clients.
            return self._columns[0] == any_(bind(f"{self._name}_0", type_=ARRAY(array_item(self._columns[0]))))
        arrays = [bind(name, type_=ARRAY(array_item(column))) for name, column in self._arrays().items()]
        wanted = func.unnest(*arrays).table_valued(*self._arrays()).render_derived()
        return subject.in_(select(*wanted.c))

    def parameters(self, dialect: str, values: Sequence[Any]) -> dict[str, Any]:
        """Return the parameters that stand for these values."""
        if dialect != "postgresql":
            return {self._name: list(values)}
        rows = values if len(self._columns) > 1 else [(value,) for value in values]
        return {name: [row[place] for row in rows] for place, name in enumerate(self._arrays())}

    def _arrays(self) -> dict[str, ColumnElement[Any]]:
        return {f"{self._name}_{place}": column for place, column in enumerate(self._columns)}


def array_item(column: ColumnElement[Any]) -> TypeEngine[Any]:
    """Return of what type the elements of an array are that is compared with a column: any text is text, without a length."""
    return Text() if isinstance(column.type, String) else column.type


def one_of(
    tx: Transaction, columns: ColumnElement[Any] | tuple[ColumnElement[Any], ...], values: Sequence[Any]
) -> ColumnElement[bool]:
    """Return the condition of `OneOf` with the values in it: for a statement that is made for them."""
    wanted = OneOf("wanted", *(columns if isinstance(columns, tuple) else (columns,)))
    return wanted.condition(tx.dialect, values)


def select_page(
    query: Select[Row], *order: ColumnElement[Any], after: Sequence[Any] | None = None, limit: int | None = None
) -> Select[Row]:
    """Return the query in this order, from behind the row whose columns equal `after`, for at most `limit` rows (None: all)."""
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return query.order_by(*order).limit(limit)
