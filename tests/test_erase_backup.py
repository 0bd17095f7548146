"""Forgetting a customer leaves no word of theirs; a backup of a running world is whole."""

from __future__ import annotations

import asyncio
import stat
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from domain import Attachment, Automatic, AutomaticKind, Conflict, ForbiddenMove, InState, Message, NotFound, Role
from router.tickets import Actor
from settings import Settings
from storage import chat, counts, customers, erase, messages, schema
from storage.backup import BackupError, backup, restore
from storage.database import Database
from storage.tables import Customer, Event, Idempotency, Label, Outbox, Ticket, table
from storage.tables import Message as MessageTable
from storage.tickets import as_exported, get
from tests.reading import answers, event, incoming, on, rows, ticket, tickets
from tests.servers import PostgresServer
from tests.worlds import World, make_world, message

LI = Actor("person:li", Role.SUPERVISOR)
#: stand in whatever the customer says and is; in no other place
MARK, HAN = "Zqxjkvb", "龘靐齉"
ADDRESS = f"{MARK.lower()}@example.com"


def marked(text: str = "#claim_status", **values: Any) -> Message:
    given: dict[str, Any] = {
        "channel": "mail", "account": "mail", "sender": ADDRESS, "sender_name": MARK, "subject": f"{MARK} {HAN}",
        "reply_to": f"answers.{ADDRESS}", "raw": f"{MARK} {HAN}".encode(), "seen_at": ("support/INBOX", "7:1"),
        "attachments": (Attachment(name=f"{MARK}.txt", media_type="text/plain", content=MARK.encode()),),
    }  # fmt: skip
    return message(f"{text} {MARK} {HAN}", **(given | values))


def traces(database: Database) -> list[str]:
    """Tables and columns in which a word or address of the customer still stands: every table, every column."""
    found = []
    with database.reading() as connection:
        for name in sa.inspect(connection).get_table_names():
            for row in connection.exec_driver_sql(f'SELECT * FROM "{name}"').mappings():
                for column, value in row.items():
                    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
                    if MARK.lower() in text.lower() or any(pair in text for pair in (HAN[:2], HAN[1:])):
                        found.append(f"{name}.{column}")
    return sorted(set(found))


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    """A customer in every place that one can be in: ticket, thread, answers, note, label, quarantine, chat, bounce."""
    made = make_world(database, settings)
    await made.come_in(
        marked(key=f"{MARK}@x", external_id=f"{MARK}1"),
        marked(thread_keys=(f"{MARK}@x",), clean=MARK, seen_at=None),
        marked("#boom", seen_at=None),
        message("#claim_status of somebody else", sender="wang@example.com"),
        marked(channel="chat", sender=f"session-{MARK}", thread=f"session-{MARK}", reply_to="", seen_at=None),
    )
    await made.flow.finish()
    await on(database, made.verbs.reply(f"Dear {MARK}"), 1, LI)
    await on(database, made.verbs.note(f"{MARK} called"), 1, LI)
    await on(database, made.verbs.transfer("billing", f"{MARK} asked"), 1, LI)
    await on(database, made.verbs.label("claim_status", "neutral", "claims"), 1, LI)
    made.sender.errors = []
    await made.delivery.send_due("mail")
    ours = incoming(database, answers(database)[0].message_id).key
    report = Automatic(kind=AutomaticKind.BOUNCE, why=f"no {MARK}", concerns=(ours,), recipients=(ADDRESS,))
    await made.come_in(marked(sender="mailer-daemon@mx.example.com", automatic=report, seen_at=None))
    # Received and not processed yet.
    await made.flow.receive([marked(seen_at=None)])
    await database.write(_leave_in_small_tables)
    return made


def _leave_in_small_tables(connection: Connection) -> None:
    now = datetime.now(UTC)
    answer = as_exported(get(connection, 1))
    connection.execute(sa.insert(table(Idempotency)).values(caller="crm", key="k", request="r", answer=answer, at=now))
    chat.open_session(connection, f"session-{MARK}", site="https://example.com", language="zh", now=now)
    chat.change(connection, f"session-{MARK}", name=MARK, contact=ADDRESS)
    first = connection.scalar(
        sa.select(table(MessageTable).c.id).where(table(MessageTable).c.channel == "chat").limit(1)
    )
    assert first is not None
    chat.number(connection, f"session-{MARK}", first, now)


async def forget_all(world: World) -> None:
    def unit(connection: Connection) -> None:
        for name in (ADDRESS, f"session-{MARK}"):
            for customer_id in customers.named(connection, name):
                erase.customer(connection, customer_id, datetime.now(UTC), "person:li")

    await world.database.write(unit)
    await asyncio.to_thread(erase.compact, world.database)


async def test_erasing_leaves_no_word_and_no_address_anywhere(world: World) -> None:
    before = traces(world.database)
    # The test sees what is there: else it could not see what is left.
    for place in (
        "address.address", "attachment.content", "chat_line.session_id", "chat_session.contact", "customer.name",
        "idempotency.answer", "message.extra", "message.text", "outbox.address", "raw.body",
        "ticket.snippet", "ticket.subject",
    ):  # fmt: skip
        assert place in before
    assert any(place.startswith("message_search") for place in before)
    await forget_all(world)
    assert traces(world.database) == []


async def test_erasing_leaves_the_trail_whole_and_other_customers_alone(world: World) -> None:
    trail = rows(world.database, Event)
    kept = rows(world.database, MessageTable, address="wang@example.com")
    await forget_all(world)
    after = rows(world.database, Event)
    assert after[: len(trail)] == trail
    assert [row.kind for row in after[len(trail) :]] == ["erased"] * 2
    assert after[-1].actor == "person:li"
    assert rows(world.database, MessageTable, address="wang@example.com") == kept
    assert [row.department for row in tickets(world.database)] == ["claims", "claims", "claims"]
    assert rows(world.database, Label) == []
    gone = [row for row in rows(world.database, Customer) if row.erased_at is not None]
    assert len(gone) == 2


async def test_an_erased_customers_ticket_takes_no_answer_and_no_label(world: World) -> None:
    await forget_all(world)
    with pytest.raises(ForbiddenMove, match="erased"):
        await on(world.database, world.verbs.reply("hello"), 1, LI)
    with pytest.raises(NotFound, match="erased"):
        await on(world.database, world.verbs.label("claim_status", "neutral", "claims"), 1, LI)
    await on(world.database, world.verbs.resolve("erased"), 1, LI)


async def test_an_erased_customer_who_writes_again_is_a_new_one(world: World) -> None:
    await forget_all(world)
    [outcome] = await world.come_in(marked(thread_keys=(f"{MARK}@x",), seen_at=None))
    assert outcome.state is InState.TICKETED
    row = ticket(world.database, outcome.ticket_id)
    assert row.linked_id is None
    assert row.customer_id == rows(world.database, Customer)[-1].id


async def test_what_was_in_the_outbox_is_not_sent_after_erasing(world: World) -> None:
    await on(world.database, world.verbs.reply("one more"), 1, LI)
    await forget_all(world)
    world.sender.sent.clear()
    assert await world.delivery.send_due("mail") == 0
    assert {row.address for row in rows(world.database, Outbox)} == {"wang@example.com"}


# --- backup -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """Another database of the same kind, with nothing in it."""
    with ExitStack() as stack:
        if database.is_sqlite:
            url = f"sqlite:///{tmp_path / 'other' / 'sluice.db'}"
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            url = stack.enter_context(server.database())
        made = Database(url)
        stack.callback(made.close)
        yield made


async def test_a_backup_of_a_running_world_is_one_moment_of_it(
    database: Database, settings: Settings, empty: Database, tmp_path: Path
) -> None:
    world = make_world(database, settings)
    state, target = tmp_path / "state", tmp_path / "backups" / "one.zip"
    state.mkdir()
    (state / "secret").write_text("the secret")
    begun, stop = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await world.come_in(*(message("#claim_status", thread="t") for _ in range(3)))
            begun.set()

    writing = asyncio.create_task(write())
    await begun.wait()
    size = await asyncio.to_thread(backup, database, state, target)
    stop.set()
    await writing
    assert size == target.stat().st_size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]
    other_state = tmp_path / "other"
    manifest = await asyncio.to_thread(restore, empty, other_state, target)
    assert manifest["schema"] == schema.head()
    assert (other_state / "secret").read_text() == "the secret"
    assert stat.S_IMODE((other_state / "secret").stat().st_mode) == 0o600
    with empty.reading() as connection:
        [ledger] = counts.ledgers(connection)
    assert ledger.accepted >= 3
    assert ledger.missing == 0
    # Each unit is in it whole or not at all: every event's message and every answer's ticket are there.
    messages = {row.id for row in rows(empty, MessageTable)}
    assert {row.data["message"] for row in rows(empty, Event) if "message" in row.data} <= messages
    assert {row.ticket_id for row in answers(empty)} == {row.id for row in rows(empty, Ticket)} == {1}
    again = make_world(empty, settings)
    assert [each.ticket_id for each in await again.come_in(message(thread="t"))] == [1]
    assert event(empty, "opened").ticket_id == 1


async def test_a_world_with_content_is_not_overwritten(
    database: Database, settings: Settings, empty: Database, tmp_path: Path
) -> None:
    target = tmp_path / "one.zip"
    backup(database, tmp_path, target)
    schema.migrate(empty)
    restore(empty, tmp_path, target)  # a world that was only set up is empty
    await make_world(empty, settings).come_in(message())
    with pytest.raises(Conflict, match="not empty"):
        restore(empty, tmp_path, target)
    assert len(tickets(empty)) == 1


def test_what_is_no_backup_of_this_world_is_refused(database: Database, empty: Database, tmp_path: Path) -> None:
    target = tmp_path / "one.zip"
    with pytest.raises(BackupError, match="nothing to back up"):
        backup(empty, tmp_path, target)
    assert not target.exists()
    target.write_bytes(b"no zip")
    with pytest.raises(BackupError, match="no backup"):
        restore(empty, tmp_path, target)
    for manifest, words in (
        ('{"format": 9, "kind": "sqlite", "schema": "0001"}', "this world is"),
        ('{"format": 1, "kind": "oracle", "schema": "0001"}', "backup of oracle"),
        (f'{{"format": 1, "kind": "{"sqlite" if database.is_sqlite else "postgresql"}", "schema": "9999"}}', "newer"),
    ):
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("manifest.json", manifest)
        with pytest.raises(BackupError, match=words):
            restore(empty, tmp_path, target)


async def test_an_erased_mail_does_not_come_in_again(world: World) -> None:
    """The mailbox still shows it: the mark is remembered, without anything of the customer."""
    seen = marked(seen_at=("support/INBOX", "7:9"))
    await world.come_in(seen)
    await forget_all(world)
    with world.database.reading() as connection:
        assert messages.unseen_marks(connection, "mail", "support/INBOX", ["7:9", "7:10"]) == ["7:10"]
    [again] = await world.flow.receive([seen])
    assert not again.new
