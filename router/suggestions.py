"""Who may be the same person as a customer: what is told to people, who decide or make sure by a code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from nlu.entities_numbers import masked
from router.desk import Desk
from router.identity import differ, mask
from storage import customers, identity
from storage.customers import Place
from storage.types import AnyRow


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Another customer who may be the same person."""

    customer_id: int
    #: same_number, caller, contact, same_address or identity
    kind: str
    #: what they share, masked
    shown: str
    #: the other's address that it was seen at
    channel: str = ""
    #: where a code could go to make sure, unmasked; "" = nowhere
    address: str = ""
    #: they named different identity numbers
    differ: bool = False


def suggestions(connection: Connection, desk: Desk, customer_id: int) -> list[Suggestion]:
    """Other customers who may be the same person, each once by the best reason. Those that were parted are left out."""
    mine = customers.addresses(connection, customer_id)
    found: dict[int, Suggestion] = {}
    parted = identity.undone_with(connection, customer_id)

    def add(other: int, kind: str, shown: str, channel: str = "", where: str = "") -> None:
        if other != customer_id and other not in parted and other not in found:
            unsure = channel in desk.carries and channel not in desk.pulled
            found[other] = Suggestion(other, kind, shown, channel, where if unsure else "")

    for number in sorted(identity.strong(connection, customer_id)):
        for other in identity.naming(connection, number, but=customer_id):
            add(other, "identity", masked(number))
    left = identity.contacts(connection, [each.address for each in mine if each.channel == "chat"])
    numbers = {identity.number_of(each.channel, each.address): each.channel for each in mine}
    numbers |= {number: "chat" for contact in left.values() if (number := _as_number(contact))}
    numbers.pop("", None)
    for each in identity.having_number(connection, numbers, identity.PHONES):
        from_chat = numbers.get(identity.number_of(each.channel, each.address)) == "chat"
        vouched = {each.channel, numbers.get(identity.number_of(each.channel, each.address), "")} <= identity.VOUCHED
        kind = "contact" if from_chat else "same_number" if vouched else "caller"
        add(each.customer_id, kind, mask(each.channel, each.address), each.channel, each.address)
    mails = {contact.lower() for contact in left.values() if "@" in contact}
    for each in identity.at_address(connection, mails, ["mail"]):
        add(each.customer_id, "contact", mask("mail", each.address), "mail", each.address)
    wheres = {each.address for each in mine if each.channel != "chat"}
    wheres |= {number for each in mine if (number := identity.number_of(each.channel, each.address))}
    for each in identity.leaving_contact(connection, wheres):
        add(each.customer_id, "contact", mask("mail", each.contact), "chat", each.address)
    written = {each.address for each in mine if "@" in each.address}
    for each in identity.at_address(connection, written, {"mail", "api", "ingest", *desk.carries, *desk.mute}):
        add(each.customer_id, "same_address", mask("mail", each.address), each.channel, each.address)
    return [replace(each, differ=differ(connection, customer_id, other)) for other, each in found.items()]


def unconfirmed(connection: Connection, desk: Desk, addresses: Sequence[AnyRow]) -> list[Place]:
    """Contacts that a customer left in the chat and that are not theirs yet: where a code would make sure."""
    known = {(each.channel, each.address) for each in addresses}
    found: list[Place] = []
    for contact in identity.contacts(
        connection, [each.address for each in addresses if each.channel == "chat"]
    ).values():
        number = _as_number(contact)
        place = ("sms", number) if number else ("mail", contact.lower())
        if place not in known and place[0] in desk.carries:
            found.append(place)
    return found


def _as_number(contact: str) -> str:
    """A contact that is a phone number with its country."""
    return identity.number_of("phone", re.sub(r"[\s()-]", "", contact)) if contact.startswith("+") else ""
