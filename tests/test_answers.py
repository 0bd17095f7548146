"""Machines, people in danger, and the answers that the bot gives by itself or holds back."""

from __future__ import annotations

from typing import Any

import pytest

from domain import TRIAGE, Automatic, AutomaticKind, InState, Message, Role
from router.settings import LimitSettings
from router.tickets import Actor
from settings import Settings
from storage import tallies
from storage.database import Database
from storage.tables import Address, Event
from storage.tables import Message as MessageTable
from tests.reading import answers, event, incoming, on, rows, ticket, tickets, trail
from tests.worlds import World, make_world, message

LI = Actor("person:li", Role.SUPERVISOR)


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return make_world(database, settings)


def mail(text: str = "#claim_status", **values: Any) -> Message:
    return message(text, **({"channel": "mail", "account": "mail", "subject": "My claim"} | values))


def machine(kind: AutomaticKind, **values: Any) -> Message:
    """Mail that no person wrote."""
    more = {name: values.pop(name) for name in ("concerns", "permanent", "recipients") if name in values}
    return mail("out of office", automatic=Automatic(kind=kind, why=f"a header says {kind}", **more), **values)


# --- machines ---------------------------------------------------------------------------------------------------------


async def test_a_bounce_marks_the_answer_failed_and_ends_answers_to_that_address(world: World) -> None:
    await world.come_in(mail(key="a@x"))
    [answer] = answers(world.database)
    key = incoming(world.database, answer.message_id).key
    await world.delivery.send_due("mail")
    [outcome] = await world.come_in(
        machine(AutomaticKind.BOUNCE, sender="mailer-daemon@example.com", concerns=(key,), permanent=True)
    )
    assert outcome.state is InState.AUTOMATIC
    assert outcome.ticket_id == 1
    assert [row.state for row in answers(world.database)] == ["failed"]
    assert [row.suppressed for row in rows(world.database, Address)] == ["bounced"]
    assert trail(world.database, 1)[-2:] == ["bounced", "automatic_mail"]
    await world.come_in(mail(key="b@x"))
    assert event(world.database, "answer_held").data == {"reason": "suppressed", "kind": "acknowledgement"}
    assert len(answers(world.database)) == 1


async def test_a_bounce_for_now_does_not_suppress_the_address(world: World) -> None:
    await world.come_in(mail(key="a@x"))
    key = incoming(world.database, answers(world.database)[0].message_id).key
    await world.come_in(machine(AutomaticKind.BOUNCE, sender="mailer-daemon@example.com", concerns=(key,)))
    assert [row.suppressed for row in rows(world.database, Address)] == [None]
    assert [row.state for row in answers(world.database)] == ["failed"]


@pytest.mark.parametrize("state", ["new", "resolved", "pending", "closed"])
async def test_an_auto_reply_is_recorded_on_its_ticket_and_changes_nothing(world: World, state: str) -> None:
    await world.come_in(mail(key="a@x"))
    key = incoming(world.database, answers(world.database)[0].message_id).key
    if state == "pending":
        await on(world.database, world.verbs.pending, 1, LI)
    elif state != "new":
        await on(world.database, world.verbs.resolve("done"), 1, LI)
    if state == "closed":
        await on(world.database, world.verbs.close, 1, LI)
    before = ticket(world.database)
    [outcome] = await world.come_in(machine(AutomaticKind.AUTO_REPLY, thread_keys=(key,)))
    assert (outcome.state, outcome.ticket_id) == (InState.AUTOMATIC, 1)
    assert ticket(world.database) == before
    assert trail(world.database, 1)[-1] == "automatic_mail"
    assert len(answers(world.database)) == 1


async def test_automatic_mail_of_nobody_is_kept_without_a_ticket_or_an_answer(world: World) -> None:
    kinds = [AutomaticKind.REPORT, AutomaticKind.NO_REPLY, AutomaticKind.AUTO_REPLY, AutomaticKind.OWN]
    outcomes = await world.come_in(*(machine(kind) for kind in kinds))
    assert [each.state for each in outcomes] == [InState.AUTOMATIC] * 4
    assert tickets(world.database) == answers(world.database) == []
    assert [row.automatic for row in rows(world.database, MessageTable)] == [kind.value for kind in kinds]


@pytest.mark.parametrize("on_a_ticket", [False, True])
async def test_one_click_makes_kept_automatic_mail_a_persons(world: World, on_a_ticket: bool) -> None:
    await world.come_in(mail(key="a@x"))
    kept = machine(AutomaticKind.NO_REPLY, thread_keys=("a@x",) if on_a_ticket else ())
    [outcome] = await world.come_in(kept)
    await on(world.database, world.verbs.ticket_from_automatic, outcome.message_id, LI)
    [again] = await world.flow.process([outcome.message_id])
    assert (again.state, again.ticket_id) == ((InState.APPENDED, 1) if on_a_ticket else (InState.TICKETED, 2))
    assert len(answers(world.database)) == 1


# --- answers that are held back ---------------------------------------------------------------------------------------


def held(world: World) -> list[str]:
    """Why answers were held back, by ticket."""
    return [row.data["reason"] for row in rows(world.database, Event, kind="answer_held")]


def limited(database: Database, settings: Settings, **limits: Any) -> World:
    return make_world(database, settings, limits=LimitSettings(**limits))


@pytest.mark.parametrize("together", [True, False])
async def test_one_address_gets_so_many_automatic_answers_a_day(
    database: Database, settings: Settings, together: bool
) -> None:
    world = limited(database, settings, automatic_per_address=2)
    mails = [mail(key=f"{index}@x") for index in range(4)]
    if together:
        await world.come_in(*mails)
    else:
        for each in mails:
            await world.come_in(each)
    await world.come_in(mail(sender="wang@example.com"))
    assert len(tickets(database)) == 5
    assert held(world) == ["address_limit", "address_limit"]
    assert [row.address for row in answers(database)] == ["li@example.com"] * 2 + ["wang@example.com"]
    with database.reading() as connection:
        assert tallies.starting_with(connection, "held:") == {"held:address_limit": 2}


async def test_a_domain_of_machines_gets_no_automatic_answers(database: Database, settings: Settings) -> None:
    world = limited(database, settings, automatic_mail_per_domain=3, public_domains=["public.example"])
    for domain in ("bots.example", "public.example"):
        await world.come_in(*(machine(AutomaticKind.AUTO_REPLY, sender=f"bot{n}@{domain}") for n in range(3)))
        await world.come_in(mail(sender=f"li@{domain}"))
    await world.come_in(mail(sender="li@other.example"))
    assert held(world) == ["domain_limit"]
    assert [row.address for row in answers(database)] == ["li@public.example", "li@other.example"]


async def test_the_breaker_holds_back_answers_to_all(database: Database, settings: Settings) -> None:
    world = limited(database, settings, breaker=2)
    await world.come_in(*(mail(sender=f"n{index}@x{index}.example") for index in range(3)))
    await world.come_in(mail(sender="last@example.com"))
    assert held(world) == ["breaker", "breaker"]
    assert len(answers(database)) == 2


async def test_our_own_addresses_and_lists_get_a_ticket_and_no_answer(database: Database, settings: Settings) -> None:
    world = make_world(database, settings, own_addresses=frozenset({"support@insurer.example"}))
    await world.come_in(mail(sender="support@insurer.example"), mail(answerable=False))
    assert len(tickets(database)) == 2
    assert held(world) == ["own_address", "not_answerable"]
    assert answers(database) == []


# --- people in danger -------------------------------------------------------------------------------------------------


async def test_somebody_in_danger_gets_words_of_care_and_a_person(world: World) -> None:
    await world.come_in(message("#claim_status #self_harm"))
    row = ticket(world.database)
    assert (row.department, row.priority, row.look_first, row.alarm) == (TRIAGE, "urgent", True, "alert")
    [answer] = answers(world.database)
    assert answer.kind == "care"
    assert "worried about you" in incoming(world.database, answer.message_id).text
    assert trail(world.database, row.id) == ["opened", "care"]


async def test_danger_in_a_later_message_moves_the_ticket_to_people(world: World) -> None:
    await world.come_in(message("#claim_status", thread="t"))
    await world.come_in(message("#claim_status #self_harm", thread="t"))
    row = ticket(world.database)
    assert (row.department, row.priority, row.look_first, row.alarm) == (TRIAGE, "urgent", True, "alert")
    assert row.risk == ["self_harm"]
    assert [answer.kind for answer in answers(world.database)] == ["acknowledgement", "care"]
    assert trail(world.database, row.id)[2:] == ["appended", "risk", "transferred", "care"]
    await world.come_in(message("#self_harm", thread="t"))
    assert len(answers(world.database)) == 2


async def test_danger_in_the_second_message_of_one_batch_is_seen_too(world: World) -> None:
    await world.come_in(message("#claim_status", thread="t"), message("#self_harm", thread="t"))
    row = ticket(world.database)
    assert (row.department, row.priority, row.risk) == (TRIAGE, "urgent", ["self_harm"])
    assert [answer.kind for answer in answers(world.database)] == ["acknowledgement", "care"]


async def test_an_automatic_answer_on_one_ticket_is_given_only_so_often(database: Database, settings: Settings) -> None:
    world = limited(database, settings, automatic_per_thread=1)
    await world.come_in(message("#claim_status", thread="t"))
    await world.come_in(message("#self_harm", thread="t"))
    assert held(world) == ["thread_limit"]
    assert ticket(database).department == TRIAGE
