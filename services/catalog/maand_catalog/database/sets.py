"""Finding many rows at once, in the form each database plans best.

SQLite searches its index for each element of an IN list. PostgreSQL would plan a long list anew each time (6 ms for 64 pairs);
given as arrays the statement is always the same text, planned once. Both are made once for each database, with parameters.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Text, any_, bindparam, func, select, tuple_
from sqlalchemy.dialects.postgresql import ARRAY

T = TypeVar("T")

DIALECTS = ("sqlite", "postgresql")


def in_chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


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
