"""Which ticket a message belongs to: by References and sender, by the thread that a program named, by session."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from domain import Language, Message, Role, TicketState, public_number
from router.tickets import Actor
from settings import Settings
from storage.database import Database
from storage.tables import Outbox, Ticket, table
from tests.reading import answers, event, incoming, on, rows, ticket, tickets, trail
from tests.worlds import World, make_world, message

LI = Actor("person:li", Role.SUPERVISOR)


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return make_world(database, settings)


def mail(text: str = "#claim_status", **values: Any) -> Message:
    return message(text, **({"channel": "mail", "account": "mail", "subject": "My claim"} | values))


def ticket_ids(outcomes: list[Any]) -> list[int | None]:
    return [each.ticket_id for each in outcomes]


# --- who belongs to which ticket --------------------------------------------------------------------------------------


async def test_an_answer_to_our_acknowledgement_joins(world: World) -> None:
    await world.come_in(mail(key="a@x"))
    ours = incoming(world.database, answers(world.database)[0].message_id).key
    assert ticket_ids(await world.come_in(mail(key="b@x", thread_keys=(ours,)))) == [1]
    assert ticket_ids(await world.come_in(mail(key="c@x", thread_keys=("b@x",)))) == [1]
    assert trail(world.database, 1) == ["opened", "acknowledgement", "appended", "appended"]
    assert len(answers(world.database)) == 1


async def test_an_answer_to_a_persons_reply_joins(world: World) -> None:
    await world.come_in(mail(key="a@x", reply_to="other@example.com"))
    await on(world.database, world.verbs.reply("hello"), 1, LI)
    ours = incoming(world.database, answers(world.database)[1].message_id).key
    for sender in ("li@example.com", "other@example.com"):
        assert ticket_ids(await world.come_in(mail(sender=sender, thread_keys=(ours,)))) == [1]


async def test_another_sender_who_quotes_our_message_gets_a_ticket_of_their_own(world: World) -> None:
    await world.come_in(mail(key="a@x"))
    ours = incoming(world.database, answers(world.database)[0].message_id).key
    stranger = mail(sender="eve@example.com", thread_keys=("a@x", ours), ticket_hint=public_number(1))
    assert ticket_ids(await world.come_in(stranger)) == [2]
    assert [row.address for row in tickets(world.database)] == ["li@example.com", "eve@example.com"]
    assert ticket(world.database, 2).linked_id is None


async def test_the_nearest_known_message_decides(world: World) -> None:
    await world.come_in(mail(key="a@x"), mail(key="b@x"))
    assert ticket_ids(await world.come_in(mail(thread_keys=("a@x", "b@x", "unknown@x")))) == [2]


async def test_a_number_in_the_subject_is_believed_of_the_tickets_own_customer_only(world: World) -> None:
    await world.come_in(mail(key="a@x"))
    hint = public_number(1)
    own = mail(subject=f"Re: [{hint}] My claim", ticket_hint=hint)
    assert ticket_ids(await world.come_in(own)) == [1]
    assert ticket_ids(await world.come_in(mail(sender="eve@example.com", ticket_hint=hint))) == [2]
    assert ticket_ids(await world.come_in(mail(ticket_hint=public_number(999)))) == [3]
    assert ticket_ids(await world.come_in(mail(ticket_hint="S-123456789012"))) == [4]


async def test_a_programs_thread_joins_by_thread_and_sender(world: World) -> None:
    outcomes = await world.come_in(
        message(thread="t"), message("#policy_cancel", thread="t"), message(thread="t", sender="wang"),
        message(), message(), message(thread="t", account="other"),
    )  # fmt: skip
    assert ticket_ids(outcomes) == [1, 1, 2, 3, 4, 5]


async def test_the_lines_of_a_chat_session_join(world: World) -> None:
    lines = [message(text, channel="chat", sender="s1", thread="s1") for text in ("hello", "#claim_status", "hm")]
    assert ticket_ids([(await world.come_in(line))[0] for line in lines]) == [1, 1, 1]
    other = message(channel="chat", sender="s2", thread="s2")
    assert ticket_ids(await world.come_in(other)) == [2]


async def test_a_later_message_leaves_the_route_and_renews_the_snippet(world: World) -> None:
    await world.come_in(message("#claim_status first", thread="t"))
    before = ticket(world.database)
    await world.come_in(message("#policy_cancel #negative second", thread="t"))
    row = ticket(world.database)
    assert (row.department, row.intent, row.priority) == ("claims", "claim_status", "normal")
    assert (row.sentiment, row.snippet) == ("negative", "#policy_cancel #negative second")
    assert (row.first_due_at, row.waiting_since) == (before.first_due_at, before.waiting_since)
    assert row.version == before.version + 1


# --- a new matter -----------------------------------------------------------------------------------------------------


async def test_a_mail_of_the_thread_about_something_else_opens_a_linked_ticket(world: World) -> None:
    await world.come_in(mail(key="a@x"))
    other = mail("#invoice_request", subject="An invoice please", key="b@x", thread_keys=("a@x",))
    assert ticket_ids(await world.come_in(other)) == [2]
    row = ticket(world.database, 2)
    assert (row.department, row.linked_id) == ("billing", 1)
    assert event(world.database, "opened", ticket_id=2).data["linked"] == 1
    more = mail("#invoice_request", subject="Re: An invoice please", key="c@x", thread_keys=("a@x", "b@x"))
    assert ticket_ids(await world.come_in(more)) == [2]
    assert ticket_ids(await world.come_in(mail(key="d@x", thread_keys=("a@x",)))) == [1]


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("#invoice_request", "Re: my CLAIM"),  # people change the matter and keep the subject: too little to go by
        ("#invoice_request", "回复：[S-123456] My claim"),
        ("#invoice_request=0.7", "Something else"),  # the model is not sure enough
        ("#general_info", "Something else"),  # customer service owns small talk
        ("#claim_status", "Something else"),
    ],
)
async def test_what_is_not_clearly_a_new_matter_joins(world: World, text: str, subject: str) -> None:
    await world.come_in(mail(key="a@x"))
    assert ticket_ids(await world.come_in(mail(text, subject=subject, thread_keys=("a@x",)))) == [1]


async def test_a_chat_opens_a_new_matter_only_after_the_old_one_is_resolved(world: World) -> None:
    def line(text: str) -> Message:
        return message(text, channel="chat", sender="s1", thread="s1")

    await world.come_in(line("#claim_status"))
    assert ticket_ids(await world.come_in(line("#invoice_request"))) == [1]
    await on(world.database, world.verbs.resolve("done"), 1, LI)
    assert ticket_ids(await world.come_in(line("#policy_cancel"))) == [2]
    assert ticket_ids(await world.come_in(line("hm"))) == [2]
    assert ticket(world.database, 2).linked_id == 1


async def test_a_new_matter_in_the_same_batch_is_linked_too(world: World) -> None:
    other = mail("#invoice_request", subject="An invoice please", key="b@x", thread_keys=("a@x",))
    assert ticket_ids(await world.come_in(mail(key="a@x"), other)) == [1, 2]
    assert ticket(world.database, 2).linked_id == 1
    assert event(world.database, "opened", ticket_id=2).data["linked"] == 1


# --- states -----------------------------------------------------------------------------------------------------------


async def test_a_message_to_a_resolved_ticket_reopens_it(world: World) -> None:
    await world.come_in(message(thread="t"))
    await on(world.database, world.verbs.resolve("paid"), 1, LI)
    assert ticket(world.database).next_alarm_at == ticket(world.database).resolved_at + timedelta(days=7)
    await world.come_in(message(thread="t"))
    row = ticket(world.database)
    assert (row.state, row.resolved_at, row.resolution_code) == ("open", None, "")
    assert row.waiting_since is not None
    reopened = event(world.database, "reopened")
    assert reopened.data == {"from": "resolved", "to": "open"}
    assert row.next_alarm_at is not None


async def test_a_message_to_a_closed_ticket_opens_a_linked_one(world: World) -> None:
    await world.come_in(message(thread="t"))
    await on(world.database, world.verbs.resolve("paid"), 1, LI)
    await on(world.database, world.verbs.close, 1, LI)
    closed = ticket(world.database)
    assert ticket_ids(await world.come_in(message(thread="t"), message(thread="t"))) == [2, 2]
    assert ticket(world.database, 1) == closed
    assert ticket(world.database, 2).linked_id == 1
    assert ticket(world.database, 2).state == "new"
    assert ticket_ids(await world.come_in(message(thread="t"))) == [2]
    assert len(rows(world.database, Outbox, kind="acknowledgement")) == 2


async def test_a_message_to_a_pending_ticket_opens_it_and_the_resolution_clock_goes_on(world: World) -> None:
    await world.come_in(message(thread="t"))
    await on(world.database, world.verbs.reply("which policy?", then=TicketState.PENDING), 1, LI)
    table_ = table(Ticket)
    paused = ticket(world.database)
    assert paused.next_alarm_at is None
    early = paused.paused_at - timedelta(hours=2)  # as if it had waited for two hours

    def earlier(connection: Any) -> None:
        connection.execute(table_.update().values(paused_at=early))

    await world.database.write(earlier)
    await world.come_in(message(thread="t"))
    row = ticket(world.database)
    assert (row.state, row.paused_at, row.answered_last) == ("open", None, False)
    assert row.resolve_due_at - paused.resolve_due_at == row.updated_at - early
    assert row.next_alarm_at is not None
    assert row.waiting_since > paused.created_at
    assert rows(world.database, Ticket)[0].language == Language.EN
    assert event(world.database, "state", ticket_id=1, actor="bot").data == {"from": "pending", "to": "open"}
