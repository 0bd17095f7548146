"""One way down: a stored message ends as a ticket, as part of one, as kept automatic mail, or in quarantine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import TRIAGE, Automatic, AutomaticKind, InState, Message, Role, Unreadable, public_number
from router.flow import Flow
from router.intake_values import Outcome
from router.tickets import Actor
from settings import Settings
from storage import counts
from storage.database import Database
from storage.queue import EmbeddedQueue
from storage.tables import Address, Customer, Quarantine, Thread
from storage.tables import Message as MessageTable
from storage.tickets import listed
from tests.reading import answers, event, incoming, on, rows, ticket, tickets, trail
from tests.worlds import SayingTagger, World, make_world, message

LI = Actor("person:li", Role.SUPERVISOR)


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return make_world(database, settings)


def mail(text: str = "#claim_status", **values: Any) -> Message:
    return message(text, **({"channel": "mail", "account": "mail", "subject": "My claim"} | values))


# --- a ticket ---------------------------------------------------------------------------------------------------------


async def test_a_message_becomes_a_routed_ticket(world: World) -> None:
    before = datetime.now(UTC)
    [outcome] = await world.come_in(
        message("#claim_status #negative where is my money", subject="Claim 42", sender_name="Li", thread="t1")
    )
    row = ticket(world.database)
    assert outcome.state is InState.TICKETED
    assert outcome.ticket_id == row.id
    assert outcome.channel == "api"
    assert (row.state, row.department, row.priority, row.look_first) == ("new", "claims", "high", False)
    assert (row.intent, row.sentiment, row.language, row.risk) == ("claim_status", "negative", "en", [])
    assert (row.channel, row.account, row.address, row.subject) == ("api", "test", "li@example.com", "Claim 42")
    assert row.route["rule"] == "angry-about-a-claim"
    assert before <= row.created_at <= row.updated_at
    assert row.first_due_at == row.created_at + timedelta(minutes=5)
    assert row.resolve_due_at == row.created_at + timedelta(days=1)
    assert row.next_alarm_at == row.created_at + timedelta(minutes=4)
    assert row.waiting_since == row.created_at
    stored = incoming(world.database, outcome.message_id)
    assert (stored.state, stored.ticket_id, stored.held_until) == ("ticketed", row.id, None)
    assert stored.tags["intent"] == "claim_status"
    [customer] = rows(world.database, Customer)
    assert (customer.id, customer.name, customer.language) == (row.customer_id, "Li", "en")
    assert stored.customer_id == customer.id


async def test_what_happened_is_written_as_events_without_words_or_addresses(world: World) -> None:
    await world.come_in(message("#claim_status SECRETWORD"))
    row = ticket(world.database)
    assert trail(world.database, row.id) == ["opened", "acknowledgement"]
    opened = event(world.database, "opened")
    assert opened.actor == "bot"
    assert opened.data["department"] == "claims"
    assert opened.data["rule"] == "model"
    assert "SECRETWORD" not in str(opened.data)
    assert "li@example.com" not in str(opened.data)


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("#claim_status where is it", "en", "We have received your message"),
        ("#claim_status 我的理赔款呢", "zh", "您的消息我们已经收到"),
    ],
)
async def test_the_customer_gets_one_acknowledgement_in_the_messages_language(
    world: World, text: str, language: str, words: str
) -> None:
    await world.come_in(message(text))
    row = ticket(world.database)
    [answer] = answers(world.database)
    assert row.language == language
    assert (answer.kind, answer.automatic, answer.state, answer.ticket_id) == (
        "acknowledgement",
        True,
        "queued",
        row.id,
    )
    assert (answer.channel, answer.account, answer.address) == ("api", "test", "li@example.com")
    sent = incoming(world.database, answer.message_id)
    assert sent.direction == "out"
    assert words in sent.text
    assert public_number(row.id) in sent.text
    assert f"http://sluice.test/t/{row.token}" in sent.text


async def test_an_acknowledgement_by_mail_stands_in_the_thread_and_goes_where_answers_are_wanted(world: World) -> None:
    await world.come_in(mail(key="a@x", thread_keys=("old@x",), reply_to="desk@example.com"))
    [answer] = answers(world.database)
    sent = incoming(world.database, answer.message_id)
    assert answer.address == "desk@example.com"
    assert ticket(world.database).address == "desk@example.com"
    assert sent.extra["keys"] == ["old@x", "a@x"]
    assert sent.subject == "My claim"
    assert sent.key.endswith("@sluice.test")
    assert sent.external_id == sent.key


async def test_the_first_response_is_not_the_acknowledgement(world: World) -> None:
    await world.come_in(message())
    assert await world.delivery.send_due("api") == 1
    assert ticket(world.database).first_response_at is None


async def test_what_the_bot_is_not_sure_of_goes_to_people(world: World) -> None:
    await world.come_in(message("#claim_status=0.4"), message("hello"))
    unsure, outside = tickets(world.database)
    assert (unsure.department, unsure.look_first, unsure.route["rule"]) == (TRIAGE, True, "triage.unsure")
    assert (outside.department, outside.look_first, outside.route["rule"]) == (TRIAGE, True, "triage.out_of_scope")


async def test_a_ticket_is_found_by_what_was_said(world: World) -> None:
    await world.come_in(message("#claim_status 我的理赔款还没有到账", subject="保单"), message("hello", sender="x@y"))

    def find(q: str) -> list[int]:
        with world.database.reading() as connection:
            return [row.id for row in listed(connection, q=q)]

    assert find("理赔") == find("保单") == find("li@example.com") == [1]
    assert find("退保") == []


async def test_a_strange_message_becomes_a_ticket_like_any_other(world: World) -> None:
    # Random, so that PostgreSQL cannot press it into an index row; with what no database takes.
    strange = "\0\ud800" + "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(5000))
    outcomes = await world.come_in(
        mail(
            "#claim_status" + strange, subject=strange, sender=strange, sender_name=strange, external_id=strange,
            key=strange, thread_keys=(strange,) * 50, reply_to=strange, recipient=strange, ticket_hint=strange,
        ),
        mail(),
    )  # fmt: skip
    assert [each.state for each in outcomes] == [InState.TICKETED] * 2
    assert len(answers(world.database)) == 2


async def test_a_redelivered_message_has_one_effect(world: World) -> None:
    once = message(external_id="same")
    [first] = await world.flow.receive([once])
    [again, twin] = await world.flow.receive([once, once])
    assert (first.new, again.new, twin.new) == (True, False, False)
    assert first.message_id == again.message_id == twin.message_id
    await world.flow.process([first.message_id])
    assert await world.flow.process([first.message_id]) == []
    await world.come_in(once)
    assert len(tickets(world.database)) == 1
    assert len(answers(world.database)) == 1


async def test_listeners_hear_of_every_outcome(world: World) -> None:
    heard: list[Any] = []
    world.flow.listeners.append(heard.extend)
    await world.come_in(message(), message())
    assert [each.state for each in heard] == [InState.TICKETED, InState.TICKETED]


async def test_a_world_that_is_behind_is_finished_without_the_queue(world: World) -> None:
    await world.flow.receive([message() for _ in range(5)] + [message("#boom")], ring=False)
    await world.flow.finish()
    assert len(tickets(world.database)) == 5
    assert [row.step for row in rows(world.database, Quarantine)] == ["tag"]


# --- what fails -------------------------------------------------------------------------------------------------------


async def test_a_poisonous_message_is_quarantined_after_three_tries_and_holds_up_nobody(world: World) -> None:
    stored = await world.flow.receive([message("#boom"), message(), message()])
    ids = [each.message_id for each in stored]
    assert [each.message_id for each in await world.flow.process(ids)] == ids[1:]
    assert incoming(world.database, ids[0]).tries == 1
    assert await world.flow.process(ids) == []
    [last] = await world.flow.process(ids)
    assert (last.message_id, last.state) == (ids[0], InState.QUARANTINED)
    [entry] = rows(world.database, Quarantine)
    assert (entry.message_id, entry.step, entry.reason) == (ids[0], "tag", "RuntimeError in step 'tag'")
    assert event(world.database, "quarantined").data == {"message": ids[0], "step": "tag"}
    assert len(tickets(world.database)) == 2


async def test_a_message_from_quarantine_goes_the_usual_way_again(world: World) -> None:
    [stored] = await world.flow.receive([message("#boom")])
    await world.flow.finish()
    [entry] = rows(world.database, Quarantine)
    message_id = await on(world.database, world.verbs.retry_quarantined, entry.id, LI)
    assert message_id == stored.message_id
    world.flow._tagger = Calm(world.desk.taxonomy)
    [outcome] = await world.flow.process([message_id])
    assert outcome.state is InState.TICKETED
    assert rows(world.database, Quarantine)[0].outcome == "retried"


class Calm(SayingTagger):
    """The fault is mended."""

    def tag(self, texts: Any) -> Any:
        return [super(Calm, self)._tag(type(each)(each.text.replace("#boom", ""))) for each in texts]


async def test_unreadable_things_wait_in_quarantine(world: World) -> None:
    broken = Unreadable(
        channel="mail", account="mail", external_id="u", received_at=datetime.now(UTC), reason="no head", raw=b"\0\xff"
    )
    [stored] = await world.flow.receive([broken])
    assert await world.flow.process([stored.message_id]) == []
    assert [row.reason for row in rows(world.database, Quarantine)] == ["no head"]


async def test_the_ledger_adds_up(world: World) -> None:
    broken = Unreadable(channel="mail", account="mail", external_id="u", received_at=datetime.now(UTC), reason="why")
    own = mail(automatic=Automatic(kind=AutomaticKind.OWN, why="our own"))
    await world.flow.receive([mail(key="a@x"), mail(thread_keys=("a@x",)), own, broken, mail("#boom"), message()])
    await world.flow.finish()
    await world.flow.receive([message()], ring=False)
    await world.delivery.send_due("mail")
    with world.database.reading() as connection:
        api, mails = counts.ledgers(connection)
    assert (api.channel, api.accepted, api.ticketed, api.received, api.missing) == ("api", 2, 1, 1, 0)
    parts = (mails.ticketed, mails.appended, mails.automatic, mails.quarantined, mails.received)
    assert (mails.channel, mails.accepted, parts, mails.missing) == ("mail", 5, (1, 1, 1, 2, 0), 0)
    assert mails.last_out is not None


# --- two workers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def other(database: Database, database_url: str, settings: Settings) -> Any:
    """A second worker on connections of its own."""
    own = Database(database_url)
    yield make_world(own, settings)
    own.close()


async def test_two_messages_of_one_new_thread_at_two_workers_make_one_ticket(world: World, other: World) -> None:
    for number in range(10):
        stored = await world.flow.receive([message(thread=f"t{number}"), message(thread=f"t{number}")])
        first, second = (each.message_id for each in stored)
        outcomes = await asyncio.gather(world.flow.process([first]), other.flow.process([second]))
        assert sorted(each.state for [each] in outcomes if each.state) == ["appended", "ticketed"]
    assert len(tickets(world.database)) == 10
    assert [row.tries for row in rows(world.database, MessageTable, direction="in")] == [0] * 20
    assert len(rows(world.database, Customer)) == 1


async def test_the_same_messages_at_two_workers_make_one_ticket_each(world: World, other: World) -> None:
    stored = await world.flow.receive([message(sender=f"{n % 7}@x") for n in range(60)])
    ids = [each.message_id for each in stored]
    outcomes = await asyncio.gather(
        *(flow.process(part) for flow in (world.flow, other.flow) for part in (ids[:40], ids[20:], list(reversed(ids))))
    )
    done = [each.message_id for some in outcomes for each in some]
    await world.flow.finish()
    assert len(done) == len(set(done))
    assert len(tickets(world.database)) == 60
    assert len(rows(world.database, Customer)) == len(rows(world.database, Address)) == 7


async def test_two_workers_on_a_queue_process_all_and_stop_when_told(world: World, other: World) -> None:
    done, stop = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    def listen(outcomes: Sequence[Outcome]) -> None:
        ended.extend(each.message_id for each in outcomes)
        done.set()

    flows = [Flow(each.database, EmbeddedQueue(each.database, poll=0.01), each.flow._tagger, each.desk)
             for each in (world, other)]  # fmt: skip
    for flow in flows:
        flow.listeners.append(listen)
    work = [asyncio.create_task(flow.work(stop)) for flow in flows]
    await flows[0].receive([message() for _ in range(30)] + [message("#boom")])
    async with asyncio.timeout(60):
        while len(ended) < 31:
            await done.wait()
            done.clear()
    stop.set()
    await asyncio.gather(*work)
    assert sorted(ended) == list(range(1, 32))
    assert len(tickets(world.database)) == 30
    assert len(rows(world.database, Thread)) > 0


async def test_many_workers_on_one_thread_count_no_try_against_anybody(
    world: World, database_url: str, settings: Settings
) -> None:
    others = [Database(database_url) for _ in range(3)]
    flows = [world.flow, *(make_world(each, settings).flow for each in others)]
    for number in range(8):
        stored = await world.flow.receive([message(thread=f"t{number}", sender=f"s{number}") for _ in flows])
        await asyncio.gather(*(flow.process([one.message_id]) for flow, one in zip(flows, stored, strict=True)))
    for each in others:
        each.close()
    assert len(tickets(world.database)) == 8
    assert {(row.tries, row.state == "received") for row in rows(world.database, MessageTable, direction="in")} == {
        (0, False)
    }
