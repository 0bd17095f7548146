"""`bot.py demo`: a world of its own with a simulated day on each channel that exists."""

from __future__ import annotations

import json
import random
import secrets
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from sqlalchemy import Connection

import app
from app_channels import MODULES
from channels import api, mail_parse, webchat
from domain import Incoming, Message, Part, PartKind, Role, TicketState
from router.tickets import Actor
from settings import DatabaseSettings, QueueSettings, Settings
from storage import chat, people, schema, tickets
from storage.database import Database
from storage.messages import message

_SCRIPT = Path(__file__).parent / "demo_day.yaml"
_PEOPLE = (
    ("chen", Role.AGENT, ("claims",)),
    ("zhao", Role.SUPERVISOR, ()),
    ("admin", Role.ADMIN, ()),
)


#: what the demo pretends to send by
PRETENDED = ("mail", "sms", "telegram", "messenger", "instagram", "whatsapp", "wechat")


def settings_of(settings: Settings, folder: Path) -> Settings:
    """The same settings over a world of its own: no real database, provider or Redis is touched."""
    off = {name: getattr(settings, name).model_copy(update={"enabled": False}) for name in ("mail", *MODULES)}
    own = {"state_dir": folder, "database": DatabaseSettings(), "queue": QueueSettings(), "webhooks": {}}
    return settings.model_copy(update=off | own)


async def make(settings: Settings) -> list[tuple[str, str]]:
    """Fill the demo's world where it is empty; a one-time sign-in secret for each role."""
    database = Database(settings.database_url)
    schema.migrate(database)
    database.close()
    built = app.build(settings, roles=("worker",), serving=False, pretended=PRETENDED)
    try:
        if not await built.database.read(people.any_at_all):
            await _fill(built)
        now = datetime.now(UTC)
        logins = []
        for name, role, _departments in _PEOPLE:
            person = await built.database.read(partial(people.named, name=name))
            secret = await built.database.write(
                partial(people.make_link, person_id=person.id, now=now, lasts=timedelta(days=1))
            )
            logins.append((role.value, secret))
        return logins
    finally:
        await built.close()


async def _fill(built: app.App) -> None:
    now = datetime.now(UTC)
    rng = random.Random(7)
    script = yaml.safe_load(_SCRIPT.read_text("utf-8"))
    for name, role, departments in _PEOPLE:
        await built.database.write(
            partial(people.add, name=name, role=role, departments=departments, password="", now=now)
        )
    for line in script["messages"]:
        item = await _incoming(built, line, now)
        [stored] = await built.flow.receive([item], ring=False)
        if line["channel"] == "chat":
            await built.database.write(
                partial(chat.number, session_id=item.sender, message_id=stored.message_id, now=now)
            )
        await built.flow.process([stored.message_id])
        ticket_id = (await built.database.read(partial(_ticket_of, message_id=stored.message_id))) or 0
        if answer := line.get("answer"):
            state = TicketState(line["then"]) if line.get("then") else None
            chen = await built.database.read(partial(people.named, name="chen"))
            actor = Actor("person:chen", Role.AGENT, chen.id)
            await built.database.write(partial(_answer, built, answer, state, ticket_id, actor))
        if ticket_id:
            age = timedelta(minutes=line.get("minutes_ago", rng.randint(2, 300)))
            await built.database.write(partial(_age, ticket_id=ticket_id, age=age))
    while await built.clock.tick():
        pass


async def _incoming(built: app.App, line: dict[str, Any], now: datetime) -> Incoming:
    """A line of the script as its channel would have brought it."""
    if line["channel"] == "mail":
        mail = EmailMessage()
        mail["From"] = f"{line['name']} <{line['from']}>"
        mail["To"] = "service@insurer.example"
        mail["Subject"] = line.get("subject", "")
        mail["Date"] = format_datetime(now)
        mail["Message-ID"] = f"<{secrets.token_hex(8)}@demo.example>"
        mail.set_content(line["text"])
        return mail_parse.parse(mail.as_bytes(), received_at=now)
    if line["channel"] == "chat":
        session = secrets.token_urlsafe(16)
        await built.database.write(partial(chat.open_session, session_id=session, site="demo", language="zh", now=now))
        return webchat.parse(session, secrets.token_hex(8), line["text"], now, longest=4000)
    if line["channel"] != "api":
        parts = [Part(kind=PartKind(each["kind"]), text=each.get("text", "")) for each in line.get("parts", [])]
        return Message(
            channel=line["channel"],
            account="demo",
            external_id=secrets.token_hex(8),
            sender=line["from"],
            sender_name=line["name"],
            text=line["text"],
            thread=line["from"],
            parts=tuple(parts),
            answerable=line["channel"] != "phone",
            received_at=now,
            raw=json.dumps(line, ensure_ascii=False).encode(),
        )
    record = {
        "external_id": secrets.token_hex(8),
        "sender": line["from"],
        "sender_name": line["name"],
        "text": line["text"],
    }
    return api.parse(record, "demo", json.dumps(record).encode(), now)


def _answer(
    built: app.App, text: str, state: TicketState | None, ticket_id: int, actor: Actor, connection: Connection
) -> None:
    built.verbs.reply(text, then=state)(connection, ticket_id, actor)


def _ticket_of(connection: Connection, message_id: int) -> int | None:
    found: int | None = connection.scalar(sa.select(message.c.ticket_id).where(message.c.id == message_id))
    return found


def _age(connection: Connection, ticket_id: int, age: timedelta) -> None:
    """Let a ticket have come in earlier today, and mark it as simulated."""
    row = tickets.lock_one(connection, ticket_id)
    times = ("created_at", "first_due_at", "first_response_at", "resolve_due_at", "waiting_since", "next_alarm_at")
    values = {name: moment - age for name in times if (moment := getattr(row, name)) is not None}
    tickets.update(connection, ticket_id, row.version, tags=sorted({*row.tags, "simulated"}), **values)
    for each in connection.execute(sa.select(message).where(message.c.ticket_id == ticket_id)).all():
        connection.execute(
            sa.update(message)
            .where(message.c.id == each.id)
            .values(stored_at=each.stored_at - age, received_at=each.received_at - age)
        )
