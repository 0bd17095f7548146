"""Who is who: addresses of one person are joined by evidence, never by a name, and every join can be undone.

Three things are evidence: a phone number that two providers vouch for, a code that was sent to one address and said
from another, and a person's decision with its reason. A caller's number, a mail's From and a contact left in the chat
can be made up; they only suggest it. Who named different identity numbers is never joined, whoever asks.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from domain import ForbiddenMove, InvalidInput, NotFound, TooMany
from nlu.entities_numbers import masked
from router.desk import Desk
from router.intake_values import Prepared, lookup_keys, said
from router.replies import NoWay
from router.standing import standing_of
from router.tickets import Actor
from storage import customers, events, identity, messages, outbox, tickets
from storage.customers import Known, Place
from storage.types import AnyRow

LASTS = timedelta(minutes=15)
TRIES = 5
#: codes to one address in an hour, and for one customer in a day
PER_HOUR, PER_DAY = 3, 10
#: where a code may go that never wrote to us
_FREE = ("mail", "sms")
_MAIL = re.compile(r"[^\s@<>\"]{1,64}@[^\s@<>\"]{1,190}\.[^\s@<>\".]{2,63}")
_SAID = re.compile(r"(?:code|my code is|验证码|驗證碼)?[\s:是]*(\d{3})[ -]?(\d{3})[\s.。!]*", re.I)
_LONGEST = 60

REFUSALS: Mapping[str, str] = {
    "same": "They are one customer already.",
    "differ": "They named different identity numbers: they are two people and cannot be joined.",
    "erased": "This customer was erased.",
    "undone": "It was undone before.",
}


class Refused(ForbiddenMove):
    """Two customers cannot be joined, or parted. `why`: same, differ, erased or undone."""

    def __init__(self, why: str) -> None:
        super().__init__(REFUSALS[why])
        self.why = why


def mask(channel: str, where: str) -> str:
    """An address by which nobody else can be reached: `l***@example.com`, `+86****6021`, `****91f0`."""
    name, at, domain = where.rpartition("@")
    if at and domain:
        return f"{name[:1]}***@{domain}"
    if number := identity.number_of(channel, where):
        return f"{number[:3]}{masked(number)}"
    return masked(where)


# --- joining ----------------------------------------------------------------------------------------------------------


def join(
    connection: Connection,
    one: int,
    other: int,
    evidence: Mapping[str, Any],
    actor: str,
    now: datetime,
    *,
    ticket_id: int | None = None,
    named: frozenset[str] = frozenset(),
) -> int:
    """Make two customers one: the older one stays. Its id. `named`: strong numbers of a message that is not kept yet.

    Raises `Refused`.
    """
    first, second = (customers.holder(connection, each) for each in (one, other))
    if first == second:
        raise Refused("same")
    rows = identity.lock_customers(connection, {first, second})
    if len(rows) < 2 or any(row.erased_at is not None for row in rows.values()):
        raise Refused("erased")
    # Somebody may have joined one of them while this waited for the lock.
    if {first, second} != {customers.holder(connection, each) for each in (one, other)}:
        raise Refused("same")
    if differ(connection, first, second, named):
        raise Refused("differ")
    kept, gone = rows[min(rows)], rows[max(rows)]
    moved = identity.move(connection, kept, gone)
    merge_id = identity.add(connection, kept.id, gone.id, evidence, moved, actor, now)
    data = {"merge": merge_id, "kept": kept.id, "absorbed": gone.id, "evidence": evidence["kind"]}
    events.append(connection, [events.row("merged", actor, now, ticket_id=ticket_id, **data)])
    return int(kept.id)


def differ(connection: Connection, one: int, other: int, named: frozenset[str] = frozenset()) -> bool:
    """Both named numbers that belong to one person for life, and not one of them is the same."""
    first = identity.strong(connection, one)
    second = identity.strong(connection, other) | named
    return bool(first and second and not first & second)


def undo(connection: Connection, merge_id: int, actor: str, now: datetime, *, ticket_id: int | None = None) -> int:
    """Part two customers again: the id of the one that is free again. What was said on a ticket stays there.

    Raises `NotFound` and `Refused`.
    """
    row = identity.get(connection, merge_id)
    if row is None:
        raise NotFound("There is no such merge.")
    holder = customers.holder(connection, row.kept_id)
    people = identity.lock_customers(connection, {holder, row.absorbed_id})
    if any(each.erased_at is not None for each in people.values()):
        raise Refused("erased")
    if not identity.undo(connection, row, holder, actor, now):
        raise Refused("undone")
    _part_threads(connection, holder, row.absorbed_id)
    data = {"merge": merge_id, "kept": holder, "absorbed": row.absorbed_id}
    events.append(connection, [events.row("unmerged", actor, now, ticket_id=ticket_id, **data)])
    return int(row.absorbed_id)


def _part_threads(connection: Connection, one: int, other: int) -> None:
    """What was answered across their addresses leads to the other's ticket no more (promise P9)."""
    keys: dict[int, set[str]] = {}
    for each in identity.strangers(connection, one, other):
        keys.setdefault(each.ticket_id, set()).update(lookup_keys(each))
    identity.cut(connection, keys)


# --- in the river -----------------------------------------------------------------------------------------------------


def join_new(connection: Connection, people: dict[Place, Known], prepared: Sequence[Prepared], now: datetime) -> None:
    """Give addresses that were never seen before to whom the same number is known on another channel.

    `people` is changed where it was. Only numbers that two providers vouch for; one lookup for a batch that has any.
    """
    numbers = {
        place: number
        for place, known in people.items()
        if known.new and place[0] in identity.VOUCHED and (number := identity.number_of(*place))
    }
    if not numbers:
        return
    found: dict[str, list[AnyRow]] = {}
    for row in identity.having_number(connection, set(numbers.values()), identity.VOUCHED):
        found.setdefault(identity.number_of(row.channel, row.address), []).append(row)
    named: dict[Place, set[str]] = {}
    for each in prepared:
        place = (each.row.channel, each.row.address)
        if place in numbers and each.tags is not None:
            named.setdefault(place, set()).update(identity.strong_of(each.tags.to_json()))
    for place, number in sorted(numbers.items()):
        other = next((row for row in found[number] if row.channel != place[0]), None)
        mine = people[place].customer_id
        if other is None or customers.holder(connection, other.customer_id) == customers.holder(connection, mine):
            continue
        evidence = {"kind": "same_number", "shown": mask(*place), "channels": sorted({place[0], other.channel})}
        try:
            kept = join(
                connection, other.customer_id, mine, evidence, "bot", now, named=frozenset(named.get(place, ()))
            )
        except Refused:
            continue
        _moved(people, connection, kept)


def _moved(people: dict[Place, Known], connection: Connection, kept: int) -> None:
    """Let what was read before a join say whose the addresses are now."""
    theirs = identity.absorbed(connection, kept)
    for place, known in people.items():
        if known.customer_id in theirs:
            people[place] = Known(kept, known.suppressed)


def hear_codes(
    connection: Connection, people: dict[Place, Known], prepared: Sequence[Prepared], now: datetime
) -> dict[int, int]:
    """Messages that are just a code: a right one joins the address that it was sent to. By message, the ticket on
    whose page the code was asked for. `people` is changed where it was."""
    led: dict[int, int] = {}
    for each in prepared:
        place = (each.row.channel, each.row.address)
        number = code_in(said(each.row)) if place in people else ""
        if not number:
            continue
        for code in identity.codes(connection, people[place].customer_id, now):
            if place == (code.channel, code.address):
                continue
            if not hmac.compare_digest(_digest(code.digest.partition("$")[0], number), code.digest):
                identity.count_try(connection, code.id, TRIES, now)
                continue
            identity.end_code(connection, code.id, now)
            if code.ticket_id is not None:
                led[each.row.id] = code.ticket_id
            kept = _confirm(connection, code, place, now)
            if kept is not None:
                _moved(people, connection, kept)
            break
    return led


def _confirm(connection: Connection, code: AnyRow, by: Place, now: datetime) -> int | None:
    target = (code.channel, code.address)
    other = customers.ensure(connection, {target: ("", "")}, now)[target]
    evidence = {"kind": "code", "shown": mask(*target), "channels": [code.channel, by[0]], "asked": code.actor}
    try:
        return join(
            connection, code.customer_id, other.customer_id, evidence, "customer", now, ticket_id=code.ticket_id
        )
    except Refused as error:
        data = {"why": error.why, "evidence": "code"}
        events.append(connection, [events.row("merge_refused", "bot", now, ticket_id=code.ticket_id, **data)])
        return None


def code_in(text: str) -> str:
    """The six digits of a text that is nothing but a code, else ""."""
    if len(text) > _LONGEST or len(text) < 6:
        return ""
    found = _SAID.fullmatch(unicodedata.normalize("NFKC", text.strip()))
    return f"{found[1]}{found[2]}" if found is not None and found[0].isprintable() else ""


def _digest(salt: str, code: str) -> str:
    return f"{salt}${hashlib.sha256(f'{salt}{code}'.encode()).hexdigest()}"


# --- what people do ---------------------------------------------------------------------------------------------------


class Identity:
    """The verbs of one desk. Each is a unit for `Database.write`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def decide(
        self, other: int, reason: str, *, hint: str = "", ticket_id: int | None = None
    ) -> Callable[[Connection, int, Actor], int]:
        """A person says that two customers are one; the id of the one that stays. `hint`: the suggestion's kind,
        `ticket_id`: on whose page it was decided."""
        reason = messages.tidy(reason).strip()
        if not reason or len(reason) > 500:
            raise InvalidInput("reason", "Say why, in 500 characters at most.")

        def verb(connection: Connection, customer_id: int, actor: Actor) -> int:
            evidence = {"kind": "agent", "reason": reason} | ({"hint": hint} if hint else {})
            return join(connection, customer_id, other, evidence, actor.name, datetime.now(UTC), ticket_id=ticket_id)

        return verb

    def part(self, merge_id: int, *, ticket_id: int | None = None) -> Callable[[Connection, int, Actor], int]:
        """Undo a merge of this customer's; the id of the customer that is free again."""

        def verb(connection: Connection, customer_id: int, actor: Actor) -> int:
            if merge_id not in {row.id for row in identity.of_customer(connection, customer_id)}:
                raise NotFound("There is no such merge.")
            return undo(connection, merge_id, actor.name, datetime.now(UTC), ticket_id=ticket_id)

        return verb

    def send_code(self, channel: str, where: str) -> Callable[[Connection, int, Actor], None]:
        """Send six digits to an address that may be the customer's as well, to be said on the ticket's channel.

        Raises `InvalidInput` (address), `NoWay`, `Refused` and `TooMany`.
        """
        where = where.strip().lower() if channel == "mail" else where.strip()
        if channel == "sms":
            where = identity.number_of("sms", re.sub(r"[\s()-]", "", where))
        if not where or (channel == "mail" and not _MAIL.fullmatch(where)):
            raise InvalidInput("address", "A mail address, or a phone number with its country: +86138...")

        def verb(connection: Connection, ticket_id: int, actor: Actor) -> None:
            self._send(connection, tickets.lock_one(connection, ticket_id), (channel, where), actor, datetime.now(UTC))

        return verb

    def _send(self, connection: Connection, row: AnyRow, place: Place, actor: Actor, now: datetime) -> None:
        channel, where = place
        if not row.address:
            raise Refused("erased")
        known = customers.find(connection, [place]).get(place)
        if known is None and channel not in _FREE:
            raise InvalidInput("address", "Nobody ever wrote from there.")
        if known is not None and known.customer_id == row.customer_id:
            raise Refused("same")
        self._check_way(connection, place, known)
        hour, day = now - timedelta(hours=1), now - timedelta(days=1)
        if (
            identity.sent_codes(connection, hour, place=place) >= PER_HOUR
            or identity.sent_codes(connection, day, customer_id=row.customer_id) >= PER_DAY
        ):
            raise TooMany(3600, "Enough codes were sent for now. Wait an hour.")
        code, salt = f"{secrets.randbelow(10**6):06}", secrets.token_hex(8)
        code_id = identity.add_code(
            connection, customer_id=row.customer_id, ticket_id=row.id, channel=channel, address=where,
            digest=_digest(salt, code), actor=actor.name, created_at=now, expires_at=now + LASTS,
        )  # fmt: skip
        self._queue_code(connection, row, place, known, code, now)
        data = {"code": code_id, "channel": channel}
        events.append(connection, [events.row("code_sent", actor.name, now, ticket_id=row.id, **data)])

    def _check_way(self, connection: Connection, place: Place, known: Known | None) -> None:
        limits = self._desk.carries.get(place[0])
        if limits is None or place[0] in self._desk.mute or place[0] in self._desk.pulled:
            raise NoWay("no_way")
        if known is not None and known.suppressed and known.suppressed not in customers.CHOSEN:
            raise NoWay("bounced")
        owner = known.customer_id if known is not None else None
        for automatic in (True, False):
            standing = standing_of(connection, owner, *place, limits, automatic=automatic)
            if standing.refusal:
                raise NoWay(standing.kind, standing.refusal)

    def _queue_code(
        self, connection: Connection, row: AnyRow, place: Place, known: Known | None, code: str, now: datetime
    ) -> None:
        """On no ticket: who is not the customer learns nothing of it, and nobody at the desk reads the code there."""
        channel, where = place
        desk, minutes = self._desk, str(int(LASTS.total_seconds() // 60))
        owner = known.customer_id if known is not None else row.customer_id
        last = identity.newest(connection, owner, channel, where)
        message = {
            "channel": channel,
            "account": last.account if last is not None else identity.any_account(connection, channel),
            "address": where,
            "name": "",
            "subject": desk.says(desk.texts.code_subject, row.language),
            "text": desk.says(desk.texts.code, row.language, code=code, minutes=minutes),
            "key": desk.message_key(channel, "code"),
            "thread": last.thread if last is not None else "",
            "extra": None,
            "ticket_id": None,
            "customer_id": owner,
            "author_id": None,
            "kind": "code",
            "automatic": True,
        }
        outbox.queue(connection, [message], now)
