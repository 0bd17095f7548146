"""The wiring: settings -> the parts. The only place that knows all concrete classes."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from channels import Sender
from channels.api import ApiSender
from channels.webchat import WebChatSender
from domain import SettingsError, Tags
from nlu import Tagger, Text
from nlu.certificate import Certificate
from nlu.embedded import EmbeddedTagger
from nlu.entities import Patterns
from router.clock import Clock
from router.delivery import Delivery
from router.desk import Desk
from router.flow import Flow
from router.publish import Publisher
from router.rules import Rules, Threshold
from router.tickets import Verbs
from settings import Settings
from storage import chat, messages, schema
from storage.database import Database
from storage.queue import EmbeddedQueue, WorkQueue
from storage.redis_queue import DepartmentStreams, RedisQueue

if TYPE_CHECKING:
    from channels.mail import MailSource

ROLES = ("web", "worker", "listen", "clock")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(settings: Settings, stream: Any) -> None:
    """Structured lines on stderr, without personal data: nothing of ours logs texts or addresses."""
    level = _LEVELS[settings.log.level]
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.log.format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=stream, format="%(name)s %(levelname)s %(message)s")


class LazyTagger:
    """The embedded tagger, loaded with the first text: a web process without the worker role never pays for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tagger: Tagger | None = None

    @property
    def loaded(self) -> Tagger:
        if self._tagger is None:
            nlu = self._settings.nlu
            patterns = Patterns.of(policy_numbers=nlu.policy_numbers, claim_numbers=nlu.claim_numbers)
            self._tagger = EmbeddedTagger.load(
                self._settings.model_path, taxonomy=self._settings.taxonomy, patterns=patterns
            )
        return self._tagger

    @property
    def version(self) -> str:
        return self.loaded.version

    @property
    def certificates(self) -> Mapping[str, Certificate]:
        return self.loaded.certificates

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        return self.loaded.tag(texts)


class ChatBell:
    """Rings the chat sockets of this process, where it has any."""

    def __init__(self) -> None:
        self.listener: Callable[[str], None] = lambda _session: None

    def __call__(self, session: str) -> None:
        self.listener(session)


class _MailMemory:
    """What the mail source needs of storage."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def unseen(self, mailbox: str, uidvalidity: int, uids: Sequence[int]) -> list[int]:
        marks = [f"{uidvalidity}:{uid}" for uid in uids]
        left = await self._database.read(lambda connection: messages.unseen_marks(connection, "mail", mailbox, marks))
        return [int(mark.partition(":")[2]) for mark in left]


def thresholds(tagger: Tagger) -> dict[str, Threshold]:
    return {
        language: Threshold(certificate.threshold, certificate.kind)
        for language, certificate in tagger.certificates.items()
    }


@dataclass(slots=True)
class App:
    """One process's parts. Made by `build`; `close` after use."""

    settings: Settings
    database: Database
    queue: WorkQueue
    tagger: LazyTagger
    desk: Desk
    flow: Flow
    verbs: Verbs
    delivery: Delivery
    clock: Clock
    mail: MailSource | None
    publisher: Publisher | None
    streams: DepartmentStreams | None
    chat_bell: ChatBell
    roles: Collection[str] = ROLES

    async def close(self) -> None:
        await self.delivery.close()
        await self.queue.close()
        if self.streams is not None:
            await self.streams.close()
        await asyncio.to_thread(self.database.close)


def build(
    settings: Settings, *, roles: Collection[str] = ROLES, queue: WorkQueue | None = None, serving: bool = True
) -> App:
    """Wire the parts. Opens no connection yet. Raises `SettingsError`.

    `serving`: False in a command that ends, from which no program can fetch its answers: they stay queued.
    """
    database = Database(settings.database_url)
    tagger = LazyTagger(settings)
    taxonomy = settings.taxonomy
    # Which threshold is in force is asked of the model; roles that never route do not load it for that.
    routes = "worker" in roles
    rules = Rules(settings.routing, taxonomy, thresholds(tagger) if routes else {})
    mail = settings.mail
    senders: dict[str, Sender] = {"api": ApiSender()}
    chat_bell = ChatBell()
    if settings.web.chat.enabled:
        senders["chat"] = WebChatSender(chat.Log(database), chat_bell)
    source: MailSource | None = None
    if mail.enabled:
        # The mail libraries are loaded only where the channel is on.
        from channels.mail import MailSource
        from channels.smtp import MailSender

        if mail.smtp is not None:
            senders["mail"] = MailSender(mail)
        if mail.mailboxes:
            source = MailSource(mail, _MailMemory(database))
    desk = Desk(
        taxonomy=taxonomy,
        rules=rules,
        sla=settings.sla,
        tickets=settings.tickets,
        limits=settings.limits,
        delivery=settings.delivery,
        retention=settings.retention,
        texts=settings.texts,
        public_url=settings.public_url,
        mail_domain=mail.from_address.rpartition("@")[2] or "sluice.invalid",
        own_addresses=frozenset(
            address.lower()
            for address in (mail.from_address, *(box.recipient for box in mail.mailboxes))
            if "@" in address
        ),
        pulled=frozenset(name for name, sender in senders.items() if serving and sender.limits.pulled),
    )
    if queue is None:
        queue = work_queue(settings, database)
    flow = Flow(database, queue, tagger, desk)
    streams = publisher = None
    if settings.queue.url:
        streams = DepartmentStreams(settings.queue.url, maxlen=settings.queue.stream_maxlen)
        publisher = Publisher(database, streams)
    return App(
        settings=settings,
        database=database,
        queue=queue,
        tagger=tagger,
        desk=desk,
        flow=flow,
        verbs=Verbs(desk),
        delivery=Delivery(database, desk, senders),
        clock=Clock(database, desk),
        mail=source,
        publisher=publisher,
        streams=streams,
        chat_bell=chat_bell,
        roles=roles,
    )


def work_queue(settings: Settings, database: Database) -> WorkQueue:
    deadline = settings.queue.deadline.total_seconds()
    if settings.queue.url:
        return RedisQueue(settings.queue.url, deadline=deadline)
    return EmbeddedQueue(database, deadline=deadline)


def settle_memory() -> None:
    """Tell the garbage collector that what was built so far stays, and to look less often at short-lived rows.

    Measured: a tenth of the CPU of ingestion went into full collections that freed nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def ready_schema(settings: Settings, database: Database) -> None:
    """SQLite brings its schema up to date by itself; on PostgreSQL that is a step of its own, for many may start."""
    if schema.is_current(database):
        return
    if not database.is_sqlite:
        raise SettingsError("The database's schema is not up to date. Run: bot.py migrate")
    schema.migrate(database)
