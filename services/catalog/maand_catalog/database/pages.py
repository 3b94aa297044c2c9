"""Pages of a listing: ordered by columns that name a row, begun after the last row of the page before."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, tuple_

Row = TypeVar("Row", bound=tuple[Any, ...])


def select_page(
    query: Select[Row], *order: ColumnElement[Any], after: Sequence[Any] | None = None, limit: int | None = None
) -> Select[Row]:
    """Return the query in this order, from behind the row whose columns equal `after`, for at most `limit` rows (None: all)."""
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return query.order_by(*order).limit(limit)
