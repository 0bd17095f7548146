"""The wiring: settings -> the parts. The only place that knows all concrete classes."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from app_channels import channels
from channels import Channel, Sender
from channels.api import ApiSender
from channels.webchat import WebChatSender
from domain import SettingsError, Tags, Unavailable
from nlu import Tagger, Text
from nlu.certificate import Certificate
from nlu.embedded import EmbeddedTagger
from nlu.entities import Patterns
from nlu.entities_numbers import masked_text
from router.arrivals import Arrivals
from router.clock import Clock
from router.delivery import Delivery
from router.desk import Desk
from router.flow import Flow
from router.in_use import FollowingTagger
from router.media import Media
from router.publish import Publisher
from router.rules import Rules, Threshold
from router.tickets import Verbs
from router.watch import Watch
from settings import Settings
from storage import chat, leases, messages, schema
from storage.database import Database
from storage.queue import EmbeddedQueue, WorkQueue
from storage.redis_queue import DepartmentStreams, RedisQueue

if TYPE_CHECKING:
    from channels.mail import MailSource
    from nlu.encoder import Encoder
    from nlu.rasa import RasaServer

log = structlog.get_logger("model")

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
            _mask,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Masking("%(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler])


def _mask(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Nothing of ours names a person, but the error of a library or a provider may quote a phone or a card."""
    for key in ("error", "exception"):
        if isinstance(said := event.get(key), str):
            event[key] = masked_text(said)
    return event


class _Masking(logging.Formatter):
    """The lines of libraries, likewise."""

    def format(self, record: logging.LogRecord) -> str:
        return masked_text(super().format(record))


class LazyTagger:
    """The tagger of the settings, loaded with the first text: a process without the worker role never pays for it."""

    def __init__(self, settings: Settings, database: Database | None = None) -> None:
        """`database`: where models are promoted. A model that the settings name stays whatever is promoted."""
        self._settings = settings
        self._database = None if settings.nlu.model else database
        self._tagger: Tagger | None = None
        self._embedded: Tagger | None = None
        #: the Rasa server, where it is the engine
        self.rasa: RasaServer | None = None
        if settings.nlu.engine == "rasa":
            # The HTTP client is loaded only where there is a server to speak to.
            from nlu.rasa import RasaServer

            rasa = settings.nlu.rasa
            self.rasa = RasaServer(rasa.url, timeout=rasa.timeout.total_seconds(), token=rasa.token)

    @property
    def loaded(self) -> Tagger:
        if self._tagger is None:
            self._tagger = self.embedded
            if self.rasa is not None:
                from nlu.rasa import RasaTagger

                self._tagger = RasaTagger(self.rasa, fallback=self._tagger, taxonomy=self._settings.taxonomy)
        return self._tagger

    @property
    def embedded(self) -> Tagger:
        """The embedded model in use, whatever the engine."""
        if self._embedded is None:
            self._embedded = FollowingTagger(self._database, self.load) if self._database else self.load(None)
        return self._embedded

    def load(self, path: Path | None) -> Tagger:
        """An embedded tagger from a file; None: the one that the settings name. Raises `SettingsError`."""
        nlu = self._settings.nlu
        patterns = Patterns.of(
            policy_numbers=nlu.policy_numbers, claim_numbers=nlu.claim_numbers, phone_regions=nlu.phone_regions
        )
        path, taxonomy, encoder = path or self._settings.model_path, self._settings.taxonomy, self.encoder
        if encoder is None:
            return EmbeddedTagger.load(path, taxonomy=taxonomy, patterns=patterns)
        from nlu.second_stage import SecondStageTagger, beside

        if not beside(path).exists():
            # Not refused: such a model must be in use for a better one to be trained and compared with it.
            log.warning("second_stage_untrained", model=str(path), do="bot.py train, then bot.py models promote")
            return EmbeddedTagger.load(path, taxonomy=taxonomy, patterns=patterns)
        return SecondStageTagger.load(path, encoder, taxonomy=taxonomy, patterns=patterns)

    @cached_property
    def encoder(self) -> Encoder | None:
        """The sentence encoder, where the settings name one: opened once, whatever model is promoted."""
        return encoder_of(self._settings)

    def threshold(self, language: str, model: str) -> Threshold:
        """For what a model said in a language."""
        tagger = self.loaded
        certificates = tagger.certificates_of(model) if isinstance(tagger, FollowingTagger) else tagger.certificates
        found = certificates.get(language)
        return Threshold(None) if found is None else Threshold(found.threshold, found.kind)

    def close(self) -> None:
        if self.rasa is not None:
            self.rasa.close()

    @property
    def version(self) -> str:
        return self.loaded.version

    @property
    def certificates(self) -> Mapping[str, Certificate]:
        return self.loaded.certificates

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        return self.loaded.tag(texts)


def encoder_of(settings: Settings) -> Encoder | None:
    """The sentence encoder that the settings name, if any. Raises `SettingsError`."""
    if not settings.nlu.encoder:
        return None
    from nlu.encoder import OnnxEncoder, folder_of

    return OnnxEncoder(folder_of(settings.nlu.encoder, settings.encoders), settings.nlu.encoder_languages)


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


class _Leases:
    """The channels' leases, held by this process."""

    def __init__(self, database: Database, holder: str) -> None:
        self._database = database
        self._holder = holder

    async def hold(self, name: str, seconds: float) -> bool:
        return await self._database.write(
            lambda connection: leases.hold(connection, name, self._holder, datetime.now(UTC), seconds)
        )

    async def give_back(self) -> None:
        """Nobody need wait for what this process held."""
        with suppress(Unavailable):
            await self._database.write(lambda connection: leases.give_back(connection, self._holder))


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
    channels: list[Channel]
    arrivals: Arrivals
    media: Media
    watch: Watch
    leases: _Leases
    publisher: Publisher | None
    streams: DepartmentStreams | None
    chat_bell: ChatBell
    roles: Collection[str] = ROLES

    async def close(self) -> None:
        await self.arrivals.close()
        await self.delivery.close()
        await self.queue.close()
        if self.streams is not None:
            await self.streams.close()
        if any(each.sources for each in self.channels):
            await self.leases.give_back()
        await asyncio.to_thread(self.database.close)
        self.tagger.close()


def build(
    settings: Settings,
    *,
    roles: Collection[str] = ROLES,
    queue: WorkQueue | None = None,
    serving: bool = True,
    pretended: Collection[str] = (),
) -> App:
    """Wire the parts. Only a worker opens a connection yet, to see which model is in use. Raises `SettingsError`.

    `serving`: False in a command that ends, from which no program can fetch its answers: they stay queued.
    `pretended`: channels that the demo only pretends to have; what goes out there goes nowhere.
    """
    database = Database(settings.database_url)
    tagger = LazyTagger(settings, database)
    taxonomy = settings.taxonomy
    if "worker" in roles:
        # Loaded here, so that a missing model is told at the start; roles that never route do without.
        _ = tagger.loaded
    rules = Rules(settings.routing, taxonomy, tagger.threshold)
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
    held = _Leases(database, secrets.token_hex(8))
    opened = channels(settings, held)
    senders |= {each.name: each.sender for each in opened if each.sender is not None}
    if pretended:
        # Replay brings the parsing of mail along.
        from channels.replay import FakeSender

        senders |= {name: FakeSender(name=name) for name in pretended}
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
        carries={name: sender.limits for name, sender in senders.items()},
        mute=frozenset({"phone", *settings.webhooks}) - senders.keys(),
        channel_names={
            name: {"zh": each.zh or each.en or name, "en": each.en or each.zh or name}
            for name, each in settings.webhooks.items()
        },
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
        channels=opened,
        arrivals=Arrivals(database, flow),
        media=Media(database, {each.name: each.fetcher for each in opened if each.fetcher is not None}),
        watch=Watch(database, {each.name: each.probe for each in opened if each.probe is not None}),
        leases=held,
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
