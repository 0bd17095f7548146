"""What people do with tickets: the verbs. Each is a unit for `Database.write`: all of it happens, or nothing.

Every change is an event with its actor and time, and is made on condition of the ticket's version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from domain import (
    MOVES,
    OUT_OF_SCOPE,
    Conflict,
    ForbiddenMove,
    InvalidInput,
    NotFound,
    Priority,
    Role,
    Sentiment,
    TicketState,
    public_number,
)
from router import sla
from router.desk import Desk, promises
from router.replies import Replies
from storage import events, labels, messages, notes, outbox, people, search, tickets
from storage.customers import Place
from storage.types import AnyRow, tidy

_LONGEST = 50_000


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it: a person of the console, or a program with a token."""

    name: str  # as written in events: `person:li`, `token:crm`
    role: Role
    person_id: int | None = None
    departments: tuple[str, ...] = ()

    def may_see(self, department: str) -> bool:
        """Agents see their departments; supervisors, administrators and tokens of those roles see all."""
        return self.role in (Role.SUPERVISOR, Role.ADMIN) or not self.departments or department in self.departments


class Verbs:
    """The verbs over one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._replies = Replies(desk)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _change(self, connection: Connection, row: AnyRow, now: datetime, **values: Any) -> None:
        changed = _Changed(row, values)
        alarm = sla.next_alarm(promises(changed), self._desk.sla, self._desk.close_after)
        tickets.update(connection, row.id, row.version, updated_at=now, next_alarm_at=alarm, **values)

    def _move(
        self, connection: Connection, row: AnyRow, actor: Actor, now: datetime, to: TicketState, **values: Any
    ) -> None:
        origin = TicketState(row.state)
        if to not in MOVES[origin]:
            raise ForbiddenMove(f"{public_number(row.id)} is {origin}; from there it cannot become {to}.")
        moved = values | {"state": to.value} | self._clock_values(row, origin, to, now)
        self._change(connection, row, now, **moved)
        data: dict[str, Any] = {"from": origin.value, "to": to.value}
        kind = "reopened" if origin is TicketState.RESOLVED and to is TicketState.OPEN else "state"
        events.append(connection, [events.row(kind, actor.name, now, ticket_id=row.id, **data)])

    def _clock_values(self, row: AnyRow, origin: TicketState, to: TicketState, now: datetime) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if to is TicketState.PENDING:
            values["paused_at"] = now
        elif row.paused_at is not None:
            values["paused_at"] = None
            if row.resolve_due_at is not None:
                values["resolve_due_at"] = row.resolve_due_at + (now - row.paused_at)
        if to is TicketState.RESOLVED:
            values |= {"resolved_at": now, "waiting_since": None, "look_first": False, "alarm": ""}
        elif origin is TicketState.RESOLVED and to is not TicketState.CLOSED:
            values |= {"resolved_at": None, "resolution_code": ""}
            if row.resolve_due_at is not None and row.resolved_at is not None:
                values["resolve_due_at"] = row.resolve_due_at + (now - row.resolved_at)
        if to is TicketState.CLOSED:
            values["closed_at"] = now
        return values

    # --- verbs --------------------------------------------------------------------------------------------------------

    def reply(
        self, text: str, *, then: TicketState | None = None, seen: int | None = None, by: Place | None = None
    ) -> Callable[[Connection, int, Actor], None]:
        """A public answer to the customer. `then`: pending or resolved, in the same step.

        `seen`: the newest message that the writer saw; a newer one of the customer raises `Conflict`.
        `by`: another (channel, address) of the customer to answer to; the ticket's own without. Raises `NoWay` where
        that cannot carry an answer now.
        """
        text = checked(text)

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            now = datetime.now(UTC)
            row = tickets.lock_one(connection, ticket_id)
            if row.state == TicketState.CLOSED:
                raise ForbiddenMove(
                    f"{public_number(row.id)} is closed; a new message of the customer opens a new one."
                )
            if not row.address:
                raise ForbiddenMove("The customer was erased; there is no address to answer to.")
            if seen is not None:
                notes.check_newest(connection, ticket_id, seen)
            place = self._replies.chosen(connection, row, by)
            self._replies.check(connection, row, place, text)
            message_id = self._replies.queue(connection, row, place, actor.person_id, text, now)
            values: dict[str, Any] = {"answered_last": True, "waiting_since": None, "look_first": False}
            if row.first_response_at is None:
                values["first_response_at"] = now
            if row.owner_id is None and actor.person_id is not None:
                values["owner_id"] = actor.person_id
            elsewhere = {"channel": place[0]} if place != (row.channel, row.address) else {}
            trail = [events.row("replied", actor.name, now, ticket_id=row.id, message=message_id, **elsewhere)]
            if place[0] in self._desk.pulled:
                trail.append(outbox.sent_event(message_id, row.id, "reply", now))
            if row.state == TicketState.NEW and then is None:
                values["state"] = TicketState.OPEN.value
                trail.append(
                    events.row("state", actor.name, now, ticket_id=row.id, **{"from": row.state, "to": "open"})
                )
            self._change(connection, row, now, **values)
            events.append(connection, trail)
            if then is not None and row.state != then.value:
                self._move(connection, tickets.lock_one(connection, ticket_id), actor, now, then)

        return verb

    def send_again(self, message_id: int) -> Callable[[Connection, int, Actor], None]:
        """An answer that was not sent goes to the outbox once more, under the same key."""

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            now = datetime.now(UTC)
            if messages.get(connection, message_id).ticket_id != ticket_id:
                raise NotFound("This answer is not of this ticket.")
            if not outbox.requeue(connection, message_id, now):
                raise Conflict("It is on its way already, or it is the bot's.")
            row = events.row("requeued", actor.name, now, ticket_id=ticket_id, message=message_id)
            events.append(connection, [row])

        return verb

    def note(self, text: str) -> Callable[[Connection, int, Actor], None]:
        """An internal note: the customer never sees it."""
        text = checked(text)

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            now = datetime.now(UTC)
            row = tickets.lock_one(connection, ticket_id)
            message_id = notes.add(connection, row, actor.person_id, actor.name, text, now)
            search.add(connection, [{"message_id": message_id, "ticket_id": row.id, "terms": search.terms(text)}])
            events.append(connection, [events.row("noted", actor.name, now, ticket_id=row.id, message=message_id)])

        return verb

    def transfer(self, department: str, reason: str) -> Callable[[Connection, int, Actor], None]:
        """Hand the ticket to another department; its owner is freed, its due times stay the customer's."""
        if department not in self._desk.taxonomy.departments:
            known = ", ".join(self._desk.taxonomy.departments)
            raise InvalidInput("department", f"There is no department {department!r}. Known: {known}.")
        reason = tidy(reason).strip()
        if not reason:
            raise InvalidInput("reason", "Say why, so that the next department need not guess.")
        if len(reason) > 500:
            raise InvalidInput("reason", "500 characters at most.")

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            now = datetime.now(UTC)
            row = tickets.lock_one(connection, ticket_id)
            _unclosed(row)
            if row.department == department:
                return
            note_id = notes.add(connection, row, actor.person_id, actor.name, reason, now)
            route = {"rule": "transferred", "by": actor.name, "from": row.department}
            self._change(connection, row, now, department=department, owner_id=None, look_first=False, route=route)
            data = {"from": row.department, "to": department, "note": note_id}
            events.append(connection, [events.row("transferred", actor.name, now, ticket_id=row.id, **data)])

        return verb

    def assign(self, user: str | None) -> Callable[[Connection, int, Actor], None]:
        """Give the ticket to a person by name; None frees it."""

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            now = datetime.now(UTC)
            row = tickets.lock_one(connection, ticket_id)
            _unclosed(row)
            owner_id = None
            if user is not None:
                try:
                    owner_id = people.named(connection, user).id
                except NotFound as error:
                    raise InvalidInput("user", str(error)) from error
            values: dict[str, Any] = {"owner_id": owner_id}
            trail = [events.row("assigned", actor.name, now, ticket_id=row.id, to=user)]
            if owner_id is not None and row.state == TicketState.NEW:
                values["state"] = TicketState.OPEN.value
                trail.append(
                    events.row("state", actor.name, now, ticket_id=row.id, **{"from": row.state, "to": "open"})
                )
            self._change(connection, row, now, **values)
            events.append(connection, trail)

        return verb

    def prioritise(self, priority: Priority) -> Callable[[Connection, int, Actor], None]:
        """Set the priority; the resolution's due time follows it, the alarms already written stay."""

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            now = datetime.now(UTC)
            row = tickets.lock_one(connection, ticket_id)
            _unclosed(row)
            _first, before = sla.due_times(row.created_at, row.department, Priority(row.priority), self._desk.sla)
            _first, after = sla.due_times(row.created_at, row.department, priority, self._desk.sla)
            # The difference alone: what the clock stood still stays granted.
            due = row.resolve_due_at + (after - before) if row.resolve_due_at else None
            self._change(connection, row, now, priority=priority.value, resolve_due_at=due)
            data = {"from": row.priority, "to": priority.value}
            events.append(connection, [events.row("prioritised", actor.name, now, ticket_id=row.id, **data)])

        return verb

    def pending(self, connection: Connection, ticket_id: int, actor: Actor) -> None:
        """Wait for the customer."""
        self._move(connection, tickets.lock_one(connection, ticket_id), actor, datetime.now(UTC), TicketState.PENDING)

    def resolve(self, code: str) -> Callable[[Connection, int, Actor], None]:
        code = tidy(code).strip()
        if len(code) > 64:
            raise InvalidInput("code", "64 characters at most.")

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            row = tickets.lock_one(connection, ticket_id)
            self._move(connection, row, actor, datetime.now(UTC), TicketState.RESOLVED, resolution_code=code)

        return verb

    def close(self, connection: Connection, ticket_id: int, actor: Actor) -> None:
        self._move(connection, tickets.lock_one(connection, ticket_id), actor, datetime.now(UTC), TicketState.CLOSED)

    def reopen(self, connection: Connection, ticket_id: int, actor: Actor) -> None:
        row = tickets.lock_one(connection, ticket_id)
        if row.state == TicketState.NEW:  # becomes open by being taken or answered
            raise ForbiddenMove(f"{public_number(row.id)} is new; there is nothing to reopen.")
        self._move(connection, row, actor, datetime.now(UTC), TicketState.OPEN)

    # --- the triage desk ----------------------------------------------------------------------------------------------

    def label(self, intent: str, sentiment: str, department: str) -> Callable[[Connection, int, Actor], None]:
        """A supervisor says what the message really was: the ticket moves, and the label is kept for training."""
        taxonomy = self._desk.taxonomy
        if intent != OUT_OF_SCOPE and intent not in taxonomy.intents:
            raise InvalidInput("intent", f"There is no intent {intent!r}.")
        if department not in taxonomy.departments:
            raise InvalidInput("department", f"There is no department {department!r}.")
        try:
            mood = Sentiment(sentiment)
        except ValueError as error:
            raise InvalidInput("sentiment", "negative, neutral or positive.") from error

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            now = datetime.now(UTC)
            row = tickets.lock_one(connection, ticket_id)
            message = tickets.first_message(connection, ticket_id)
            if message is None:
                raise NotFound("The ticket's first message was erased; there is nothing to label.")
            said = message.tags or {}
            labels.add(
                connection, message_id=message.id, ticket_id=row.id, person=actor.name.removeprefix("person:"), at=now,
                intent=intent, department=department, sentiment=mood.value,
                said={name: said.get(name) for name in ("intent", "confidence", "sentiment", "department", "model")}
                | {"routed_to": row.department},
            )  # fmt: skip
            values: dict[str, Any] = {"intent": intent, "sentiment": mood.value, "look_first": False}
            trail = [
                events.row(
                    "labelled", actor.name, now, ticket_id=row.id, intent=intent, department=department,
                    sentiment=mood.value, was=row.intent, said=said.get("intent"),
                )
            ]  # fmt: skip
            if row.department != department and row.state != TicketState.CLOSED:
                values |= {
                    "department": department,
                    "owner_id": None,
                    "route": {"rule": "labelled", "by": actor.name, "from": row.department},
                }
                data = {"from": row.department, "to": department}
                trail.append(events.row("transferred", actor.name, now, ticket_id=row.id, **data))
            self._change(connection, row, now, **values)
            events.append(connection, trail)

        return verb

    # --- what did not become a ticket ---------------------------------------------------------------------------------

    def ticket_from_automatic(self, connection: Connection, message_id: int, actor: Actor) -> None:
        """One click makes a ticket of kept automatic mail: it goes the usual way again, as if a person wrote it."""
        notes.revive(connection, message_id, "automatic")
        now = datetime.now(UTC)
        events.append(connection, [events.row("automatic_revived", actor.name, now, message=message_id)])

    def retry_quarantined(self, connection: Connection, quarantine_id: int, actor: Actor) -> int:
        """Try again; the message id to ring for. What was never readable is parsed anew by the caller."""
        message_id = notes.leave_quarantine(connection, quarantine_id, "retried")
        notes.revive(connection, message_id, "quarantined")
        now = datetime.now(UTC)
        events.append(connection, [events.row("quarantine_retried", actor.name, now, message=message_id)])
        return message_id

    def discard_quarantined(self, reason: str) -> Callable[[Connection, int, Actor], None]:
        """Take it off the list with a reason; the message and its raw stay."""
        reason = tidy(reason).strip()
        if not reason:
            raise InvalidInput("reason", "Say why it may go.")

        def verb(connection: Connection, quarantine_id: int, actor: Actor) -> None:
            message_id = notes.leave_quarantine(connection, quarantine_id, f"discarded: {reason[:400]}")
            now = datetime.now(UTC)
            events.append(connection, [events.row("quarantine_discarded", actor.name, now, message=message_id)])

        return verb


class _Changed:
    """A ticket's row as it will be."""

    def __init__(self, row: AnyRow, values: dict[str, Any]) -> None:
        self._row = row
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return self._values[name] if name in self._values else getattr(self._row, name)


def checked(text: str) -> str:
    """A text to be kept. Raises `InvalidInput`."""
    text = tidy(text).strip()
    if not text:
        raise InvalidInput("text", "There is no text.")
    if len(text) > _LONGEST:
        raise InvalidInput("text", f"{_LONGEST} characters at most; this has {len(text)}.")
    return text


def _unclosed(row: AnyRow) -> None:
    if row.state == TicketState.CLOSED:
        raise ForbiddenMove(f"{public_number(row.id)} is closed.")
