"""`bot.py check`: each setting, channel and server, and what to do about what does not work."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from app import LazyTagger
from app_channels import MODULES, channels, turned_on
from channels import Channel
from channels.mail import MailSource
from channels.smtp import MailSender
from domain import SluiceError
from router.in_use import FollowingTagger
from router.rules import Rules
from settings import Settings
from storage import outbox, people, schema
from storage.database import Database
from storage.redis_queue import DepartmentStreams

#: channels with a provider through which nothing written can leave
_NO_WAY_OUT = {"phone"}


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.detail}"


async def check(settings: Settings) -> list[Line]:
    """One line for each part. Never raises for a part that does not work."""
    lines = [Line("settings", True, "read, and every key is known"), *_state(settings)]
    database = Database(settings.database_url)
    try:
        [found] = await _try("database", lambda: _database(settings, database))
        lines += await _try("model", lambda: _model(settings, database if found.ok else None))
        lines += await _try("nlu", lambda: _rasa(settings))
        lines.append(found)
        if found.ok:
            lines += await _try("outbox", lambda: _outbox(settings, database))
            lines += await _try("people", lambda: _people(database))
    finally:
        await asyncio.to_thread(database.close)
    lines += await _try("queue", lambda: _queue(settings))
    lines += await _try("mail", lambda: _mail(settings))
    lines += await _channels(settings)
    lines += _web(settings)
    return lines


async def _try(name: str, part: Callable[[], Awaitable[list[Line]]]) -> list[Line]:
    try:
        async with asyncio.timeout(60):
            return await part()
    except SluiceError as error:
        return [Line(name, False, str(error))]
    except TimeoutError:
        return [Line(name, False, "no answer within 60 s")]
    except Exception as error:
        return [Line(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")]


def _state(settings: Settings) -> list[Line]:
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        probe = settings.state_dir / ".probe"
        probe.write_text("")
        probe.unlink()
        free = shutil.disk_usage(settings.state_dir).free
    except OSError as error:
        return [Line("state_dir", False, f"{settings.state_dir} cannot be written: {error.strerror}")]
    enough = free > 1_000_000_000
    return [Line("state_dir", enough, f"{settings.state_dir}, {free // 1_000_000} MB free")]


async def _model(settings: Settings, database: Database | None) -> list[Line]:
    if database is not None and await database.read(schema.current) is None:
        database = None
    tagger = LazyTagger(settings, database)
    try:
        embedded = await asyncio.to_thread(lambda: tagger.embedded)
        if isinstance(embedded, FollowingTagger) and embedded.problem:
            return [Line("model", False, f"{embedded.problem}. In use is {embedded.version}. Run: models rollback")]
        Rules(settings.routing, settings.taxonomy)
        await asyncio.to_thread(lambda: tagger.loaded)
    except SluiceError as error:
        return [Line("model", False, f"{error} Train it: make setup")]
    known = ", ".join(
        f"{language} {each.kind} {'none' if each.threshold is None else f'{each.threshold:.3f}'}"
        for language, each in sorted(tagger.certificates.items())
    )
    lines = [
        Line("model", True, f"{tagger.version}; thresholds: {known or 'none'}; {len(settings.routing.rules)} rules")
    ]
    if tagger.encoder is not None:
        asked = embedded.version.endswith(f"+{tagger.encoder.name}")
        untrained = "the model in use was trained without it. Run: bot.py train, then bot.py models promote"
        lines.append(Line("encoder", asked, tagger.encoder.name if asked else untrained))
    return lines


async def _rasa(settings: Settings) -> list[Line]:
    rasa = LazyTagger(settings).rasa
    if rasa is None:
        return []
    try:
        works, detail = await asyncio.to_thread(rasa.check)
    finally:
        rasa.close()
    if works:
        return [Line("nlu", True, f"{detail} at {settings.nlu.rasa.url}")]
    return [Line("nlu", False, f"{settings.nlu.rasa.url} {detail}. Start it (make rasa), or set nlu.engine: embedded")]


async def _database(settings: Settings, database: Database) -> list[Line]:
    found = await database.read(schema.current)
    where = "sqlite" if database.is_sqlite else f"postgresql at {database.url.host}"
    if found is None and database.is_sqlite:
        return [Line("database", True, f"{where}, empty; `run` makes the schema")]
    if found != schema.head():
        return [Line("database", False, f"{where}: schema {found}, needed {schema.head()}. Run: bot.py migrate")]
    return [Line("database", True, f"{where}, schema {found}")]


async def _outbox(settings: Settings, database: Database) -> list[Line]:
    if await database.read(schema.current) is None:
        return []
    ways = {"api"} | ({"chat"} if settings.web.chat.enabled else set())
    if settings.mail.enabled and settings.mail.smtp is not None:
        ways.add("mail")
    ways |= {name for name, _given in turned_on(settings)} - _NO_WAY_OUT - settings.webhooks.keys()
    states = await database.read(outbox.states)
    lines = []
    for (channel, state), n in sorted(states.items()):
        if state == "queued" and channel not in ways:
            lines.append(Line(f"outbox {channel}", False, f"{n} answers are queued and the channel has no way out"))
        if state in ("failed", "unknown"):
            lines.append(Line(f"outbox {channel}", True, f"{n} answers are {state}; the console shows them"))
    return lines


async def _people(database: Database) -> list[Line]:
    if await database.read(schema.current) is None or not await database.read(people.any_at_all):
        return [Line("people", True, "nobody yet; `run` prints a one-time link for the first account")]
    return [Line("people", True, "somebody can sign in")]


async def _queue(settings: Settings) -> list[Line]:
    if not settings.queue.url:
        return [Line("queue", True, "embedded in the database")]
    streams = DepartmentStreams(settings.queue.url, maxlen=settings.queue.stream_maxlen)
    try:
        await streams.ping()
    finally:
        await streams.close()
    return [Line("queue", True, "redis answers")]


class _NoMemory:
    async def unseen(self, mailbox: str, uidvalidity: int, uids: Any) -> list[int]:
        del mailbox, uidvalidity
        return list(uids)


async def _mail(settings: Settings) -> list[Line]:
    mail = settings.mail
    if not mail.enabled:
        return [Line("mail", True, "off (mail.enabled)")]
    lines = [
        Line(f"mail in {each.name}", each.ok, each.detail) for each in await MailSource(mail, _NoMemory()).check()
    ] or [Line("mail in", False, "no mailbox: set mail.mailboxes")]
    if mail.smtp is None:
        return [*lines, Line("mail out", False, "no way out: set mail.smtp, or answers by mail stay queued")]
    sender = MailSender(mail)
    try:
        health = await sender.check()
    finally:
        await sender.close()
    return [*lines, Line("mail out", health.ok, health.detail)]


class _NoLeases:
    async def hold(self, name: str, seconds: float) -> bool:
        del name, seconds
        return False


async def _channels(settings: Settings) -> list[Line]:
    """A line a channel with a provider: its account, and whether the provider can reach us."""
    try:
        opened = channels(settings, _NoLeases())
    except SluiceError as error:
        return [Line("channels", False, str(error))]
    lines: list[Line] = []
    for each in opened:
        lines += await _try(each.name, partial(_account, each))
        if each.hook is not None and not settings.public_url.startswith("https://"):
            where = f"{settings.public_url}/hooks/{each.name}"
            lines.append(Line(each.name, False, f"providers call https only, not {where}: set web.public_url"))
        if each.sender is not None:
            await each.sender.close()
    off = sorted(set(MODULES) - {each.name for each in opened})
    return [*lines, Line("channels off", True, ", ".join(off))] if off else lines


async def _account(channel: Channel) -> list[Line]:
    if channel.probe is None:
        return [Line(channel.name, True, "on; it has no account to ask about")]
    health = await channel.probe.probe()
    return [Line(channel.name, health.ok, health.detail)]


def _web(settings: Settings) -> list[Line]:
    web = settings.web
    lines = []
    public = web.host not in ("127.0.0.1", "::1", "localhost")
    if public and not settings.public_url.startswith("https://"):
        lines.append(Line("web.public_url", False, "the bind is public, but links and cookies are not https"))
    with socket.socket(socket.AF_INET6 if ":" in web.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((web.host, web.port))
            lines.append(Line("web", True, f"{web.host}:{web.port} is free"))
        except OSError:
            lines.append(Line("web", True, f"{web.host}:{web.port} is in use, by a running Sluice or another program"))
    return lines
