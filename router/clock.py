"""The clock: rows past due. Any number of clocks may run, since each alarm is claimed by a conditional update."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from domain import Conflict, Priority, TicketState, Unavailable
from router import sla
from router.desk import Desk, promises
from router.flow import pause
from storage import erase, events, identity, rates, tallies, tickets, told
from storage.database import Database
from storage.types import AnyRow

log = structlog.get_logger("clock")

_EVERY = 1.0
_TIDY_EVERY = 600.0
_DAY = timedelta(days=1)
_STRANGE = timedelta(days=30)  # a provider says nothing of a message for longer


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Clock:
    """Writes `warned` and `breached` once per due time, closes what was resolved long ago, forgets what is too old."""

    def __init__(
        self, database: Database, desk: Desk, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._desk = desk
        self._now = now

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop`."""
        loop = asyncio.get_running_loop()
        tidied = loop.time() - _TIDY_EVERY + 30
        while not stop.is_set():
            try:
                while await self.tick():
                    pass
                if loop.time() - tidied > _TIDY_EVERY:
                    tidied = loop.time()
                    await self.tidy()
            except Unavailable:
                log.warning("database_unavailable")
            await pause(stop, _EVERY)

    async def tick(self) -> int:
        """Write the alarms that are due now; how many tickets were touched."""
        now = self._now()
        due = await self._database.read(lambda connection: tickets.claim_alarms(connection, now))
        touched = 0
        for row in due:
            # Another clock that was faster, or a person who changed the ticket: the next tick looks again.
            with suppress(Conflict):
                await self._database.write(partial(self._ring, row=row, now=now))
                touched += 1
        return touched

    def _ring(self, connection: Connection, row: AnyRow, now: datetime) -> None:
        state = promises(row)
        alarms = sla.alarms(state, now, self._desk.sla, self._desk.close_after)
        values: dict[str, object] = {}
        trail = []
        if sla.CLOSE in alarms:
            values = {"state": TicketState.CLOSED.value, "closed_at": now, "next_alarm_at": None}
            data = {"from": row.state, "to": TicketState.CLOSED.value}
            trail.append(events.row("state", "clock", now, ticket_id=row.id, **data))
        else:
            # What is both nearly late and late by the time the clock runs is late: one alarm, not two.
            written = [
                name for name in alarms if not (name.endswith(".warned") and f"{name.split('.')[0]}.breached" in alarms)
            ]
            for name in written:
                promise, what = name.split(".")
                trail.append(events.row(what, "clock", now, ticket_id=row.id, promise=promise))
            values["alarms"] = [*row.alarms, *alarms]
            if any(name.endswith(".breached") for name in written):
                values["priority"] = Priority(row.priority).raised().value
                values["alarm"] = "breached"
            elif row.alarm == "" and written:
                values["alarm"] = "warned"
            after = sla.Promises(
                created_at=state.created_at, state=state.state, first_due_at=state.first_due_at,
                first_response_at=state.first_response_at, resolve_due_at=state.resolve_due_at,
                resolved_at=state.resolved_at, paused_at=state.paused_at, alarms=[*state.alarms, *alarms],
            )  # fmt: skip
            values["next_alarm_at"] = sla.next_alarm(after, self._desk.sla, self._desk.close_after)
        tickets.update(connection, row.id, row.version, updated_at=now, **values)
        events.append(connection, trail)

    async def tidy(self) -> None:
        """Forget what is older than `retention` keeps, a few rows at a time."""
        now = self._now()
        keep = self._desk.retention
        if (raw := keep.raw) is not None:
            while await self._database.write(lambda connection: erase.old_raw(connection, now - raw)):
                pass
        if (automatic := keep.automatic) is not None:
            while await self._database.write(lambda connection: erase.old_automatic(connection, now - automatic)):
                pass
        if (closed := keep.closed) is not None:
            gone = await self._database.read(lambda connection: erase.closed_customers(connection, now - closed))
            for customer_id in gone:
                await self._database.write(
                    partial(
                        erase.customer_if_closed, customer_id=customer_id, before=now - closed, now=now, actor="clock"
                    )
                )
            if gone:
                await asyncio.to_thread(erase.compact, self._database)

        def small(connection: Connection) -> None:
            erase.old_answers(connection, now - _DAY)
            identity.forget_codes(connection, now - _DAY)
            day = int(now.timestamp() // _DAY.total_seconds())
            tallies.forget(connection, "domain:", day - 1)
            rates.forget(connection, now)
            told.forget(connection, now - _STRANGE)
            tallies.forget(connection, "automatic", int(now.timestamp() // 600) - 1)

        await self._database.write(small)
