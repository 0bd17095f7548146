"""Customers and their addresses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from domain import NotFound
from storage.database import insert_new
from storage.tables import Address, Customer, IdentityMerge, table
from storage.types import AnyRow

customer = table(Customer)
address = table(Address)
merge = table(IdentityMerge)

Place = tuple[str, str]  # channel, address


@dataclass(frozen=True, slots=True)
class Known:
    customer_id: int
    suppressed: str | None
    #: made by this very call
    new: bool = False


_FIND = sa.select(address.c.channel, address.c.address, address.c.customer_id, address.c.suppressed).where(
    address.c.channel.in_(bindparam("channels", expanding=True)),
    address.c.address.in_(bindparam("addresses", expanding=True)),
)


def find(connection: Connection, places: Collection[Place]) -> dict[Place, Known]:
    """Who is behind these addresses; unknown ones are missing."""
    channels, addresses = ({place[part] for place in places} for part in (0, 1))
    rows = connection.execute(_FIND, {"channels": sorted(channels), "addresses": sorted(addresses)})
    found = {(row.channel, row.address): Known(row.customer_id, row.suppressed) for row in rows}
    return {place: found[place] for place in places if place in found}


_MAKE = sa.insert(customer).returning(customer.c.id, customer.c.name, customer.c.language)


def ensure(connection: Connection, names: Mapping[Place, tuple[str, str]], now: datetime) -> dict[Place, Known]:
    """The customers behind addresses, made where they are new. `names`: address -> (display name, language)."""
    known = find(connection, names.keys())
    # Sorted, so that two workers who make the same customers wait for one another instead of deadlocking.
    new = sorted(place for place in names if place not in known)
    if not new:
        return known
    # Which id is whose does not matter between customers of one name and language.
    free: dict[tuple[str, str], list[int]] = {}
    for row in connection.execute(
        _MAKE,
        [{"name": names[place][0], "language": names[place][1], "created_at": now} for place in new],
    ):
        free.setdefault((row.name, row.language), []).append(row.id)
    ids = [free[names[place]].pop() for place in new]
    rows = [
        {"customer_id": customer_id, "channel": place[0], "address": place[1], "created_at": now}
        for place, customer_id in zip(new, ids, strict=True)
    ]
    made = set(connection.scalars(insert_new(connection, address, address.c.customer_id), rows))
    known.update({place: Known(each, None, new=True) for place, each in zip(new, ids, strict=True) if each in made})
    lost = [each for each in ids if each not in made]
    if lost:  # somebody else made the address in the meantime: theirs stays
        connection.execute(sa.delete(customer).where(customer.c.id.in_(lost)))
        theirs = [place for place in new if place not in known]
        lock(connection, theirs)
        known.update(find(connection, theirs))
    return known


def lock(connection: Connection, places: Collection[Place]) -> None:
    """Let other workers wait who would answer the same addresses at the same time (SQLite's writer is alone anyway)."""
    if connection.dialect.name == "sqlite" or not places:
        return
    query = sa.select(address.c.id).where(
        address.c.channel.in_(sorted({place[0] for place in places})),
        address.c.address.in_(sorted({place[1] for place in places})),
    )
    connection.execute(query.order_by(address.c.id).with_for_update())


def suppress(
    connection: Connection, channel: str, where: str, reason: str, *, customer_id: int | None, now: datetime
) -> None:
    """Send nothing there any more. An address that only answers went to (a Reply-To) becomes one of the customer's."""
    known = connection.execute(
        sa.update(address).where(address.c.channel == channel, address.c.address == where).values(suppressed=reason)
    )
    if known.rowcount == 0 and customer_id is not None:
        row = {
            "customer_id": customer_id,
            "channel": channel,
            "address": where,
            "suppressed": reason,
            "created_at": now,
        }
        connection.execute(insert_new(connection, address), [row])


def stand(connection: Connection, channel: str, where: str, refused: str | None, now: datetime) -> int | None:
    """Note whether an address may be written to; the customer's id. An address that is new is made for it.

    A hard bounce stays whatever is said here; only what the customer decided is taken back.
    """
    known = ensure(connection, {(channel, where): ("", "")}, now)[channel, where]
    bounced = known.suppressed is not None and known.suppressed not in CHOSEN
    if bounced or refused == known.suppressed:
        return known.customer_id
    connection.execute(
        sa.update(address).where(address.c.channel == channel, address.c.address == where).values(suppressed=refused)
    )
    return known.customer_id


#: reasons that are the customer's own, and end when they say so
CHOSEN = frozenset({"opted_out", "blocked", "unsubscribed"})


def get(connection: Connection, customer_id: int) -> AnyRow:
    row = connection.execute(sa.select(customer).where(customer.c.id == customer_id)).first()
    if row is None:
        raise NotFound(f"There is no customer {customer_id}.")
    return row


def addresses(connection: Connection, customer_id: int) -> list[AnyRow]:
    query = sa.select(address).where(address.c.customer_id == customer_id).order_by(address.c.id)
    return list(connection.execute(query))


def named(connection: Connection, name: str) -> list[int]:
    """The customers that a command's argument means: an id, or any address. Several channels may share an address."""
    ids = set(connection.scalars(sa.select(address.c.customer_id).where(address.c.address == name)))
    ids |= set(connection.scalars(sa.select(address.c.customer_id).where(address.c.address == name.lower())))
    if name.isascii() and name.isdigit():
        query = sa.select(customer.c.id).where(customer.c.id == int(name), customer.c.erased_at.is_(None))
        ids |= {holder(connection, each) for each in connection.scalars(query)}
    return sorted(ids)


def holder(connection: Connection, customer_id: int) -> int:
    """The customer that this one was joined with and that has all that was theirs; itself where it was not."""
    while True:
        query = sa.select(merge.c.kept_id).where(merge.c.absorbed_id == customer_id, merge.c.undone_at.is_(None))
        found = connection.scalar(query)
        if found is None:
            return customer_id
        customer_id = found
