"""What the tests of who is who share: customers on several channels, and where their things are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from channels import Limits
from domain import Message, Role, Tags
from nlu import Text, entities
from router.identity import Identity
from router.intake_values import Outcome
from router.tickets import Actor
from storage.tables import Address, table
from storage.tables import Message as MessageTable
from tests.reading import answers, incoming, on, rows, tickets
from tests.worlds import SayingTagger, World, message

LI = Actor("person:li", Role.SUPERVISOR)
DAY = timedelta(days=1)
ADDRESS = table(Address)
CARRIES = {
    "mail": Limits(),
    "sms": Limits(text=1000, ordered=True),
    "whatsapp": Limits(text=4096, ordered=True, window=DAY),
    "telegram": Limits(ordered=True),
    "chat": Limits(),
}
PHONE = "+8613800138000"
#: two people's, with right check digits
FIRST, SECOND = "11010519491231002X", "440524188001010014"


class Naming(SayingTagger):
    """Also finds the numbers that stand in a text."""

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        return [
            replace(tags, entities=entities.find(text.text))
            for tags, text in zip(super().tag(texts), texts, strict=True)
        ]


def sms(text: str = "#claim_status", sender: str = PHONE, **values: Any) -> Message:
    return message(
        text, **({"channel": "sms", "account": "+861069", "sender": sender, "thread": f"+861069 {sender}"} | values)
    )


def whatsapp(text: str = "#claim_status", sender: str = PHONE[1:], **values: Any) -> Message:
    return message(text, **({"channel": "whatsapp", "account": "1055", "sender": sender, "thread": sender} | values))


def mail(text: str = "#claim_status", **values: Any) -> Message:
    return message(
        text, **({"channel": "mail", "account": "mail", "subject": "My claim", "sender": "li@example.com"} | values)
    )


def telegram(text: str = "#claim_status", **values: Any) -> Message:
    return message(text, **({"channel": "telegram", "account": "bot", "sender": "4711", "thread": "4711"} | values))


async def come(world: World, *several: Message) -> list[Outcome]:
    """One after the other, so that the first customer is the first."""
    return [outcome for each in several for outcome in await world.come_in(each)]


def owners(world: World) -> dict[str, int]:
    """Whose each address is."""
    with world.database.reading() as connection:
        return {f"{row.channel}:{row.address}": row.customer_id for row in connection.execute(sa.select(ADDRESS))}


def of_tickets(world: World) -> list[int]:
    return [row.customer_id for row in tickets(world.database)]


def of_messages(world: World) -> list[int | None]:
    return [row.customer_id for row in rows(world.database, MessageTable)]


async def joined(world: World, verbs: Identity, one: int, other: int) -> int:
    kept: int = await on(world.database, verbs.decide(other, "they said so on the phone"), one, LI)
    return kept


def code_of(world: World) -> str:
    """As the newest code's message says it."""
    found = [row for row in answers(world.database) if row.kind == "code"]
    match = re.search(r"\b\d{6}\b", incoming(world.database, found[-1].message_id).text)
    assert match is not None
    return match[0]
