"""What rests: one SQLModel class a noun. `storage/migrations` makes the same tables, and a test proves it.

The hot path writes these tables by Core multi-row statements; nothing in Sluice uses an ORM session. The search index
(FTS5 on SQLite, a tsvector on PostgreSQL) is made in `storage.search`, since the two have no common form.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, Table, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from storage.types import Json, RowId, UtcTime


def _id() -> Any:
    return Field(default=None, sa_column=Column(RowId, primary_key=True, autoincrement=True))


def _with(value: Any) -> Any:
    """A default that Core inserts know too: SQLModel gives its own to objects only."""
    return Field(default=value, sa_column_kwargs={"default": value})


def _str(length: int) -> Any:
    return Field(default="", max_length=length, sa_column_kwargs={"default": ""})


def _ref(table: str, *, nullable: bool = False, index: bool = True, unique: bool = False) -> Any:
    return Field(
        default=None,
        sa_column=Column(RowId, ForeignKey(f"{table}.id"), nullable=nullable, index=index, unique=unique),
    )


def _time(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(UtcTime, nullable=nullable))


def _json(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(Json, nullable=nullable))


def _text() -> Any:
    return Field(default="", sa_column=Column(Text, nullable=False, default=""))


def _partial(name: str, *columns: str, where: str) -> Index:
    """An index of some rows. SQLite uses it only for a query with the very same words, literals included."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Customer(SQLModel, table=True):
    """A person who writes to us. What identifies them is in `Address`."""

    __tablename__ = "customer"

    id: int = _id()
    name: str = _text()
    language: str = _str(16)
    created_at: datetime = _time()
    erased_at: datetime | None = _time(nullable=True)


class Address(SQLModel, table=True):
    """One way to reach a customer."""

    __tablename__ = "address"
    __table_args__ = (UniqueConstraint("channel", "address"),)

    id: int = _id()
    customer_id: int = _ref("customer")
    channel: str = Field(max_length=32)
    address: str = Field(max_length=512)
    #: why nothing is sent there any more (a hard bounce), or None
    suppressed: str | None = Field(default=None, max_length=512)
    created_at: datetime = _time()


class IdentityMerge(SQLModel, table=True):
    """Two customers were found to be one person: what moved to the one that stays, so that it can be undone."""

    __tablename__ = "identity_merge"

    id: int = _id()
    kept_id: int = _ref("customer")
    absorbed_id: int = _ref("customer")
    #: why: `kind` (same_number, code, agent), and what in masked form; after erasing the kind alone
    evidence: dict[str, Any] = _json()
    #: ids of the addresses, tickets and messages that went over
    moved: dict[str, Any] = _json()
    actor: str = Field(max_length=128)
    at: datetime = _time()
    undone_at: datetime | None = _time(nullable=True)
    undone_by: str = _str(128)


class IdentityCode(SQLModel, table=True):
    """A code that was sent to an address, to be said by a customer elsewhere: who reads both is one person."""

    __tablename__ = "identity_code"
    __table_args__ = (Index("ix_identity_code_place", "channel", "address"),)

    id: int = _id()
    #: who is to say it
    customer_id: int = _ref("customer")
    #: on whose page it was asked for
    ticket_id: int | None = _ref("ticket", nullable=True, index=False)
    #: where it was sent
    channel: str = Field(max_length=32)
    address: str = Field(max_length=512)
    #: `salt$digest`: the code itself is kept nowhere but in the message that carries it
    digest: str = Field(max_length=128)
    tries: int = _with(0)
    actor: str = Field(max_length=128)
    created_at: datetime = _time()
    expires_at: datetime = _time()
    #: said, or said wrong too often
    ended_at: datetime | None = _time(nullable=True)


class Ticket(SQLModel, table=True):
    """A customer's matter, tracked until it is closed. The public number is `domain.public_number(id)`."""

    __tablename__ = "ticket"
    __table_args__ = (
        Index("ix_ticket_queue", "state", "department", "id"),
        _partial("ix_ticket_alarm", "next_alarm_at", where="next_alarm_at IS NOT NULL"),
        _partial("ix_ticket_owner", "owner_id", where="owner_id IS NOT NULL"),
    )  # fmt: skip

    id: int = _id()
    #: secret of the tracking link
    token: str = Field(max_length=64, unique=True)
    #: grows with every change: "on condition of the old state"
    version: int = _with(1)
    state: str = Field(max_length=16)
    department: str = Field(max_length=64)
    priority: str = Field(max_length=16)
    owner_id: int | None = _ref("person", nullable=True, index=False)
    customer_id: int = _ref("customer")
    channel: str = Field(max_length=32)
    account: str = Field(max_length=128)
    #: the customer's address that answers go to
    address: str = Field(max_length=512)
    subject: str = _text()
    #: first line of the newest customer message, for the queue's row
    snippet: str = _str(400)
    language: str = _str(16)
    intent: str = Field(max_length=64)
    sentiment: str = Field(max_length=16)
    risk: list[str] = _json()
    tags: list[str] = _json()
    #: why it is here: the newest `Route` as JSON (rule, why, look_first, confidence)
    route: dict[str, Any] = _json()
    look_first: bool = _with(False)
    #: told to supervisors: "" | warned | breached
    alarm: str = _str(16)
    resolution_code: str = _str(64)
    linked_id: int | None = _ref("ticket", nullable=True, index=False)
    created_at: datetime = _time()
    updated_at: datetime = _time()
    #: when the customer last wrote and nobody has answered since
    waiting_since: datetime | None = _time(nullable=True)
    first_due_at: datetime | None = _time(nullable=True)
    first_response_at: datetime | None = _time(nullable=True)
    resolve_due_at: datetime | None = _time(nullable=True)
    resolved_at: datetime | None = _time(nullable=True)
    closed_at: datetime | None = _time(nullable=True)
    #: the resolution clock stands still since then (state pending)
    paused_at: datetime | None = _time(nullable=True)
    #: which alarms were written: e.g. ["first.warned"]
    alarms: list[str] = _json()
    #: when the clock must look at it next
    next_alarm_at: datetime | None = _time(nullable=True)
    #: the last answer was a person's (for "we spoke last")
    answered_last: bool = _with(False)


class Message(SQLModel, table=True):
    """What was said, in either direction, and internal notes (direction `note`)."""

    __tablename__ = "message"
    __table_args__ = (
        UniqueConstraint("channel", "account", "external_id"),
        _partial("ix_message_received", "id", where="state = 'received'"),
        _partial("ix_message_automatic", "id", where="state = 'automatic'"),
        _partial("ix_message_quarantined", "id", where="state = 'quarantined'"),
        _partial("ix_message_ledger", "channel", "state", "stored_at", where="direction = 'in'"),
    )  # fmt: skip

    id: int = _id()
    direction: str = Field(max_length=8)
    channel: str = Field(max_length=32)
    account: str = Field(max_length=128)
    external_id: str = Field(max_length=1200)
    #: incoming: `domain.InState`; outgoing: `outbox.state` is the truth, here it stays ""
    state: str = _str(16)
    #: the customer's address (in: who wrote; out: to whom)
    address: str = Field(max_length=512)
    name: str = _text()
    subject: str = _text()
    text: str = _text()
    clean: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    key: str = _str(1000)
    thread: str = _str(512)
    #: thread keys, hint, reply_to, recipient: what the process step needs of `domain.Message`
    extra: dict[str, Any] | None = _json(nullable=True)
    answerable: bool = _with(True)
    automatic: str | None = Field(default=None, max_length=16)
    #: why it is automatic or in quarantine
    reason: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    tags: dict[str, Any] | None = _json(nullable=True)
    ticket_id: int | None = _ref("ticket", nullable=True)
    customer_id: int | None = _ref("customer", nullable=True)
    author_id: int | None = _ref("person", nullable=True, index=False)
    #: the provider's time of an incoming message
    received_at: datetime = _time()
    stored_at: datetime = _time()
    tries: int = _with(0)
    #: a worker has it until then
    held_until: datetime | None = _time(nullable=True)


class Raw(SQLModel, table=True):
    """The untouched payload of an incoming message."""

    __tablename__ = "raw"

    message_id: int = Field(sa_column=Column(RowId, ForeignKey("message.id"), primary_key=True, autoincrement=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    #: digest of the content: the same key with another one is an event
    fingerprint: str = Field(max_length=64)


class Sighting(SQLModel, table=True):
    """Where a channel showed a message: mail's (mailbox, uidvalidity:uid). The second unique key of dedupe."""

    __tablename__ = "sighting"
    __table_args__ = (UniqueConstraint("channel", "place", "mark"),)

    id: int = _id()
    channel: str = Field(max_length=32)
    place: str = Field(max_length=256)
    mark: str = Field(max_length=64)
    #: None: the message was erased. The mark stays, or the mailbox's old mail would come in again.
    message_id: int | None = _ref("message", nullable=True)


class Attachment(SQLModel, table=True):
    __tablename__ = "attachment"

    id: int = _id()
    message_id: int = _ref("message")
    name: str = Field(max_length=512)
    media_type: str = Field(max_length=128)
    content_id: str = _str(512)
    size: int
    sha256: str = Field(max_length=64)
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class Medium(SQLModel, table=True):
    """What a part of a message refers to and a worker fetches. Its content becomes an `Attachment`."""

    __tablename__ = "medium"
    __table_args__ = (_partial("ix_medium_waiting", "next_at", where="state = 'waiting'"),)

    id: int = _id()
    message_id: int = _ref("message")
    #: which of the message's parts, from 0
    part: int
    channel: str = Field(max_length=32)
    reference: dict[str, str] = _json()
    #: waiting | fetched | failed
    state: str = Field(max_length=16)
    tries: int = _with(0)
    next_at: datetime = _time()
    #: why it could not be fetched (yet)
    reason: str = _text()
    attachment_id: int | None = _ref("attachment", nullable=True, index=False)


class ProviderMessage(SQLModel, table=True):
    """What a provider calls a message of ours, and what it said of it. It may speak before we know what we sent."""

    __tablename__ = "provider_message"

    channel: str = Field(max_length=32, primary_key=True)
    account: str = Field(max_length=128, primary_key=True)
    provider_id: str = Field(max_length=512, primary_key=True)
    outbox_id: int | None = _ref("outbox", nullable=True)
    #: `domain.OutState`: sent, delivered or failed
    state: str = Field(max_length=16)
    reason: str = _text()
    at: datetime = _time()


class Lease(SQLModel, table=True):
    """What only one process of all may do at a time, and which does."""

    __tablename__ = "lease"

    name: str = Field(max_length=128, primary_key=True)
    holder: str = Field(max_length=64)
    until: datetime = _time()


class Thread(SQLModel, table=True):
    """A key under which later messages find their ticket.

    The key is a digest of channel, the customer's address and the thread key, so that another person who quotes the
    same Message-ID finds nothing (promise P9), and no address stands in it.
    """

    __tablename__ = "thread"

    key: str = Field(max_length=32, primary_key=True)
    ticket_id: int = _ref("ticket")


class Event(SQLModel, table=True):
    """Append-only. Ids, labels and states; never customers' text or addresses."""

    __tablename__ = "event"

    id: int = _id()
    ticket_id: int | None = _ref("ticket", nullable=True)
    kind: str = Field(max_length=32)
    #: `bot`, `clock`, `customer`, `person:<name>`, `token:<name>`
    actor: str = Field(max_length=128)
    at: datetime = _time()
    data: dict[str, Any] = _json()


class Outbox(SQLModel, table=True):
    """One outgoing message on its way."""

    __tablename__ = "outbox"
    __table_args__ = (
        _partial("ix_outbox_due", "channel", "next_at", where="state = 'queued'"),
        _partial("ix_outbox_sending", "held_until", where="state = 'sending'"),
        # SQLAlchemy asks SQLite for `automatic = 1`, and an index that says it otherwise is not used.
        Index("ix_outbox_automatic", "address", "created_at", sqlite_where=text("automatic = 1"),
              postgresql_where=text("automatic")),
        Index("ix_outbox_state", "channel", "state"),
        _partial("ix_outbox_unfinished", "address", "id", where="(state = 'queued' OR state = 'sending')"),
    )  # fmt: skip

    id: int = _id()
    message_id: int = _ref("message", index=False, unique=True)
    ticket_id: int | None = _ref("ticket", nullable=True)
    channel: str = Field(max_length=32)
    account: str = Field(max_length=128)
    address: str = Field(max_length=512)
    #: acknowledgement | care | reply
    kind: str = Field(max_length=16)
    automatic: bool
    state: str = Field(max_length=16)
    tries: int = _with(0)
    #: it was `unknown` once and is sent a second and last time
    repeated: bool = _with(False)
    #: of a text that goes out in several messages: how many the channel has
    done: int = _with(0)
    next_at: datetime = _time()
    held_until: datetime | None = _time(nullable=True)
    provider_id: str = _str(512)
    error: str = _text()
    created_at: datetime = _time()
    updated_at: datetime = _time()


class Person(SQLModel, table=True):
    """Somebody who signs in to the console."""

    __tablename__ = "person"

    id: int = _id()
    name: str = Field(max_length=64, unique=True)
    role: str = Field(max_length=16)
    departments: list[str] = _json()
    #: argon2; "" = cannot sign in by password (yet)
    password: str = _str(256)
    language: str = _str(16)
    active: bool = _with(True)
    created_at: datetime = _time()


class SignIn(SQLModel, table=True):
    """A signed-in browser (kind `session`) or a one-time link (kind `link`). Only the secret's digest is kept."""

    __tablename__ = "sign_in"

    digest: str = Field(max_length=64, primary_key=True)
    kind: str = Field(max_length=8)
    person_id: int | None = _ref("person", nullable=True)
    csrf: str = _str(64)
    created_at: datetime = _time()
    expires_at: datetime = _time()


class Token(SQLModel, table=True):
    """A program's key to the API. Only the digest is kept."""

    __tablename__ = "token"

    id: int = _id()
    name: str = Field(max_length=64, unique=True)
    role: str = Field(max_length=16)
    digest: str = Field(max_length=64, unique=True)
    created_at: datetime = _time()


class Label(SQLModel, table=True):
    """What a person said a message really was: the next model's training data. A newer one supersedes."""

    __tablename__ = "label"

    id: int = _id()
    message_id: int = _ref("message")
    ticket_id: int | None = _ref("ticket", nullable=True)
    person: str = Field(max_length=64)
    at: datetime = _time()
    intent: str = Field(max_length=64)
    department: str = Field(max_length=64)
    sentiment: str = Field(max_length=16)
    #: what the model had said, to measure misrouting without reading old models
    said: dict[str, Any] = _json()


class Model(SQLModel, table=True):
    """A tagger that was trained from people's labels. No row in state `promoted`: the shipped file is in use."""

    __tablename__ = "model"
    __table_args__ = (
        # At most one is in use.
        Index("ix_model_promoted", "state", unique=True, sqlite_where=text("state = 'promoted'"),
              postgresql_where=text("state = 'promoted'")),
    )  # fmt: skip

    version: str = Field(max_length=64, primary_key=True)
    #: candidate | promoted | retired
    state: str = Field(max_length=16)
    made_at: datetime = _time()
    promoted_at: datetime | None = _time(nullable=True)
    promoted_by: str = _str(128)
    #: what was in use when it was promoted, and is again after a rollback; None: the shipped file
    predecessor: str | None = Field(default=None, max_length=64)
    #: what it was made of, its certificates, how it compared: figures and labels, never customers' text
    report: dict[str, Any] = _json()
    #: the file (`nlu.weights`); last, so that SQLite need not read it to get at the others
    content: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class Quarantine(SQLModel, table=True):
    """A message that could not be read or processed, with its reason."""

    __tablename__ = "quarantine"

    id: int = _id()
    message_id: int = _ref("message")
    step: str = Field(max_length=32)
    reason: str = _text()
    at: datetime = _time()
    #: `retried` or `discarded: why`
    outcome: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


class Cursor(SQLModel, table=True):
    """A named place in a stream: how far the department streams are published."""

    __tablename__ = "cursor"

    name: str = Field(max_length=64, primary_key=True)
    value: int = Field(sa_column=Column(RowId, nullable=False))


class Tally(SQLModel, table=True):
    """A counter by time bucket, for limits that must hold over all processes (promise P4)."""

    __tablename__ = "tally"

    name: str = Field(max_length=300, primary_key=True)
    bucket: int = Field(sa_column=Column(RowId, primary_key=True, autoincrement=False))
    n: int = Field(sa_column=Column(BigInteger, nullable=False))


class Idempotency(SQLModel, table=True):
    """An `Idempotency-Key` already answered, by caller."""

    __tablename__ = "idempotency"

    caller: str = Field(max_length=128, primary_key=True)
    key: str = Field(max_length=200, primary_key=True)
    #: digest of path and body: the same key for something else is an error
    request: str = Field(max_length=64)
    answer: dict[str, Any] = _json()
    at: datetime = _time()


class ChatSession(SQLModel, table=True):
    """A visitor's conversation in the web chat. The address of the customer is `id`'s text form."""

    __tablename__ = "chat_session"
    __table_args__ = (_partial("ix_chat_session_contact", "contact", where="contact <> ''"),)

    id: str = Field(max_length=64, primary_key=True)
    site: str = _str(256)
    language: str = _str(16)
    name: str = _text()
    #: e-mail or phone left while nobody answered
    contact: str = _str(512)
    last_seq: int = _with(0)
    created_at: datetime = _time()
    seen_at: datetime = _time()
    ended_at: datetime | None = _time(nullable=True)


class ChatLine(SQLModel, table=True):
    """One line of a chat, numbered without gaps within its session."""

    __tablename__ = "chat_line"

    session_id: str = Field(sa_column=Column(Text, ForeignKey("chat_session.id"), primary_key=True))
    seq: int = Field(sa_column=Column(RowId, primary_key=True, autoincrement=False))
    message_id: int = _ref("message", index=False, unique=True)


class ChannelHealth(SQLModel, table=True):
    """What a channel's source last said of itself, so that every web process can show it."""

    __tablename__ = "channel_health"

    name: str = Field(max_length=128, primary_key=True)
    ok: bool
    detail: str = _text()
    at: datetime = _time()


metadata = SQLModel.metadata


def table(model: type[SQLModel]) -> Table:
    """The Core table of a class, which is what queries are written with."""
    return metadata.tables[str(model.__tablename__)]
