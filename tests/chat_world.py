"""A small world around the web chat: database, flow, delivery and the pages, served by uvicorn on a free port.

It runs in a thread with an event loop of its own, so that browser tests may stay synchronous.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI
from sqlalchemy import Connection

from channels.webchat import WebChatSender
from domain import OUT_OF_SCOPE, Department, Language, Role, Sentiment, Tags, Taxonomy, TicketState
from nlu import Text
from nlu.certificate import Certificate
from router.delivery import Delivery
from router.desk import Desk
from router.flow import Flow
from router.rules import Rules
from router.settings import (
    DeliverySettings,
    LimitSettings,
    RetentionSettings,
    RoutingSettings,
    SlaSettings,
    TextSettings,
    TicketSettings,
)
from router.tickets import Actor, Verbs
from storage import people, schema
from storage.chat import Log
from storage.database import Database
from storage.queue import EmbeddedQueue
from web.app import create_app
from web.chat_files import Scanner
from web.chat_lines import Chat
from web.context import Web
from web.settings import ChatSettings, WebSettings

T = TypeVar("T")

TAXONOMY = Taxonomy(
    departments={
        "claims": Department("claims", "理赔部", "Claims"),
        "triage": Department("triage", "人工分拣台", "Triage desk"),
        "customer_service": Department("customer_service", "客户服务中心", "Customer service"),
    },
    intents={"claim_status": "claims", "general_info": "customer_service"},
)
AGENT = Actor("person:li", Role.AGENT, None)


class FakeTagger:
    """Claims where the text speaks of a claim; out of scope otherwise."""

    version = "fake"
    certificates: Mapping[str, Certificate] = {}

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        return [self._tags(each.text) for each in texts]

    def _tags(self, text: str) -> Tags:
        claim = "理赔" in text or "claim" in text.lower()
        return Tags(
            intent="claim_status" if claim else OUT_OF_SCOPE,
            confidence=0.95 if claim else 0.2,
            department="claims" if claim else "triage",
            sentiment=Sentiment.NEUTRAL,
            language=Language.EN if text.isascii() else Language.ZH,
            in_scope=claim,
        )


def make_desk(public_url: str) -> Desk:
    return Desk(
        taxonomy=TAXONOMY,
        rules=Rules(RoutingSettings(threshold=0.5), TAXONOMY),
        sla=SlaSettings(),
        tickets=TicketSettings(),
        limits=LimitSettings(),
        delivery=DeliverySettings(),
        retention=RetentionSettings(),
        texts=TextSettings(
            insurer={"zh": "安和保险", "en": "Anhe Insurance"},
            subject={"zh": "工单 {number}", "en": "Request {number}"},
            acknowledgement={
                "zh": "我们已收到，工单 {number}，由{department}处理。查询进度：{link}",
                "en": "We have it: {number}, with {department}. Follow it: {link}",
            },
            care={"zh": "我们很担心您。", "en": "We are worried about you."},
            code={
                "zh": "验证码 {code}，{minutes} 分钟内有效。",
                "en": "Your code is {code}, good for {minutes} minutes.",
            },
            code_subject={"zh": "验证码", "en": "Your code"},
            status={"zh": "{number}：{state}。{due}", "en": "{number}: {state}. {due}"},
            states={state: {"zh": state.value, "en": state.value} for state in TicketState},
            due={"zh": "不晚于{time}", "en": "by {time}"},
        ),
        public_url=public_url,
    )


class ChatWorld:
    """`with ChatWorld(folder) as world:` serves at `world.url`."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: ChatSettings | None = None,
        port: int = 0,
        nudged: bool = True,
        workers: bool = True,
        database: str = "",
        scanner: Scanner | None = None,
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.database = Database(database or f"sqlite:///{folder / 'sluice.db'}")
        schema.migrate(self.database)
        self._settings = settings or ChatSettings(per_minute=1000)
        self._nudged = nudged
        self._workers = workers
        self._scanner = scanner
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="world")
        self.loop: asyncio.AbstractEventLoop
        self.chat: Chat
        self.delivery: Delivery
        self.app: FastAPI

    def __enter__(self) -> ChatWorld:
        self._thread.start()
        assert self._ready.wait(20), "the world did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._server_stop)
            self._thread.join(20)
        self.database.close()
        self._listener.close()

    def _server_stop(self) -> None:
        self._server.should_exit = True

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        queue = EmbeddedQueue(self.database)
        desk = make_desk(self.url)
        flow = Flow(self.database, queue, FakeTagger(), desk)
        web = Web(
            WebSettings(chat=self._settings), self.database, queue, flow, desk, Verbs(desk), secret="test-" + "s" * 40
        )
        self.web = web
        self.chat = Chat(web, scanner=self._scanner)
        ring: Callable[[str], None] = self.chat.hub.nudge if self._nudged else lambda _session: None
        self.delivery = Delivery(self.database, desk, {"chat": WebChatSender(Log(self.database), ring)})
        web.nudge = self.delivery.nudge
        flow.listeners.append(lambda _outcomes: self.delivery.nudge())
        self.app = create_app(web)
        self.app.state.chat = self.chat
        stop = asyncio.Event()
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2)
        )
        loops = [asyncio.create_task(each) for each in self._loops(flow, stop)]
        async with self.chat.running():
            serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.01)
            self._ready.set()
            while not self._server.should_exit and not serving.done():
                await asyncio.sleep(0.02)
            # As in the product: clients are told to come back before the sockets go.
            await self.chat.hub.drain()
            await serving
        stop.set()
        for loop in loops:
            loop.cancel()
        ends = await asyncio.gather(*loops, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):  # a loop that died before it was told to
                raise end
        await queue.close()

    def _loops(self, flow: Flow, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        return [flow.work(stop), self.delivery.run(stop)] if self._workers else []

    # --- what tests do ------------------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the world's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def read(self, query: Callable[[Connection], T]) -> T:
        with self.database.reading() as connection:
            return query(connection)

    def write(self, unit: Callable[[Connection], T]) -> T:
        return self.database.submit(unit).result(20)

    def reply(self, ticket_id: int, text: str) -> None:
        """A person answers, as from the console."""
        verb = self.web.verbs.reply(text)
        self.write(lambda connection: verb(connection, ticket_id, AGENT))
        self.loop.call_soon_threadsafe(self.delivery.nudge)

    def add_person(self, name: str) -> int:
        now = datetime.now(UTC)
        return self.write(lambda connection: people.add(connection, name, Role.AGENT, ["claims"], "", now))
