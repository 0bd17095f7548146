"""A small world for tests: the real parts over a database, with a tagger that does what the text says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from channels.replay import FakeSender
from domain import Guess, Language, Message, Risk, Sentiment, Tags, Taxonomy
from nlu import Text
from nlu.certificate import Certificate
from router.clock import Clock
from router.delivery import Delivery
from router.desk import Desk
from router.flow import Flow
from router.intake_values import Outcome
from router.rules import Rules
from router.tickets import Verbs
from settings import Settings
from storage.database import Database
from storage.queue import EmbeddedQueue, WorkQueue

_numbers = itertools.count(1)
_WORD = re.compile(r"#([a-z_]+)(?:=([\d.]+))?")


@dataclass
class SayingTagger:
    """Tags what stands in the text: `#claim_status=0.9 #negative #legal`. Without any: out of scope.

    `#boom` raises, as a tagger with a fault would.
    """

    taxonomy: Taxonomy
    version: str = "saying"
    certificates: Mapping[str, Certificate] = field(default_factory=dict)

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        return [self._tag(text) for text in texts]

    def _tag(self, text: Text) -> Tags:
        said = dict(_WORD.findall(f"{text.subject} {text.text}"))
        if "boom" in said:
            raise RuntimeError("boom")
        intents = [(name, float(said[name] or 0.99)) for name in said if name in self.taxonomy.intents]
        intent, confidence = intents[0] if intents else ("out_of_scope", 0.2)
        return Tags(
            intent=intent,
            confidence=confidence,
            department=self.taxonomy.owner(intent),
            alternatives=tuple(Guess(name, each) for name, each in intents[1:]),
            sentiment=next((mood for mood in Sentiment if mood.value in said), Sentiment.NEUTRAL),
            sentiment_confidence=0.9,
            language=Language.ZH if any("\u4e00" <= char <= "\u9fff" for char in text.text) else Language.EN,
            risk=tuple(flag for flag in Risk if flag.value in said),
            in_scope=bool(intents),
            model=self.version,
        )


@dataclass
class World:
    """The parts of one process, without loops: tests take the steps."""

    database: Database
    settings: Settings
    queue: WorkQueue
    desk: Desk
    flow: Flow
    verbs: Verbs
    sender: FakeSender
    delivery: Delivery
    clock: Clock

    async def come_in(self, *messages: Message) -> list[Outcome]:
        """Receive and process, as the river does."""
        stored = await self.flow.receive(list(messages))
        return await self.flow.process([each.message_id for each in stored])


def make_world(database: Database, settings: Settings, *, queue: WorkQueue | None = None, **desk_changes: Any) -> World:
    taxonomy = settings.taxonomy
    desk = Desk(
        taxonomy=taxonomy,
        rules=Rules(settings.routing, taxonomy),
        sla=settings.sla,
        tickets=settings.tickets,
        limits=settings.limits,
        delivery=settings.delivery,
        retention=settings.retention,
        texts=settings.texts,
        public_url="http://sluice.test",
        mail_domain="sluice.test",
    )
    desk = replace(desk, **desk_changes)
    work = queue or EmbeddedQueue(database, deadline=5)
    flow = Flow(database, work, SayingTagger(taxonomy), desk)
    sender = FakeSender()
    return World(
        database=database,
        settings=settings,
        queue=work,
        desk=desk,
        flow=flow,
        verbs=Verbs(desk),
        sender=sender,
        delivery=Delivery(database, desk, {"api": sender, "mail": sender, "chat": sender}),
        clock=Clock(database, desk),
    )


def message(text: str = "#claim_status", **values: Any) -> Message:
    """A message of the API channel, new unless `external_id` says otherwise."""
    given: dict[str, Any] = {
        "channel": "api",
        "account": "test",
        "external_id": f"m{next(_numbers)}",
        "sender": "li@example.com",
        "received_at": datetime.now(UTC),
        "text": text,
        "raw": text.encode("utf-8", "replace"),
    }
    return Message(**(given | values))
