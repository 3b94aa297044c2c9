"""The one `MetaData` of the catalog and the column kinds that all tables share.

Tables are in `store.tables`; constraints and indexes stand beside the columns they guard.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Dialect, Enum, LargeBinary, MetaData, String
from sqlalchemy.types import TypeDecorator, TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONE_MICROSECOND = timedelta(microseconds=1)


class UtcMicros(TypeDecorator[datetime]):
    """A point in time, kept as whole microseconds since 1970 UTC: exact, and the same on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn an aware datetime into microseconds."""
        return None if value is None else (value - EPOCH) // ONE_MICROSECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Turn microseconds into an aware datetime in UTC."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


def id_type() -> TypeEngine[str]:
    """Return the column type of UUIDs: text, so that they read the same everywhere."""
    return String(36)


def digest_type() -> TypeEngine[bytes]:
    """Return the column type of SHA-256 digests."""
    return LargeBinary(32)


def name_type(length: int) -> TypeEngine[str]:
    """Return the column type of names that are listed in order: compared byte by byte, the same on every database."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def word_type(kind: type[StrEnum], name: str) -> Enum:
    """Return the column type of a fixed set of words: kept as text, checked by the database under the constraint's name."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
        length=16,
        name=name,
        values_callable=lambda words: [word.value for word in words],
    )
