"""What every handler asks of a request: ids that look like ids, texts of a sane size, pages."""

import re

from maand_catalog.errors import InvalidArgument, LimitExceeded

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def checked_id(value: str, field: str) -> str:
    """Return a UUID in its canonical form; InvalidArgument for anything else."""
    if not ID.fullmatch(value):
        raise InvalidArgument(f"{field} is not a UUID in canonical form", facts={"field": field})
    return value


def checked_text(value: str, field: str, *, longest: int, required: bool = False) -> str:
    """Return a text of at most `longest` characters without control characters; tabs and line ends are let through."""
    if required and not value:
        raise InvalidArgument(f"{field} is missing", facts={"field": field})
    if len(value) > longest:
        raise LimitExceeded(f"{field} is longer than {longest} characters", facts={"field": field, "limit": longest})
    if CONTROL.search(value):
        raise InvalidArgument(f"{field} contains control characters", facts={"field": field})
    return value


def page_limit(page_size: int, *, usual: int, most: int = 1000) -> int:
    """Return how many to list: the usual number for 0, and never more than the most."""
    return min(page_size or usual, most)


def number_token(page_token: str) -> int | None:
    """Read a page token that is a number; None for the first page."""
    if not page_token:
        return None
    if not (page_token.isascii() and page_token.isdecimal()) or len(page_token) > 18:
        raise InvalidArgument("page_token is not one of ours", help="pass next_page_token of the page before, unchanged")
    return int(page_token)
