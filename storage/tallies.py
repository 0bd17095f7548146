"""Counters that all processes share: for limits (promise P4) and for /metrics.

A counter is many rows, one a process and time bucket, so that two workers never wait for one another's row; whoever
reads adds them up.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from storage.tables import Tally, table

tally = table(Tally)

_SHARDS = 1024
#: this process's own; not its pid, which is 1 in every container
_SHARD = secrets.randbelow(_SHARDS)
FOREVER = timedelta(0)


def _bucket(now: datetime, width: timedelta) -> int:
    return int(now.timestamp() // width.total_seconds()) if width else 0


def _adding(insert: Any) -> Any:
    statement = insert(tally)
    return statement.on_conflict_do_update(
        index_elements=[tally.c.name, tally.c.bucket], set_={"n": tally.c.n + statement.excluded.n}
    )


_ADD = {"sqlite": _adding(sqlite_insert), "postgresql": _adding(postgresql_insert)}


def add(
    connection: Connection,
    counts: Mapping[str, int],
    now: datetime,
    width: timedelta = FOREVER,
    *more: tuple[Mapping[str, int], timedelta],
) -> None:
    """Add to counters by name. `width`: of the time bucket; without one the counter never starts anew.

    `more`: further counts with their widths, in the same statement.
    """
    rows = [
        {"name": name, "bucket": _bucket(now, each) * _SHARDS + _SHARD, "n": n}
        for some, each in ((counts, width), *more)
        for name, n in some.items()
    ]
    if rows:
        # Sorted, so that two workers never wait for one another crosswise.
        connection.execute(_ADD[connection.dialect.name], sorted(rows, key=lambda row: (row["name"], row["bucket"])))


_READ = (
    sa.select(tally.c.name, sa.func.sum(tally.c.n))
    .where(tally.c.name.in_(sa.bindparam("names", expanding=True)), tally.c.bucket >= sa.bindparam("since"))
    .group_by(tally.c.name)
)


def read(connection: Connection, names: Collection[str], now: datetime, width: timedelta = FOREVER) -> dict[str, int]:
    """Counters of the present bucket, by name; what was never counted is missing."""
    if not names:
        return {}
    wanted = {"names": sorted(names), "since": _bucket(now, width) * _SHARDS}
    return {row[0]: int(row[1]) for row in connection.execute(_READ, wanted)}


def by_bucket(connection: Connection, prefix: str, since: int) -> list[tuple[str, int, int]]:
    """(name, time bucket, count) for all names with a prefix, from a bucket on."""
    bucket = tally.c.bucket // _SHARDS
    query = (
        sa.select(tally.c.name, bucket.label("time"), sa.func.sum(tally.c.n))
        .where(tally.c.name.startswith(prefix, autoescape=True), tally.c.bucket >= since * _SHARDS)
        .group_by(tally.c.name, "time")
    )
    return [(row[0], int(row[1]), int(row[2])) for row in connection.execute(query)]


def starting_with(connection: Connection, prefix: str) -> dict[str, int]:
    """Counters that never start anew, by name, for all names with a prefix."""
    query = (
        sa.select(tally.c.name, sa.func.sum(tally.c.n))
        .where(tally.c.name.startswith(prefix, autoescape=True))
        .group_by(tally.c.name)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def forget(connection: Connection, prefix: str, before: int) -> None:
    """Remove time buckets under a number, of names with a prefix."""
    connection.execute(
        sa.delete(tally).where(tally.c.name.startswith(prefix, autoescape=True), tally.c.bucket < before * _SHARDS)
    )
