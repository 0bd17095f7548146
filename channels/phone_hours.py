"""Service hours: on which days and at which times people take calls. Pure; wall clock times of one zone.

    mon-fri 09:00-18:00          mon,wed,sat 10:00-14:00          fri-sat 22:00-06:00          mon-sun 00:00-24:00

Times that end before they begin go on into the next day. The clocks' change is the zone's: 09:00 is 09:00 on every day.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(?P<days>[a-z,-]+) (?P<begin>\d\d:\d\d)-(?P<end>\d\d:\d\d)", re.A)
_DAY = 24 * 60
_EXAMPLE = 'write them as "mon-fri 09:00-18:00" or "sat,sun 10:00-14:00"'


@dataclass(frozen=True, slots=True)
class Hours:
    """One line of the settings."""

    #: 0 = Monday
    days: frozenset[int]
    #: minutes after midnight; an `end` at or before `begin` is on the next day
    begin: int
    end: int

    def hold(self, weekday: int, minute: int) -> bool:
        """Whether they are open at a day's minute."""
        if self.end > self.begin:
            return weekday in self.days and self.begin <= minute < self.end
        late = weekday in self.days and minute >= self.begin
        return late or ((weekday - 1) % 7 in self.days and minute < self.end)


def parse(line: str) -> Hours:
    """Raises ValueError with words for who wrote the settings."""
    match = _FORM.fullmatch(line)
    if match is None:
        raise ValueError(f"{line!r} are no service hours: {_EXAMPLE}")
    days: set[int] = set()
    for part in match["days"].split(","):
        days |= _days(part, line)
    begin, end = _minutes(match["begin"], line), _minutes(match["end"], line)
    if begin in (end, _DAY):
        raise ValueError(f"{line!r} are no service hours: they end when they begin (a whole day is 00:00-24:00)")
    return Hours(frozenset(days), begin, end)


def _days(part: str, line: str) -> set[int]:
    """`mon`, `mon-fri`, `sat-mon`."""
    first, dash, last = part.partition("-")
    for name in (first, last) if dash else (first,):
        if name not in DAYS:
            raise ValueError(f"{line!r}: {name!r} is no day; the days are {', '.join(DAYS)}")
    if not dash:
        return {DAYS.index(first)}
    start, length = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7
    return {(start + each) % 7 for each in range(length + 1)}


def _minutes(time: str, line: str) -> int:
    hours, _colon, minutes = time.partition(":")
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > _DAY:
        raise ValueError(f"{line!r}: {time} is no time of a day (00:00 to 24:00)")
    return found


def is_open(hours: Sequence[Hours], zone: ZoneInfo, now: datetime) -> bool:
    """Whether people take calls at an aware moment."""
    local = now.astimezone(zone)
    return any(each.hold(local.weekday(), local.hour * 60 + local.minute) for each in hours)
