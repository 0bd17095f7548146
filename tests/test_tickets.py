"""What people do with tickets: each verb, the table of moves, and the trail that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from domain import (
    MOVES,
    Conflict,
    ForbiddenMove,
    InvalidInput,
    NotFound,
    Priority,
    Role,
    Sentiment,
    TicketState,
)
from nlu.frozen import labelled
from router.tickets import Actor
from settings import Settings
from storage import labels, people
from storage import tickets as stored
from storage.database import Database
from storage.tables import Event, Label, Message, Ticket, table
from tests.reading import answers, event, incoming, on, rows, ticket, trail
from tests.worlds import World, make_world, message

NEW, OPEN, PENDING, RESOLVED, CLOSED = TicketState
LI = Actor("person:li", Role.SUPERVISOR)


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    """One ticket, new, with the acknowledgement queued."""
    made = make_world(database, settings)
    await made.come_in(message("#claim_status=0.8 words of the customer", subject="Claim", key="a@x", channel="mail"))
    return made


async def person(world: World, name: str = "li") -> Actor:
    def unit(connection: Connection) -> int:
        return people.add(connection, name, Role.AGENT, [], "", datetime.now(UTC))

    return Actor(f"person:{name}", Role.AGENT, await world.database.write(unit))


async def lead_to(world: World, state: TicketState) -> None:
    if state is OPEN:
        await lead_to(world, PENDING)
        await on(world.database, world.verbs.reopen, 1, LI)
    elif state in (PENDING, RESOLVED):
        await on(world.database, VERBS[state](world), 1, LI)
    elif state is CLOSED:
        await lead_to(world, RESOLVED)
        await on(world.database, world.verbs.close, 1, LI)
    assert ticket(world.database).state == state


VERBS: dict[TicketState, Callable[[World], Any]] = {
    OPEN: lambda world: world.verbs.reopen,
    PENDING: lambda world: world.verbs.pending,
    RESOLVED: lambda world: world.verbs.resolve("done"),
    CLOSED: lambda world: world.verbs.close,
}


# --- moves ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", list(VERBS))
@pytest.mark.parametrize("origin", list(TicketState))
async def test_a_ticket_goes_where_the_table_lets_it(world: World, origin: TicketState, to: TicketState) -> None:
    await lead_to(world, origin)
    before, told = ticket(world.database), trail(world.database, 1)
    # A new ticket becomes open by being taken or answered; there is nothing to reopen.
    if to in MOVES[origin] and (origin, to) != (NEW, OPEN):
        await on(world.database, VERBS[to](world), 1, LI)
        after = ticket(world.database)
        assert (after.state, after.version) == (to, before.version + 1)
        newest = rows(world.database, Event)[-1]
        assert newest.kind == ("reopened" if (origin, to) == (RESOLVED, OPEN) else "state")
        assert (newest.actor, newest.ticket_id, newest.at) == ("person:li", 1, after.updated_at)
        assert newest.data["from"] == origin
        assert newest.data["to"] == to
    else:
        with pytest.raises(ForbiddenMove, match=f"is {origin}") as refused:
            await on(world.database, VERBS[to](world), 1, LI)
        assert refused.value.status == 409
        assert (ticket(world.database), trail(world.database, 1)) == (before, told)


async def test_resolving_keeps_its_code_and_stops_the_alarms(world: World) -> None:
    await on(world.database, world.verbs.resolve(" paid "), 1, LI)
    row = ticket(world.database)
    assert (row.resolution_code, row.waiting_since, row.look_first, row.alarm) == ("paid", None, False, "")
    assert row.next_alarm_at == row.resolved_at + timedelta(days=7)
    # The code is a person's words: it is erased with the customer, while the trail stays.
    assert "code" not in event(world.database, "state").data
    await on(world.database, world.verbs.reopen, 1, LI)
    row = ticket(world.database)
    assert (row.resolved_at, row.resolution_code) == (None, "")
    with pytest.raises(InvalidInput):
        world.verbs.resolve("x" * 65)


async def test_pending_stops_the_resolution_clock_until_it_goes_on(world: World) -> None:
    await on(world.database, world.verbs.reply("which policy?", then=PENDING), 1, LI)
    paused = ticket(world.database)
    assert (paused.state, paused.next_alarm_at) == ("pending", None)

    def longer(connection: Connection) -> None:
        earlier = paused.paused_at - timedelta(hours=3)
        connection.execute(sa.update(table(Ticket)).values(paused_at=earlier))

    await world.database.write(longer)
    await on(world.database, world.verbs.reopen, 1, LI)
    row = ticket(world.database)
    assert row.paused_at is None
    assert row.resolve_due_at - paused.resolve_due_at == row.updated_at - paused.paused_at + timedelta(hours=3)
    assert row.next_alarm_at is not None


async def test_there_is_no_verb_on_a_ticket_that_is_not(world: World) -> None:
    with pytest.raises(NotFound):
        await on(world.database, world.verbs.pending, 99, LI)


# --- answering --------------------------------------------------------------------------------------------------------


async def test_a_reply_goes_out_on_the_customers_channel(world: World) -> None:
    agent = await person(world)
    await on(world.database, world.verbs.reply(" hello\0 "), 1, agent)
    reply = answers(world.database)[1]
    sent = incoming(world.database, reply.message_id)
    assert (reply.channel, reply.address, reply.kind, reply.automatic) == ("mail", "li@example.com", "reply", False)
    assert (sent.text, sent.subject, sent.author_id) == ("hello\ufffd", "Claim", agent.person_id)
    assert sent.extra == {"keys": ["a@x"]}
    row = ticket(world.database)
    assert (row.state, row.owner_id, row.answered_last, row.waiting_since) == ("open", agent.person_id, True, None)
    assert trail(world.database, 1)[2:] == ["replied", "state"]
    assert event(world.database, "replied").data == {"message": reply.message_id}


async def test_the_first_response_is_the_first_answer_by_a_person_alone(world: World) -> None:
    assert ticket(world.database).first_response_at is None
    await on(world.database, world.verbs.note("for us"), 1, LI)
    assert ticket(world.database).first_response_at is None
    await on(world.database, world.verbs.reply("one"), 1, LI)
    first = ticket(world.database).first_response_at
    assert first is not None
    await on(world.database, world.verbs.reply("two"), 1, LI)
    assert ticket(world.database).first_response_at == first


@pytest.mark.parametrize("then", [PENDING, RESOLVED])
async def test_a_reply_may_change_the_state_in_the_same_step(world: World, then: TicketState) -> None:
    await on(world.database, world.verbs.reply("hello", then=then), 1, LI)
    assert ticket(world.database).state == then
    assert trail(world.database, 1)[2:] == ["replied", "state"]


async def test_a_reply_whose_step_is_forbidden_is_not_sent(world: World) -> None:
    await lead_to(world, RESOLVED)
    with pytest.raises(ForbiddenMove):
        await on(world.database, world.verbs.reply("hello", then=PENDING), 1, LI)
    assert len(answers(world.database)) == 1
    assert ticket(world.database).first_response_at is None


async def test_a_closed_ticket_takes_no_reply(world: World) -> None:
    await lead_to(world, CLOSED)
    with pytest.raises(ForbiddenMove, match="is closed"):
        await on(world.database, world.verbs.reply("hello"), 1, LI)
    assert len(answers(world.database)) == 1


async def test_a_reply_to_less_than_the_customer_said_is_refused(world: World) -> None:
    await world.come_in(message("#claim_status more", key="b@x", thread_keys=("a@x",), channel="mail"))
    newest = max(row.id for row in rows(world.database, Message, direction="in"))
    with pytest.raises(Conflict, match="wrote again"):
        await on(world.database, world.verbs.reply("hello", seen=1), 1, LI)
    await on(world.database, world.verbs.reply("hello", seen=newest), 1, LI)


@pytest.mark.parametrize("text", ["", " \n ", "x" * 50_001])
async def test_no_text_and_endless_text_are_refused(world: World, text: str) -> None:
    for verb in (world.verbs.reply, world.verbs.note):
        with pytest.raises(InvalidInput) as refused:
            verb(text)
        assert refused.value.field == "text"


async def test_a_note_is_found_by_people_and_not_sent(world: World) -> None:
    await on(world.database, world.verbs.note("ask 老王 first"), 1, LI)
    [note] = rows(world.database, Message, direction="note")
    assert (note.text, note.name, note.ticket_id) == ("ask 老王 first", "person:li", 1)
    assert len(answers(world.database)) == 1
    assert event(world.database, "noted").data == {"message": note.id}
    with world.database.reading() as connection:
        assert [row.id for row in stored.listed(connection, q="老王")] == [1]


# --- handing over -----------------------------------------------------------------------------------------------------


async def test_a_transfer_needs_a_department_and_a_reason(world: World) -> None:
    for department, reason, field in (
        ("nowhere", "why", "department"),
        ("billing", " ", "reason"),
        ("billing", "x" * 501, "reason"),
    ):
        with pytest.raises(InvalidInput) as refused:
            world.verbs.transfer(department, reason)
        assert refused.value.field == field


async def test_a_transfer_frees_the_owner_and_keeps_the_customers_due_times(world: World) -> None:
    agent = await person(world)
    await on(world.database, world.verbs.assign("li"), 1, agent)
    before = ticket(world.database)
    await on(world.database, world.verbs.transfer("billing", "about SECRETWORD"), 1, LI)
    row = ticket(world.database)
    assert (row.department, row.owner_id, row.route["rule"]) == ("billing", None, "transferred")
    assert (row.first_due_at, row.resolve_due_at) == (before.first_due_at, before.resolve_due_at)
    moved = event(world.database, "transferred")
    [note] = rows(world.database, Message, direction="note")
    assert moved.data == {"from": "claims", "to": "billing", "note": note.id}
    assert note.text == "about SECRETWORD"
    await on(world.database, world.verbs.transfer("billing", "again"), 1, LI)
    assert ticket(world.database) == row


async def test_assigning_opens_and_freeing_leaves_it_open(world: World) -> None:
    agent = await person(world)
    await on(world.database, world.verbs.assign("li"), 1, LI)
    row = ticket(world.database)
    assert (row.owner_id, row.state) == (agent.person_id, "open")
    assert event(world.database, "assigned").data == {"to": "li"}
    await on(world.database, world.verbs.assign(None), 1, LI)
    assert (ticket(world.database).owner_id, ticket(world.database).state) == (None, "open")
    with pytest.raises(InvalidInput) as refused:
        await on(world.database, world.verbs.assign("nobody"), 1, LI)
    assert refused.value.field == "user"


async def test_the_priority_carries_the_due_time_of_the_resolution(world: World) -> None:
    await on(world.database, world.verbs.prioritise(Priority.URGENT), 1, LI)
    row = ticket(world.database)
    assert (row.priority, row.resolve_due_at) == ("urgent", row.created_at + timedelta(hours=2))
    assert event(world.database, "prioritised").data == {"from": "normal", "to": "urgent"}


async def test_a_closed_ticket_is_left_alone(world: World) -> None:
    await lead_to(world, CLOSED)
    before = ticket(world.database)
    for verb in (
        world.verbs.transfer("billing", "why"), world.verbs.assign(None), world.verbs.prioritise(Priority.LOW),
    ):  # fmt: skip
        with pytest.raises(ForbiddenMove):
            await on(world.database, verb, 1, LI)
    assert ticket(world.database) == before


# --- the triage desk --------------------------------------------------------------------------------------------------


async def test_a_label_moves_the_ticket_and_is_kept_for_training(world: World) -> None:
    await on(world.database, world.verbs.label("invoice_request", "negative", "billing"), 1, LI)
    row = ticket(world.database)
    assert (row.intent, row.sentiment, row.department) == ("invoice_request", "negative", "billing")
    assert (row.look_first, row.route["rule"]) == (False, "labelled")
    assert trail(world.database, 1)[2:] == ["labelled", "transferred"]
    said = event(world.database, "labelled").data
    assert (said["intent"], said["was"], said["said"]) == ("invoice_request", "claim_status", "claim_status")
    with world.database.reading() as connection:
        [kept] = labels.newest(connection)
    example = labelled(kept)
    assert example.text == "Claim\n#claim_status=0.8 words of the customer"
    assert (example.intent, example.sentiment, example.channel) == ("invoice_request", Sentiment.NEGATIVE, "mail")
    assert kept["metadata"]["labelled_by"] == "li"
    assert kept["metadata"]["said"]["intent"] == "claim_status"
    assert kept["metadata"]["said"]["confidence"] == 0.8
    assert kept["metadata"]["said"]["routed_to"] == "claims"


async def test_a_newer_label_supersedes(world: World) -> None:
    await on(world.database, world.verbs.label("invoice_request", "negative", "billing"), 1, LI)
    await on(world.database, world.verbs.label("out_of_scope", "neutral", "triage"), 1, LI)
    assert len(rows(world.database, Label)) == 2
    with world.database.reading() as connection:
        assert [kept["intent"] for kept in labels.newest(connection)] == ["out_of_scope"]
        assert labels.count(connection) == 1
    assert ticket(world.database).department == "triage"


@pytest.mark.parametrize(
    ("intent", "sentiment", "department", "field"),
    [
        ("nonsense", "neutral", "billing", "intent"),
        ("praise", "angry", "billing", "sentiment"),
        ("praise", "neutral", "nowhere", "department"),
    ],
)
async def test_a_label_of_unknown_words_is_refused(
    world: World, intent: str, sentiment: str, department: str, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        world.verbs.label(intent, sentiment, department)
    assert refused.value.field == field


# --- collisions -------------------------------------------------------------------------------------------------------


async def test_a_change_of_an_older_version_is_refused(world: World) -> None:
    row = ticket(world.database)
    await on(world.database, world.verbs.pending, 1, LI)

    def stale(connection: Connection) -> None:
        stored.update(connection, 1, row.version, department="billing")

    with pytest.raises(Conflict):
        await world.database.write(stale)
    assert ticket(world.database).department == "claims"


async def test_what_is_quarantined_is_discarded_only_with_a_reason(world: World) -> None:
    with pytest.raises(InvalidInput):
        world.verbs.discard_quarantined(" ")
    [stored_message] = await world.flow.receive([message("#boom")])
    await world.flow.finish()
    await on(world.database, world.verbs.discard_quarantined("spam"), 1, LI)
    assert event(world.database, "quarantine_discarded").data == {"message": stored_message.message_id}
    for verb in (world.verbs.discard_quarantined("spam"), world.verbs.retry_quarantined):
        with pytest.raises(NotFound):
            await on(world.database, verb, 1, LI)
