"""Due times and the alarms on them. Pure: `now` is an argument.

The first response is the first public answer by a person; acknowledgements and the bot's answers never count. The
resolution clock stands still while a ticket is pending.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain import Priority, TicketState
from router.settings import SlaSettings

FIRST, RESOLVE, CLOSE = "first", "resolve", "close"


@dataclass(frozen=True, slots=True)
class Promises:
    """The due times of one ticket."""

    created_at: datetime
    state: TicketState
    first_due_at: datetime | None
    first_response_at: datetime | None
    resolve_due_at: datetime | None
    resolved_at: datetime | None
    paused_at: datetime | None
    #: alarms that were written, e.g. `first.warned`
    alarms: Collection[str]


def due_times(created_at: datetime, department: str, priority: Priority, sla: SlaSettings) -> tuple[datetime, datetime]:
    """(first response due, resolution due)."""
    by_priority = sla.resolution.get(department, {})
    duration = by_priority.get(priority, sla.resolution["default"][priority])
    return created_at + sla.first_response, created_at + duration


def _warn_time(start: datetime, due: datetime, sla: SlaSettings) -> datetime:
    return start + (due - start) * sla.warn_at


def alarms(promises: Promises, now: datetime, sla: SlaSettings, close_after: timedelta) -> list[str]:
    """The alarms that are due and not yet written, in order of their time."""
    return [name for at, name in _pending(promises, sla, close_after) if at <= now]


def next_alarm(promises: Promises, sla: SlaSettings, close_after: timedelta) -> datetime | None:
    """When the clock must look again: the earliest alarm that is not yet written, or None."""
    pending = _pending(promises, sla, close_after)
    return pending[0][0] if pending else None


def _pending(promises: Promises, sla: SlaSettings, close_after: timedelta) -> list[tuple[datetime, str]]:
    found: list[tuple[datetime, str]] = []
    if promises.state is TicketState.CLOSED:
        return found
    if promises.state is TicketState.RESOLVED:
        if promises.resolved_at is not None:
            found.append((promises.resolved_at + close_after, CLOSE))
        return found
    if promises.first_due_at is not None and promises.first_response_at is None:
        found.extend(_pair(FIRST, promises.created_at, promises.first_due_at, promises, sla))
    if promises.resolve_due_at is not None and promises.paused_at is None:
        found.extend(_pair(RESOLVE, promises.created_at, promises.resolve_due_at, promises, sla))
    return sorted(found)


def _pair(
    name: str, start: datetime, due: datetime, promises: Promises, sla: SlaSettings
) -> list[tuple[datetime, str]]:
    breached = f"{name}.breached"
    if breached in promises.alarms:
        return []
    found = [(due, breached)]
    warned = f"{name}.warned"
    if warned not in promises.alarms:
        found.append((_warn_time(start, due, sla), warned))
    return found
