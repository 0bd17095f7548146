"""Column types that mean the same on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import JSON, BigInteger, Dialect, Integer
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

from domain import check_aware

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@lru_cache(maxsize=256)
def _microseconds(value: datetime) -> int:
    """Whole microseconds since 1970. A batch writes the same few times over and over."""
    return (value - _EPOCH) // _MICROSECOND


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` on PostgreSQL, whole microseconds since 1970 on SQLite.

    SQLite has no time type, and SQLAlchemy's text form costs five times the CPU of an integer and drops the zone.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        check_aware(value)
        return value if dialect.name == "postgresql" else _microseconds(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return _EPOCH + timedelta(microseconds=value)


#: JSON, and `jsonb` where there is one.
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

#: SQLite gives row ids only to a column of type INTEGER.
RowId = BigInteger().with_variant(Integer(), "sqlite")

#: A Core row: its columns are attributes. SQLAlchemy cannot type them, and ORM objects would cost the hot path dearly.
AnyRow = Any


def literal(word: str) -> sa.ColumnElement[str]:
    """A constant word of ours written into the statement, so that SQLite recognises its partial index."""
    if not word.isidentifier():
        raise ValueError(f"not a plain word: {word!r}")
    return sa.literal_column(f"'{word}'", sa.String)


def tidy(text: str) -> str:
    """Text as every database takes it: no NUL (PostgreSQL refuses it), no lone surrogates (neither can encode them)."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text
