"""The write of `flow.process`: tagged messages become tickets, parts of tickets, or kept automatic mail.

One call writes a whole batch by multi-row statements. It reads threads and tickets under lock, decides in memory, then
writes; what another worker changed meanwhile raises `Conflict`, and the batch is redone message by message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from domain import (
    TRIAGE,
    AutomaticKind,
    InState,
    Priority,
    Risk,
    Route,
    Sentiment,
    Tags,
    TicketState,
    ticket_id_of,
)
from router import identity, sla, status
from router.answers import Answers
from router.desk import Desk, higher, promises
from router.intake_values import (
    Item,
    Outcome,
    Prepared,
    Target,
    View,
    bare_subject,
    lags,
    lookup_keys,
    new_ticket,
    reacts,
    said,
    says_nothing,
    search_terms,
    snippet,
)
from storage import customers, events, messages, outbox, rates, search, tickets
from storage.customers import Known

#: tickets' numbers of a text that are looked up
_MOST_NAMED = 3
#: a picture without words, a call that has just begun: people see it, and the first words decide
_NOTHING_SAID = Route(department=TRIAGE, priority=Priority.NORMAL, look_first=True, rule="triage.nothing_said", why={})


class Intake:
    """`apply` is a batch call for `Database.write_batch`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def apply(self, connection: Connection, prepared: Sequence[Prepared]) -> list[Outcome]:
        now = datetime.now(UTC)
        alive = messages.lock_waiting(connection, [each.row.id for each in prepared])
        # Merged batches may name a message twice; it is handled, and told of, once.
        once = {each.row.id: each for each in prepared if each.row.id in alive}
        items = [Item(each, lookup_keys(each.row)) for each in once.values()]
        batch = _Batch(connection, self._desk, items, now)
        batch.decide()
        batch.write()
        done = {
            item.prepared.row.id: Outcome(
                item.prepared.row.id,
                item.state,
                item.ticket_id,
                item.prepared.row.channel,
                (now - item.prepared.row.stored_at).total_seconds(),
            )
            for item in items
        }
        return [done.pop(each.row.id, Outcome(each.row.id, None)) for each in prepared]


class _Batch:
    def __init__(self, connection: Connection, desk: Desk, items: list[Item], now: datetime) -> None:
        self._connection = connection
        self._desk = desk
        self._items = items
        self._now = now
        #: opened or changed, in order
        self._targets: list[Target] = []
        self._events: list[dict[str, Any]] = []

        rows = [item.prepared.row for item in items]
        written = [item.prepared for item in items if item.prepared.route is not None]
        people = {
            (each.row.channel, each.row.address): (each.row.name, each.tags.language.value if each.tags else "")
            for each in written
        }
        # First the addresses, locked: nobody joins or parts their customers while this decides.
        customers.lock(connection, {(row.channel, row.address) for row in rows if row.answerable} | people.keys())
        self._people: dict[tuple[str, str], Known] = customers.ensure(connection, people, now) if people else {}
        identity.join_new(connection, self._people, written, now)
        #: messages that were a code, and the ticket that it was asked for on
        self._coded = identity.hear_codes(connection, self._people, written, now)

        self._known = tickets.by_threads(connection, {key for item in items for key in item.keys})
        hints = {
            found
            for item in items
            if (hint := (item.prepared.row.extra or {}).get("ticket_hint"))
            and (found := ticket_id_of(hint)) is not None
            and found < 2**62
        }
        self._named = {item.prepared.row.id: status.numbers(item.prepared.row.text) for item in items}
        hints |= {ticket_id for named in self._named.values() for ticket_id in named[:_MOST_NAMED]}
        hints |= set(self._coded.values())
        self._rows = tickets.lock(connection, set(self._known.values()) | hints)
        self._by_id: dict[int, Target] = {}
        #: where a thread key leads, in this batch
        self._led: dict[str, Target] = {}
        for key, ticket_id in self._known.items():
            self._led[key] = self._existing(ticket_id)
        self._answers = Answers(connection, desk, rows, now)

    def _existing(self, ticket_id: int) -> Target:
        if ticket_id not in self._by_id:
            self._by_id[ticket_id] = Target(self._rows[ticket_id], {}, ticket_id)
        return self._by_id[ticket_id]

    # --- deciding -----------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        for item in self._items:
            if item.prepared.route is None:
                self._keep_automatic(item)
                continue
            known = self._people[item.prepared.row.channel, item.prepared.row.address]
            item.customer_id = known.customer_id
            target = self._find(item)
            if target is None or target.get("state") == TicketState.CLOSED or self._new_matter(item, target):
                self._open(item, known, linked=target)
            else:
                self._join(item, target)

    def _find(self, item: Item) -> Target | None:
        own = [each for each in self._named[item.prepared.row.id] if self._is_own(each, item)]
        item.asks = status.asks(said(item.prepared.row), named=bool(own))
        if item.asks and own:
            return self._existing(own[0])
        for key in item.keys:
            if key in self._led:
                return self._led[key]
        hint = (item.prepared.row.extra or {}).get("ticket_hint")
        ticket_id = ticket_id_of(hint) if hint else None
        # A number can be guessed: it is believed only of the ticket's own customer.
        for named in [ticket_id, *own, self._coded.get(item.prepared.row.id)]:
            if named is not None and self._is_own(named, item):
                return self._existing(named)
        return None

    def _is_own(self, ticket_id: int, item: Item) -> bool:
        return ticket_id in self._rows and self._rows[ticket_id].customer_id == item.customer_id

    def _new_matter(self, item: Item, target: Target) -> bool:
        """The thread goes on, but clearly about something else."""
        row, tags = item.prepared.row, item.prepared.tags
        if tags is None or (row.thread and row.channel in ("api", "ingest")):
            return False  # a program that names a thread means it
        clearly = (
            self._desk.rules.trusted(tags)
            and tags.confidence >= self._desk.rules.new_matter_confidence
            and tags.department not in (target.get("department"), "customer_service")
            and tags.intent != target.get("intent")
        )
        if row.channel == "mail":
            return clearly and bare_subject(row.subject) != bare_subject(target.get("subject"))
        return clearly and target.get("state") == TicketState.RESOLVED

    def _open(self, item: Item, known: Known, linked: Target | None) -> None:
        row, tags, route = item.prepared.row, item.prepared.tags, item.prepared.route
        assert tags is not None
        assert route is not None
        if says_nothing(row):
            route = _NOTHING_SAID
        first_due, resolve_due = sla.due_times(row.stored_at, route.department, route.priority, self._desk.sla)
        risk = [flag.value for flag in tags.risk]
        target = Target(None, new_ticket(row, known.customer_id, tags, route, (first_due, resolve_due), self._now))
        target.values["next_alarm_at"] = self._next_alarm(target)
        data = {
            "message": row.id,
            "department": route.department,
            "priority": route.priority.value,
            "intent": tags.intent,
            "confidence": round(tags.confidence, 4),
            "rule": route.rule,
            "look_first": route.look_first,
            "alert": route.alert,
            "risk": risk,
        }
        if linked is not None:
            target.linked = linked
            target.values["linked_id"] = data["linked"] = linked.id or None
        target.events.append(("opened", data))
        self._targets.append(target)
        self._lead(item, target)
        item.state, item.target = InState.TICKETED, target
        if says_nothing(row):
            return  # the receipt names the department, so that it waits for the first words
        self._acknowledge(item, target, known, tags)

    def _acknowledge(self, item: Item, target: Target, known: Known, tags: Tags) -> None:
        row = item.prepared.row
        kind = "care" if Risk.SELF_HARM in tags.risk else "acknowledgement"
        item.answer = self._answers.to(row, kind, known, tags.language.value)
        if item.answer.held:
            target.events.append(("answer_held", {"reason": item.answer.held, "kind": kind}))

    def _join(self, item: Item, target: Target) -> None:
        row, tags = item.prepared.row, item.prepared.tags
        assert tags is not None
        target.events.append(("appended", {"message": row.id, "intent": tags.intent, "risk": list(tags.risk)}))
        if target.get("route").get("rule") == _NOTHING_SAID.rule and not says_nothing(row):
            self._first_words(item, target, tags)
        if reacts(row):
            self._keep(item, target)
            return
        state = target.get("state")
        if state in (TicketState.RESOLVED, TicketState.PENDING):
            due, resolved = target.get("resolve_due_at"), target.get("resolved_at")
            if due is not None and resolved is not None:
                target.change(resolve_due_at=due + (self._now - resolved))
            target.change(state=TicketState.OPEN.value, resolved_at=None, resolution_code="")
            kind = "reopened" if state == TicketState.RESOLVED else "state"
            target.events.append((kind, {"from": state, "to": TicketState.OPEN.value}))
        if (paused := target.get("paused_at")) is not None:
            due = target.get("resolve_due_at")
            target.change(paused_at=None, resolve_due_at=due + (self._now - paused) if due else None)
        if (waiting := target.get("waiting_since")) is None or target.get("answered_last"):
            waiting = row.stored_at
        target.change(
            waiting_since=waiting,
            answered_last=False,
            snippet=snippet(row) or target.get("snippet"),
            updated_at=self._now,
        )
        if tags.sentiment is Sentiment.NEGATIVE:
            target.change(sentiment=tags.sentiment.value)
        self._note_risk(item, target, tags)
        if item.asks and item.answer is None:
            self._tell_status(item, target, tags)
        if target.row is not None:
            target.change(next_alarm_at=self._next_alarm(target))
        self._keep(item, target)

    def _keep(self, item: Item, target: Target) -> None:
        if target not in self._targets:
            self._targets.append(target)
        self._lead(item, target)
        item.state, item.target = InState.APPENDED, target

    def _first_words(self, item: Item, target: Target, tags: Tags) -> None:
        """A ticket that a picture or a ringing phone opened: now it is said what it is about."""
        row, route = item.prepared.row, item.prepared.route
        assert route is not None
        first_due, resolve_due = sla.due_times(
            target.get("created_at"), route.department, route.priority, self._desk.sla
        )
        before = target.get("department")
        target.change(
            department=route.department,
            priority=route.priority.value,
            intent=tags.intent,
            sentiment=tags.sentiment.value,
            language=tags.language.value,
            risk=[flag.value for flag in tags.risk],
            tags=list(route.tags),
            route={"rule": route.rule, **route.why},
            look_first=route.look_first,
            alarm="alert" if route.alert else target.get("alarm"),
            first_due_at=first_due,
            resolve_due_at=resolve_due,
        )
        data = {"from": before, "to": route.department, "rule": route.rule, "message": row.id}
        target.events.append(("transferred", data))
        self._acknowledge(item, target, self._people[row.channel, row.address], tags)

    def _tell_status(self, item: Item, target: Target, tags: Tags) -> None:
        row = item.prepared.row
        known = self._people[row.channel, row.address]
        place = target.get("address")
        item.answer = self._answers.to(row, "status", known, tags.language.value, target.id, place=place)
        if item.answer.held:
            target.events.append(("answer_held", {"reason": item.answer.held, "kind": "status"}))

    def _note_risk(self, item: Item, target: Target, tags: Tags) -> None:
        """A later message may be the one that says that somebody is in danger."""
        new = [flag for flag in tags.risk if flag.value not in target.get("risk")]
        if not new:
            return
        route = item.prepared.route
        assert route is not None
        target.change(
            risk=[*target.get("risk"), *(flag.value for flag in new)],
            priority=higher(target.get("priority"), route.priority).value,
            look_first=True,
            alarm="alert",
        )
        target.events.append(("risk", {"message": item.prepared.row.id, "risk": [flag.value for flag in new]}))
        if Risk.SELF_HARM in new:
            if target.get("department") != route.department:
                target.events.append(
                    ("transferred", {"from": target.get("department"), "to": route.department, "rule": route.rule})
                )
                target.change(department=route.department, owner_id=None, route={"rule": route.rule, **route.why})
            known = self._people[item.prepared.row.channel, item.prepared.row.address]
            language, place = tags.language.value, target.get("address")
            item.answer = self._answers.to(item.prepared.row, "care", known, language, target.id, place=place)
            if item.answer.held:
                target.events.append(("answer_held", {"reason": item.answer.held, "kind": "care"}))

    def _lead(self, item: Item, target: Target) -> None:
        """Let all keys of the message lead to the ticket from now on.

        What leads to another matter that goes on stays there, unless it is the one thread of a chat or a program.
        """
        for key in item.keys:
            led = self._led.get(key)
            taken = led is not None and led.get("state") != TicketState.CLOSED and not item.prepared.row.thread
            if led is not target and not taken:
                self._led[key] = target
                target.threads.add(key)

    def _next_alarm(self, target: Target) -> datetime | None:
        view = View(target)
        return sla.next_alarm(promises(view), self._desk.sla, self._desk.close_after)

    def _keep_automatic(self, item: Item) -> None:
        """A machine wrote it: kept, recorded where it belongs, never answered, and it changes no ticket's state."""
        row = item.prepared.row
        extra = row.extra or {}
        kind = AutomaticKind(row.automatic)
        item.state = InState.AUTOMATIC
        if kind in (AutomaticKind.BOUNCE, AutomaticKind.REPORT):
            # The nearest alone: a report also names the earlier messages of its thread, which arrived.
            keys = extra.get("concerns", [])
            ours = {each.key: each for each in outbox.by_keys(self._connection, row.channel, row.account, keys)}
            for sent in [ours[key] for key in keys if key in ours][:1]:
                item.ticket_id = sent.ticket_id
                if kind is AutomaticKind.BOUNCE:
                    outbox.bounced(self._connection, sent, row.reason or "", self._now)
                    if extra.get("permanent"):
                        customers.suppress(
                            self._connection,
                            row.channel,
                            sent.address,
                            "bounced",
                            customer_id=sent.customer_id,
                            now=self._now,
                        )
        else:
            found = next((self._led[key] for key in item.keys if key in self._led), None)
            if found is not None and found.id:
                item.ticket_id = found.id
        if item.ticket_id is not None:
            target_row = self._rows.get(item.ticket_id)
            item.customer_id = target_row.customer_id if target_row is not None else None
            self._events.append(
                events.row(
                    "automatic_mail", "bot", self._now, ticket_id=item.ticket_id, message=row.id, automatic=kind.value
                )
            )
        self._answers.note_automatic(row.address)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        connection, now = self._connection, self._now
        new = [target for target in self._targets if target.row is None]
        for target, ticket_id in zip(new, tickets.insert(connection, [each.values for each in new]), strict=True):
            target.id = ticket_id
        for target in new:
            if target.linked is not None and target.values["linked_id"] is None:  # both are of this batch
                target.events[0][1]["linked"] = target.linked.id
                tickets.update(connection, target.id, target.values["version"], linked_id=target.linked.id)
        for target in self._targets:
            if target.row is not None:
                tickets.update(connection, target.id, target.row.version, **target.values)
        keys = {key: target.id for target in self._targets for key in target.threads if self._led[key] is target}
        answers: list[tuple[Item, dict[str, Any]]] = []
        for item in self._items:
            if item.target is None:
                continue
            item.ticket_id = item.target.id
            if item.answer is not None and not item.answer.held:
                row = self._answers.compose(item.answer, item.target.id, item.target, item.customer_id)
                answers.append((item, row))
                for address in {item.prepared.row.address, row["address"]}:
                    keys[tickets.thread_key(row["channel"], address, row["key"])] = item.target.id
        tickets.add_threads(connection, keys, known=self._known)
        for target in self._targets:
            for kind, data in target.events:
                self._events.append(events.row(kind, "bot", now, ticket_id=target.id, **data))
        ids = outbox.queue(connection, [row for _item, row in answers], now, pulled=self._desk.pulled)
        for (item, row), message_id in zip(answers, ids, strict=True):
            self._events.append(events.row(row["kind"], "bot", now, ticket_id=item.ticket_id, message=message_id))
            if row["channel"] in self._desk.pulled:
                self._events.append(outbox.sent_event(message_id, item.ticket_id, row["kind"], now))
        events.append(connection, self._events)
        messages.finish(
            connection,
            [
                {
                    "b_id": item.prepared.row.id,
                    "state": item.state.value,
                    "ticket_id": item.ticket_id,
                    "customer_id": item.customer_id,
                    "tags": item.prepared.tags.to_json() if item.prepared.tags else None,
                }
                for item in self._items
            ],
        )
        search.add(
            connection,
            [
                {
                    "message_id": item.prepared.row.id,
                    "ticket_id": item.ticket_id,
                    "terms": search_terms(item.prepared.row),
                }
                for item in self._items
                if item.ticket_id is not None
            ],
        )
        came = Counter(item.prepared.row.channel for item in self._items)
        self._answers.count(lags(self._items, self._now), rates.came(came))
