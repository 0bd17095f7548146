"""A person's answer on its way out: by which of the customer's addresses it may go, and the outbox row that takes it.

The ticket's own address comes first. Where it cannot carry an answer (the channel has no way out, its time for answers
is over, the customer does not want messages there), another of the same customer's addresses may, and what they say
there joins the ticket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from channels import too_long
from domain import ForbiddenMove, InvalidInput, public_number
from router.desk import Desk
from router.standing import standing_of
from storage import customers, identity, outbox, search, tickets
from storage.customers import Place
from storage.types import AnyRow

#: why an address cannot carry an answer, in words for who asked for it by the API
REASONS: Mapping[str, str] = {
    "mute": "This channel only brings messages and takes no answers. Answer by another way, and write a note about it.",
    "no_way": "This channel has no way out. Answer by another way, and write a note about it.",
    "bounced": "Messages to this address came back. Use another channel.",
    "other": "This is no address of the ticket's customer.",
}


class NoWay(ForbiddenMove):
    """An address cannot carry this answer now. `kind`: mute, no_way, bounced, chosen, window or other."""

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(message or REASONS[kind])
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Way:
    """An address by which the customer could be answered."""

    channel: str
    address: str
    #: the ticket's own
    own: bool
    #: why it cannot carry an answer now, as in `NoWay`; "" = it can
    problem: str = ""

    @property
    def place(self) -> Place:
        return self.channel, self.address


class Replies:
    """The ways out of one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def ways(self, connection: Connection, row: AnyRow) -> list[Way]:
        """The ticket's own address, then the customer's others on channels with a way out."""
        own = (row.channel, row.address)
        found = [Way(*own, own=True, problem=self._own_problem(connection, row))] if row.address else []
        for each in customers.addresses(connection, row.customer_id):
            place = (each.channel, each.address)
            if place != own and each.channel in self._desk.carries:
                found.append(Way(*place, own=False, problem=self.problem(connection, each)[0]))
        return found

    def _own_problem(self, connection: Connection, row: AnyRow) -> str:
        if row.channel in self._desk.mute:
            return "mute"
        if self._desk.carries and row.channel not in self._desk.carries:
            return "no_way"  # an answer waits in the outbox until the settings give the channel one
        return self._standing(connection, row.customer_id, row.channel, row.address)[0]

    def problem(self, connection: Connection, known: AnyRow) -> tuple[str, str]:
        """Why one of a customer's addresses cannot carry an answer now: the kind as in `NoWay`, and words."""
        if known.channel in self._desk.mute or known.channel not in self._desk.carries:
            return "no_way", ""
        if known.suppressed and known.suppressed not in customers.CHOSEN:
            return "bounced", ""
        return self._standing(connection, known.customer_id, known.channel, known.address)

    def _standing(self, connection: Connection, customer_id: int, channel: str, where: str) -> tuple[str, str]:
        """(why not, in words)."""
        limits = self._desk.carries.get(channel)
        if limits is None or not (limits.ordered or limits.window is not None):
            return "", ""
        standing = standing_of(connection, customer_id, channel, where, limits)
        return standing.kind, standing.refusal

    def chosen(self, connection: Connection, row: AnyRow, by: Place | None) -> Place:
        """The address to answer to. `by`: a channel and an address on it, or "" where there is only one.

        Raises `NoWay` and `InvalidInput`.
        """
        own = (row.channel, row.address)
        if by is None or by == own:
            return own
        channel, where = by
        theirs = [each for each in customers.addresses(connection, row.customer_id) if each.channel == channel]
        if not where:
            if channel == row.channel:
                return own
            if len(theirs) > 1:
                raise InvalidInput("address", "The customer has several addresses on this channel. Name one of them.")
            where = theirs[0].address if theirs else ""
        if not any(each.address == where for each in theirs):
            raise NoWay("other")
        return channel, where

    def check(self, connection: Connection, row: AnyRow, place: Place, text: str) -> None:
        """What the channel would refuse is told to the writer, who can still do something about it."""
        own = place == (row.channel, row.address)
        if own and row.channel in self._desk.mute:
            raise NoWay("mute")
        limits = self._desk.carries.get(place[0])
        if limits is not None and (reason := too_long(text, limits)):
            raise InvalidInput("text", reason)
        if own:
            problem, words = self._standing(connection, row.customer_id, *place)
        else:
            known = next(each for each in customers.addresses(connection, row.customer_id)
                         if (each.channel, each.address) == place)  # fmt: skip
            problem, words = self.problem(connection, known)
        if problem:
            raise NoWay(problem, words)

    def queue(
        self, connection: Connection, row: AnyRow, place: Place, author_id: int | None, text: str, now: datetime
    ) -> int:
        """Write the answer and let what the customer says to it join the ticket; its message id."""
        channel, where = place
        number = public_number(row.id)
        key = self._desk.message_key(channel, number)
        own, named = tickets.last_key(connection, row.id, channel)
        keys = [*named, own] if own else named
        account, thread, places = self._conversation(connection, row, place)
        subject = row.subject or self._desk.says(self._desk.texts.subject, row.language, number=number)
        [message_id] = outbox.queue(
            connection,
            [
                {
                    "channel": channel,
                    "account": account,
                    "address": where,
                    "name": customers.get(connection, row.customer_id).name,
                    "subject": subject,
                    "text": text,
                    "key": key,
                    "thread": thread,
                    "extra": {"keys": keys[-20:]} if keys else None,
                    "ticket_id": row.id,
                    "customer_id": row.customer_id,
                    "author_id": author_id,
                    "kind": "reply",
                    "automatic": False,
                }
            ],
            now,
            pulled=self._desk.pulled,
        )
        threads = {tickets.thread_key(channel, each, key): row.id for each in places}
        tickets.add_threads(connection, threads, known={})
        if thread:
            self._lead(connection, row, place, f"={account}\0{thread}")
        search.add(connection, [{"message_id": message_id, "ticket_id": row.id, "terms": search.terms(text)}])
        return message_id

    def _conversation(self, connection: Connection, row: AnyRow, place: Place) -> tuple[str, str, Sequence[str]]:
        """(account, thread, the addresses that an answer to it may come from)."""
        channel, where = place
        if place == (row.channel, row.address):
            # The customer's answer may come from the address that wrote or from the one that we answer to.
            first = tickets.first_message(connection, row.id)
            if first is None:
                return row.account, "", [where]
            return row.account, first.thread, sorted({where, first.address})
        last = identity.newest(connection, row.customer_id, channel, where)
        if last is None:
            return identity.any_account(connection, channel), "", [where]
        return last.account, last.thread, [where]

    def _lead(self, connection: Connection, row: AnyRow, place: Place, conversation: str) -> None:
        """Where all that is said on a channel is one conversation, the ticket that was last answered there has it.

        A ticket's own channel is left as it is, unless the conversation was lent to a ticket of another channel.
        """
        key = tickets.thread_key(*place, conversation)
        known = tickets.by_threads(connection, [key])
        if known.get(key) == row.id:
            return
        if place == (row.channel, row.address):
            lent = tickets.get(connection, known[key]) if key in known else None
            if lent is None or lent.channel == row.channel:
                return
        tickets.add_threads(connection, {key: row.id}, known=known)
