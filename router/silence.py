"""Is it unusually quiet on a channel for this hour of the week? Pure.

What came in before is taken as a Poisson process whose rate repeats with the week: the chance that nothing comes while
`expected` messages are usual is exp(-expected). Real traffic comes in bursts, so that quiet is likelier than that; the
bound is set low for it, and a channel must be known for a week.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR = timedelta(hours=1)
WEEKS = 4
#: chance below which a silence is told; at 24 looks a day one false alarm a channel in a century
UNUSUAL = 1e-6
_KNOWN_FOR = timedelta(days=7)
_SHORTEST = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Silence:
    """How long nothing came, and how many messages are usual in such a time."""

    since: datetime
    expected: float

    @property
    def unusual(self) -> bool:
        return math.exp(-self.expected) < UNUSUAL


def silence(hourly: Mapping[int, int], last: datetime | None, now: datetime) -> Silence | None:
    """`hourly`: messages by hour since 1970 (UTC), at least of the last four weeks. None: nothing can be said yet."""
    if last is None or not hourly or now - last < _SHORTEST:
        return None
    first = min(hourly)
    if (now - _start(first)) < _KNOWN_FOR:
        return None
    expected, at = 0.0, last
    while at < now:
        hour = hour_of(at)
        end = min(now, _start(hour + 1))
        expected += _usual(hourly, hour, first) * ((end - at) / HOUR)
        at = end
    return Silence(last, expected)


def _usual(hourly: Mapping[int, int], hour: int, first: int) -> float:
    """Messages in this hour of the week: the mean of the last weeks, over those since the channel is known."""
    known = [hour - 168 * week for week in range(1, WEEKS + 1) if hour - 168 * week >= first]
    return sum(hourly.get(each, 0) for each in known) / len(known) if known else 0.0


def hour_of(at: datetime) -> int:
    return int(at.timestamp() // 3600)


def _start(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * 3600, tz=UTC)
