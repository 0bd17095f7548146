"""Messages: stored before anything else happens, then led to one of their ends."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from domain import Attachment as File
from domain import Incoming, InState, Message, NotFound, Stored, Unreadable
from storage import events, parts
from storage.database import insert_new
from storage.tables import Attachment, Quarantine, Raw, Sighting, table
from storage.tables import Message as Table
from storage.types import AnyRow, literal
from storage.types import tidy as tidy

message = table(Table)
raw = table(Raw)
sighting = table(Sighting)
attachment = table(Attachment)
quarantine = table(Quarantine)

Key = tuple[str, str, str]

_KEY_LENGTH = 1200  # bytes: PostgreSQL's index rows end at 2700


def fingerprint(item: Incoming) -> str:
    """The digest by which the same key with other content is noticed."""
    given = item.fingerprint if isinstance(item, Message) else ""
    return given or hashlib.sha256(item.raw).hexdigest()


def external_id(item: Incoming) -> str:
    """As stored: an id longer than the index takes keeps its head and the digest of the whole."""
    whole = item.external_id.encode("utf-8", "surrogatepass")
    if len(whole) <= _KEY_LENGTH:
        return item.external_id
    return whole[: _KEY_LENGTH - 65].decode("utf-8", "ignore") + ":" + hashlib.sha256(whole).hexdigest()


def as_row(item: Incoming, now: datetime, held_until: datetime | None = None) -> dict[str, Any]:
    """What is stored of a message."""
    row: dict[str, Any] = {
        "direction": "in",
        "channel": item.channel,
        "account": item.account,
        "external_id": tidy(external_id(item)),
        "state": InState.RECEIVED.value,
        "address": tidy(item.sender[:512]),
        "name": "",
        "subject": tidy(item.subject),
        "text": "",
        "clean": None,
        "key": "",
        "thread": "",
        "extra": None,
        "answerable": False,
        "automatic": None,
        "reason": None,
        "received_at": item.received_at,
        "stored_at": now,
        "held_until": held_until,
        "tries": 0,
    }
    if isinstance(item, Unreadable):
        row["state"] = InState.QUARANTINED.value
        row["held_until"] = None
        row["reason"] = tidy(item.reason)
        return row
    extra: dict[str, Any] = {}
    if item.thread_keys:
        extra["keys"] = [tidy(key) for key in item.thread_keys]
    if item.parts:
        extra["parts"] = parts.as_json(item)
    for name in ("ticket_hint", "reply_to", "recipient", "revises"):
        if value := getattr(item, name):
            extra[name] = tidy(value[:512])
    automatic = item.automatic
    if automatic is not None:
        extra["concerns"] = [tidy(key) for key in automatic.concerns]
        extra["permanent"] = automatic.permanent
        extra["recipients"] = [tidy(each) for each in automatic.recipients]
    row.update(
        name=tidy(item.sender_name[:200]),
        text=tidy(item.text),
        clean=None if item.clean is None else tidy(item.clean),
        key=tidy(item.key[:1000]),
        thread=tidy(item.thread[:512]),
        extra=extra or None,
        answerable=item.answerable and automatic is None,
        automatic=automatic.kind.value if automatic else None,
        reason=tidy(automatic.why) if automatic else None,
    )
    return row


_LOOKUP = sa.select(message.c.id, message.c.channel, message.c.account, message.c.external_id).where(
    message.c.channel == bindparam("channel"),
    message.c.account == bindparam("account"),
    message.c.external_id.in_(bindparam("externals", expanding=True)),
)


def _known(connection: Connection, keys: Collection[Key]) -> dict[Key, int]:
    by_account: dict[tuple[str, str], list[str]] = {}
    for channel, account, external in keys:
        by_account.setdefault((channel, account), []).append(external)
    found: dict[Key, int] = {}
    for (channel, account), externals in by_account.items():
        for row in connection.execute(_LOOKUP, {"channel": channel, "account": account, "externals": externals}):
            found[row.channel, row.account, row.external_id] = row.id
    return found


_BODY = sa.insert(raw)
_FILE = sa.insert(attachment)


def store(connection: Connection, items: Sequence[Incoming], *, hold: timedelta | None = None) -> list[Stored]:
    """Store incoming messages. A batch call: one `Stored` for each, in order; a known key stores nothing again.

    `hold`: they are claimed for so long by the worker of the process that stores them.
    """
    now = datetime.now(UTC)
    held_until = now + hold if hold else None
    rows = [as_row(item, now, held_until) for item in items]
    keys = [(row["channel"], row["account"], row["external_id"]) for row in rows]
    # A mailbox whose UIDs were seen already may show a mail with headers that a server rewrote: the mark decides.
    marked = _by_mark(connection, items)
    fresh: dict[Key, dict[str, Any]] = {}
    for key, row, item in zip(keys, rows, items, strict=True):
        if item.seen_at not in marked:
            fresh.setdefault(key, row)
    made: dict[Key, int] = {}
    if fresh:
        returned = connection.execute(
            insert_new(connection, message, message.c.id, message.c.channel, message.c.account, message.c.external_id),
            list(fresh.values()),
        )
        made = {(row.channel, row.account, row.external_id): row.id for row in returned}
    ids = made | _known(connection, {key for key in fresh if key not in made})
    results: list[Stored] = []
    bodies: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    again: list[tuple[int, str]] = []
    media: list[dict[str, Any]] = []
    more: list[tuple[int, Message]] = []
    unused = set(made)
    for item, key in zip(items, keys, strict=True):
        if item.seen_at in marked:
            results.append(Stored(marked[item.seen_at] or 0, new=False))
            continue
        message_id = ids[key]
        new = key in unused
        unused.discard(key)
        results.append(Stored(message_id, new=new))
        digest = fingerprint(item)
        if new:
            bodies.append({"message_id": message_id, "body": item.raw, "fingerprint": digest})
            if isinstance(item, Message):
                files.extend(as_files(message_id, item))
                media.extend(parts.media(message_id, item, now))
            else:
                held.append({"message_id": message_id, "step": "read", "reason": tidy(item.reason), "at": now})
        elif isinstance(item, Message) and item.merges:
            more.append((message_id, item))
            continue
        else:
            again.append((len(results) - 1, digest))
        if item.seen_at is not None:
            place, mark = item.seen_at
            marks.append({"channel": item.channel, "place": place, "mark": mark, "message_id": message_id})
    if bodies:
        connection.execute(_BODY, bodies)
    if files:
        connection.execute(_FILE, files)
    if marks:
        connection.execute(insert_new(connection, sighting), marks)
    if held:
        connection.execute(sa.insert(quarantine), held)
    parts.add(connection, media)
    for message_id, item in more:
        parts.merge(connection, message_id, item, now)
    if again:
        _note_differences(connection, results, again, now)
    return results


def as_files(message_id: int, item: Message) -> list[dict[str, Any]]:
    """The rows of a message's attachments."""
    return [file_row(message_id, file) for file in item.attachments]


def file_row(message_id: int, file: File) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "name": tidy(file.name[:500]),
        "media_type": tidy(file.media_type[:128]),
        "content_id": tidy(file.content_id[:512]),
        "size": len(file.content),
        "sha256": hashlib.sha256(file.content).hexdigest(),
        "content": file.content,
    }


def by_key(connection: Connection, channel: str, account: str, external: str) -> AnyRow | None:
    """An incoming message by its channel's own id, or None; whoever processes it now is waited for."""
    query = sa.select(message).where(
        message.c.channel == channel, message.c.account == account, message.c.external_id == external
    )
    return connection.execute(query.with_for_update()).first()


def revisions(connection: Connection, row: AnyRow) -> Sequence[AnyRow]:
    """The customer's later wordings of a message: of those that are processed, and of those that still wait."""
    waits = message.c.state == literal("received")
    query = sa.select(message).where(
        sa.or_(message.c.customer_id == row.customer_id, waits) if row.customer_id is not None else waits,
        message.c.channel == row.channel,
        message.c.account == row.account,
        message.c.extra["revises"].as_string() == row.external_id,
    )
    return connection.execute(query).all()


_MARKED = sa.select(sighting.c.mark, sighting.c.message_id).where(
    sighting.c.channel == bindparam("channel"),
    sighting.c.place == bindparam("place"),
    sighting.c.mark.in_(bindparam("marks", expanding=True)),
)


def _by_mark(connection: Connection, items: Sequence[Incoming]) -> dict[tuple[str, str] | None, int | None]:
    places: dict[tuple[str, str], list[str]] = {}
    for item in items:
        if item.seen_at is not None:
            places.setdefault((item.channel, item.seen_at[0]), []).append(item.seen_at[1])
    found: dict[tuple[str, str] | None, int | None] = {}
    for (channel, place), marks in places.items():
        for row in connection.execute(_MARKED, {"channel": channel, "place": place, "marks": marks}):
            found[place, row.mark] = row.message_id
    return found


def _note_differences(
    connection: Connection, results: list[Stored], again: Sequence[tuple[int, str]], now: datetime
) -> None:
    ids = {results[index].message_id for index, _digest in again}
    query = (
        sa.select(raw.c.message_id, raw.c.fingerprint, message.c.ticket_id)
        .join(message, message.c.id == raw.c.message_id)
        .where(raw.c.message_id.in_(ids))
    )
    known = {row.message_id: row for row in connection.execute(query)}
    changed = []
    for index, digest in again:
        row = known.get(results[index].message_id)
        if row is not None and row.fingerprint != digest:
            results[index] = Stored(row.message_id, new=False, differs=True)
            changed.append(events.row("duplicate_differs", "bot", now, ticket_id=row.ticket_id, message=row.message_id))
    events.append(connection, changed)


def unseen_marks(connection: Connection, channel: str, place: str, marks: Sequence[str]) -> list[str]:
    """Those marks of a place (mail: "uidvalidity:uid" of a mailbox) under which nothing is stored yet, in order."""
    seen: set[str] = set()
    for start in range(0, len(marks), 500):
        query = sa.select(sighting.c.mark).where(
            sighting.c.channel == channel, sighting.c.place == place, sighting.c.mark.in_(marks[start : start + 500])
        )
        seen.update(connection.scalars(query))
    return [mark for mark in marks if mark not in seen]


_WAITING = sa.select(
    message.c.id, message.c.channel, message.c.account, message.c.address, message.c.name, message.c.subject,
    message.c.text, message.c.clean, message.c.key, message.c.thread, message.c.extra, message.c.answerable,
    message.c.automatic, message.c.reason, message.c.received_at, message.c.stored_at, message.c.tries,
).where(message.c.id.in_(bindparam("ids", expanding=True)), message.c.state == literal("received")).order_by(
    message.c.id
)  # fmt: skip


def waiting(connection: Connection, ids: Sequence[int]) -> Sequence[AnyRow]:
    """Those of the messages that nobody processed yet, with what processing needs."""
    return connection.execute(_WAITING, {"ids": list(ids)}).all()


_STILL = sa.select(message.c.id).where(
    message.c.id.in_(bindparam("ids", expanding=True)), message.c.state == literal("received")
)


_STILL_LOCKED = _STILL.with_for_update(skip_locked=True)


def lock_waiting(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those that are still unprocessed, locked until the transaction ends. Another worker's are left out."""
    query = _STILL if connection.dialect.name == "sqlite" else _STILL_LOCKED
    return set(connection.scalars(query, {"ids": sorted(ids)}))


def release(connection: Connection, ids: Collection[int]) -> None:
    """Give back the claims of unprocessed messages: any worker may take them."""
    connection.execute(_RELEASE, {"ids": list(ids)})


_RELEASE = (
    sa.update(message)
    .where(message.c.id.in_(bindparam("ids", expanding=True)), message.c.state == literal("received"))
    .values(held_until=None)
)


_FINISH = (
    sa.update(message)
    .where(message.c.id == bindparam("b_id"))
    .values(
        state=bindparam("state"),
        ticket_id=bindparam("ticket_id"),
        customer_id=bindparam("customer_id"),
        tags=bindparam("tags"),
        held_until=None,
    )
)


def finish(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the ends of messages: rows of {b_id, state, ticket_id, customer_id, tags}."""
    if rows:
        connection.execute(_FINISH, list(rows))


def count_try(
    connection: Connection, message_id: int, step: str, reason: str, most: int, *, release: bool = True
) -> bool:
    """A step failed. True when it was the last try: the message is in quarantine now.

    `release`: give the worker's claim back; False where this worker goes on with it.
    """
    query = sa.update(message).where(message.c.id == message_id, message.c.state == literal("received"))
    if release:
        query = query.values(held_until=None)
    tries = connection.scalar(query.values(tries=message.c.tries + 1).returning(message.c.tries))
    if tries is None or tries < most:
        return False
    hold(connection, message_id, step, reason)
    return True


def hold(connection: Connection, message_id: int, step: str, reason: str) -> None:
    """Put a message into quarantine, with its reason."""
    now = datetime.now(UTC)
    connection.execute(
        sa.update(message)
        .where(message.c.id == message_id)
        .values(state=InState.QUARANTINED.value, reason=reason, held_until=None)
    )
    connection.execute(sa.insert(quarantine).values(message_id=message_id, step=step, reason=reason, at=now))
    events.append(connection, [events.row("quarantined", "bot", now, message=message_id, step=step)])


def quarantined(connection: Connection, *, before: int | None = None, limit: int = 50) -> Sequence[AnyRow]:
    """What lies in quarantine, newest first."""
    size = sa.func.length(raw.c.body).label("size")
    query = (
        sa.select(
            quarantine.c.id, quarantine.c.message_id, quarantine.c.step, quarantine.c.reason, quarantine.c.at,
            message.c.channel, message.c.account, message.c.address, message.c.subject, message.c.tries, size,
        )
        .join(message, message.c.id == quarantine.c.message_id)
        .outerjoin(raw, raw.c.message_id == message.c.id)
        .where(message.c.state == literal("quarantined"), quarantine.c.outcome.is_(None))
        .order_by(quarantine.c.id.desc())
        .limit(limit)
    )  # fmt: skip
    if before is not None:
        query = query.where(quarantine.c.id < before)
    return connection.execute(query).all()


def automatic(
    connection: Connection, *, kind: str = "", before: int | None = None, limit: int = 50
) -> Sequence[AnyRow]:
    """Kept automatic mail, newest first."""
    query = (
        sa.select(
            message.c.id, message.c.channel, message.c.address, message.c.name, message.c.subject, message.c.automatic,
            message.c.reason, message.c.ticket_id, message.c.stored_at,
        )
        .where(message.c.state == literal("automatic"))
        .order_by(message.c.id.desc())
        .limit(limit)
    )  # fmt: skip
    if kind:
        query = query.where(message.c.automatic == kind)
    if before is not None:
        query = query.where(message.c.id < before)
    return connection.execute(query).all()


def get(connection: Connection, message_id: int) -> AnyRow:
    """One message's row. Raises `NotFound`."""
    row = connection.execute(sa.select(message).where(message.c.id == message_id)).first()
    if row is None:
        raise NotFound(f"There is no message {message_id}.")
    return row


def body(connection: Connection, message_id: int) -> bytes:
    """The untouched payload. Raises `NotFound`."""
    found = connection.scalar(sa.select(raw.c.body).where(raw.c.message_id == message_id))
    if found is None:
        raise NotFound(f"There is no original of message {message_id}.")
    return bytes(found)


def attachments(connection: Connection, message_ids: Sequence[int]) -> Sequence[AnyRow]:
    """Names and sizes of the attachments of messages, without content."""
    columns = [attachment.c[name] for name in ("id", "message_id", "name", "media_type", "size")]
    query = sa.select(*columns).where(attachment.c.message_id.in_(list(message_ids))).order_by(attachment.c.id)
    return connection.execute(query).all()


def attachment_of(connection: Connection, attachment_id: int) -> AnyRow:
    """One attachment with its content and its message's ticket. Raises `NotFound`."""
    query = (
        sa.select(attachment, message.c.ticket_id)
        .join(message, message.c.id == attachment.c.message_id)
        .where(attachment.c.id == attachment_id)
    )
    row = connection.execute(query).first()
    if row is None:
        raise NotFound("There is no such attachment.")
    return row


def overdue(connection: Connection, *, older_than: timedelta, limit: int = 1000, held: bool = False) -> list[int]:
    """Stored messages that nobody processed though they should have been: the sweeper rings for them again.

    `held`: those that a worker has at this moment as well.
    """
    now = datetime.now(UTC)
    query = (
        sa.select(message.c.id)
        .where(message.c.state == literal("received"), message.c.stored_at <= now - older_than)
        .order_by(message.c.id)
        .limit(limit)
    )
    if not held:
        query = query.where(sa.or_(message.c.held_until.is_(None), message.c.held_until < now))
    return list(connection.scalars(query))


def count_received(connection: Connection) -> int:
    """How many messages are stored and not yet processed."""
    query = sa.select(sa.func.count()).where(message.c.state == literal("received"))
    return connection.scalar(query) or 0
