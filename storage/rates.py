"""What came in and what became of what went out, by hour and channel: for silence and error rates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import InState, OutState
from storage import tallies
from storage.tables import Message, table
from storage.types import literal

HOUR = timedelta(hours=1)
_IN, _OUT = "in:", "out:"
_ERRORS = frozenset({OutState.FAILED.value, OutState.UNKNOWN.value})

message = table(Message)


@dataclass(frozen=True, slots=True)
class Results:
    """What became of a channel's outgoing messages in the last hour or two."""

    done: int
    errors: int

    @property
    def rate(self) -> float:
        """Share of errors, 0 to 1; 0 where nothing went out."""
        return self.errors / self.done if self.done else 0.0


def came(counts: Mapping[str, int]) -> tuple[dict[str, int], timedelta]:
    """Counters of messages that came in by channel, for `tallies.add`."""
    return {f"{_IN}{channel}": n for channel, n in counts.items()}, HOUR


def went(connection: Connection, channel: str, state: str, now: datetime) -> None:
    """One outgoing message came to an end."""
    tallies.add(connection, {f"{_OUT}{channel}:{state}": 1}, now, HOUR)


def arrivals(connection: Connection) -> dict[str, dict[int, int]]:
    """Messages that came in, by channel and hour since 1970."""
    found: dict[str, dict[int, int]] = {}
    for name, hour, n in tallies.by_bucket(connection, _IN, 0):
        found.setdefault(name.removeprefix(_IN), {})[hour] = n
    return found


def results(connection: Connection, now: datetime) -> dict[str, Results]:
    """By channel, of this hour and the one before."""
    sums: dict[str, dict[str, int]] = {}
    for name, _hour, n in tallies.by_bucket(connection, _OUT, int(now.timestamp() // 3600) - 1):
        channel, state = name.removeprefix(_OUT).rsplit(":", 1)
        known = sums.setdefault(channel, {})
        known[state] = known.get(state, 0) + n
    return {
        channel: Results(sum(states.values()), sum(n for state, n in states.items() if state in _ERRORS))
        for channel, states in sums.items()
    }


def oldest_waiting(connection: Connection) -> dict[str, datetime]:
    """When the oldest message was stored that is accepted and not yet ticketed, by channel."""
    # As an expression: SQLite would else group by walking an index of all messages that begins with the channel.
    channel = sa.func.coalesce(message.c.channel, sa.literal_column("''")).label("of")
    query = (
        sa.select(channel, sa.func.min(message.c.stored_at))
        .where(message.c.state == literal("received"))
        .group_by(channel)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def last_in(connection: Connection, channels: Iterable[str]) -> dict[str, datetime]:
    """When these channels last brought a message. Asked by state, so that the index gives each at once."""
    found: dict[str, datetime] = {}
    for channel in channels:
        for state in InState:
            query = sa.select(sa.func.max(message.c.stored_at)).where(
                message.c.direction == literal("in"), message.c.channel == channel, message.c.state == state.value
            )
            at: datetime | None = connection.scalar(query)
            if at is not None:
                found[channel] = max(at, found.get(channel, at))
    return found


def forget(connection: Connection, now: datetime) -> None:
    """Remove what is older than silence looks back."""
    old = int((now - timedelta(days=36)).timestamp() // 3600)
    tallies.forget(connection, _IN, old)
    tallies.forget(connection, _OUT, old)
