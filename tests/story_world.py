"""Sluice as a deployer with all channels runs it: one process of `bot.py run`, and beside it each provider's stand-in.

The process is set up by the environment alone, and knows of its providers what a deployer would tell it: an address, an
account and secrets. Customers act through the providers; people act in the console, over HTTP.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests import meta_server as meta
from tests.meta_server import Asked, GraphServer, Said
from tests.meta_world import VERIFY
from tests.processes import Deployment, SluiceProcess
from tests.processes import until as _until
from tests.samples import Call
from tests.samples import phone as calls
from tests.samples import webhook as reviews
from tests.samples import wechat as sealed
from tests.server_base import HOST, free_port
from tests.sms_world import ToldTwilio, told_twilio
from tests.telegram_server import TOKEN, BotApi
from tests.twilio_server import TwilioServer
from tests.wechat_server import WechatServer

T = TypeVar("T")

PASSWORD = "a story's password"
PATIENCE = 60.0
GRAPH = "/v25.0"
_CSRF = re.compile(r'<meta name="csrf" content="([^"]+)">')
#: by which of several ways an answer goes unless somebody chooses another
_CHOSEN = re.compile(r'<select name="by".*?<option value="([^"]*)" selected', re.S)
_TAGS = re.compile(r"<[^>]+>")


class Aside:
    """An event loop in a thread of its own, for stand-ins that are served beside tests without one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def do(self, act: Callable[..., T], *given: Any, **named: Any) -> T:
        """Call something there that is no coroutine: what stand-ins hold belongs to their loop."""

        async def acted() -> T:
            return act(*given, **named)

        return self.run(acted())

    def close(self) -> None:
        async def end() -> None:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for each in rest:
                each.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


def until(check: Callable[[], T], what: str) -> T:
    """As in `tests.processes`, for what is asked of the process itself: not so often that this is what it does."""
    return _until(check, what, PATIENCE, every=0.05)


# --- people -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """How the console shows a message of ours: its state, and all that stands beside it."""

    state: str
    words: str


@dataclass
class Person:
    """Somebody who works in the console with a browser that runs no script."""

    client: httpx.Client
    csrf: str = ""

    def sign_in(self, name: str) -> None:
        answer = self.client.post("/console/signin", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        found = _CSRF.search(self.client.get("/console/me").text)
        assert found is not None
        self.csrf = found[1]

    def page(self, number: str) -> str:
        answer = self.client.get(f"/console/t/{number}")
        assert answer.status_code == 200, answer.text
        return answer.text

    def say(self, number: str, text: str) -> httpx.Response:
        """Answer by the form of the ticket's page, as it stands there."""
        shown = self.page(number)
        given = {name: _value(shown, name) for name in ("seen", "key")}
        given |= {"csrf": self.csrf, "mode": "reply", "text": text}
        if chosen := _CHOSEN.search(shown):
            given["by"] = html.unescape(chosen[1])
        return self.client.post(f"/console/t/{number}/say", data=given)

    def answer(self, number: str, text: str) -> None:
        said = self.say(number, text)
        assert said.status_code == 303, said.text

    def shows(self, number: str, message_id: str) -> Shown:
        found = re.search(
            rf'<span class="out (\w+)" id="out-{message_id}">(.*?)</span>\s*</footer>', self.page(number), re.S
        )
        assert found is not None, f"no message {message_id} on the page of {number}"
        return Shown(found[1], " ".join(html.unescape(_TAGS.sub(" ", found[2])).split()))


def _value(page: str, name: str) -> str:
    found = re.search(rf'<input[^>]* name="{name}"[^>]* value="([^"]*)"', page)
    assert found is not None, name
    return html.unescape(found[1])


# --- the world --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Post:
    """A message that Meta took from us."""

    path: str
    body: Mapping[str, Any]
    #: what Meta calls it from now on
    id: str


@dataclass
class Graph(GraphServer):
    """Meta, and what it called the messages that it took."""

    taken: list[Post] = field(default_factory=list)

    def _answer(self, asked: Asked) -> Said:
        said = super()._answer(asked)
        if asked.method == "POST" and said.status == 200:
            told = json.loads(said.body)
            self.taken.append(Post(asked.path, asked.json, told.get("message_id") or told["messages"][0]["id"]))
        return said


@dataclass
class Providers:
    """All of them, and what they know of us."""

    aside: Aside
    twilio: TwilioServer
    #: the phone's own, since calls are driven turn by turn and recordings must be there
    voice: ToldTwilio
    bot: BotApi
    graph: Graph
    wechat: WechatServer
    #: our number for text messages
    number: str = ""
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def settings(self) -> dict[str, str]:
        given = {"SMS": self._sms(), "PHONE": self._phone(), "TELEGRAM": self._telegram(), "WECHAT": self._wechat()}
        for name, account in (("MESSENGER", meta.PAGE), ("INSTAGRAM", meta.INSTAGRAM), ("WHATSAPP", meta.NUMBER)):
            given[name] = self._meta(account)
        given["WEBHOOKS__APP_REVIEWS"] = {
            "SECRETS__0": reviews.NEW,
            "RECORDS": "reviews",
            "EN": "App reviews",
            "FIELDS": "{external_id: id, sender: author.id, sender_name: author.name, text: [title, body]}",
        }
        return {
            f"SLUICE_{name}__{key}": value
            for name, values in given.items()
            for key, value in {"ENABLED": "true", **values}.items()
        }

    def _sms(self) -> dict[str, str]:
        account = {"ACCOUNT_SID": self.twilio.account_sid, "AUTH_TOKENS__0": self.twilio.auth_token}
        return account | {"API_URL": self.twilio.url, "NUMBERS__0": self.number}

    def _phone(self) -> dict[str, str]:
        account = {"ACCOUNT_SID": calls.ACCOUNT, "AUTH_TOKENS__0": calls.NEW}
        return account | {"API_URL": self.voice.url, "NUMBERS__0": calls.OURS}

    def _telegram(self) -> dict[str, str]:
        return {"TOKEN": TOKEN, "API_URL": self.bot.url}

    def _meta(self, account: str) -> dict[str, str]:
        app = {"APP_SECRETS__0": meta.SECRET, "VERIFY_TOKENS__0": VERIFY, "GRAPH_URL": self.graph.url}
        return app | {"ACCOUNTS__0__ID": account, "ACCOUNTS__0__TOKEN": meta.TOKEN}

    def _wechat(self) -> dict[str, str]:
        secrets = {"APP_SECRET": self.wechat.app_secret, "TOKENS__0": sealed.TOKENS[0], "AES_KEYS__0": sealed.KEYS[0]}
        return secrets | {"APP_ID": self.wechat.app_id, "API_URL": self.wechat.url}


def set_up(voice: ToldTwilio, graph: GraphServer, public_url: str, account: str, number: str) -> None:
    """Twilio and Meta know our accounts, and that the number calls us: what who asks them well hears."""
    base, hook = f"/2010-04-01/Accounts/{account}", f"{public_url}/hooks/phone"
    calls_us = {"phone_number": number, "voice_url": hook, "status_callback": f"{hook}/status"}
    calls_us["voice_fallback_url"] = "https://static.example.com/fallback.xml"
    voice.json("GET", f"{base}.json", {"sid": account, "status": "active"})
    listed = {"incoming_phone_numbers": [calls_us], "next_page_uri": None}
    voice.json("GET", f"{base}/IncomingPhoneNumbers.json", listed)
    graph.objects |= {
        meta.PAGE: {"name": "Sun Insurance"},
        meta.INSTAGRAM: {"username": "sun.insurance"},
        meta.NUMBER: {"display_phone_number": "+1 555 078 3881", "verified_name": "Sun Insurance"},
    }


@contextmanager
def providers(twilio: TwilioServer) -> Iterator[Providers]:
    aside = Aside()
    with WechatServer() as wechat:
        made = Providers(aside, twilio, ToldTwilio(), BotApi(), Graph(), wechat)

        async def open_all() -> None:
            made.voice = await made.stack.enter_async_context(told_twilio())
            await made.stack.enter_async_context(made.bot)
            await made.stack.enter_async_context(made.graph)

        aside.run(open_all())
        try:
            yield made
        finally:
            aside.run(made.stack.aclose())
            aside.close()


@dataclass
class World:
    """The process, its providers and its people."""

    deployment: Deployment
    process: SluiceProcess
    providers: Providers
    url: str
    api: httpx.Client
    mei: Person

    # --- what customers and providers do --------------------------------------------------------------------------

    def hook(self, channel: str, call: Call) -> httpx.Response:
        """A provider calls; it hears 200."""
        path = f"{self.url}/hooks/{channel}" + (f"/{call.rest}" if call.rest else "")
        path += f"?{call.query}" if call.query else ""
        answer = httpx.post(path, content=call.body, headers=dict(call.headers), timeout=PATIENCE, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer

    def from_meta(self, channel: str, body: bytes) -> None:
        self.hook(channel, Call(body, meta.signed(body)))

    def posts(self, path: str, to: str) -> list[Post]:
        """What Meta took from one of our accounts for a customer, in order. `path`: without the API's version."""
        taken = [each for each in list(self.providers.graph.taken) if each.path == f"{GRAPH}/{path}"]
        return [each for each in taken if to in (each.body.get("to"), each.body.get("recipient", {}).get("id"))]

    # --- what programs see ----------------------------------------------------------------------------------------

    def get(self, path: str, **query: str) -> dict[str, Any]:
        answer = self.api.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ticket(self, words: str) -> dict[str, Any]:
        """The one ticket of a message with these words, once there is one."""
        [found] = until(lambda: self.get("tickets", q=words)["items"], f"a ticket for {words!r}")
        return self.get(f"tickets/{found['number']}")

    def messages(self, number: str, direction: str) -> list[dict[str, Any]]:
        found = self.get(f"tickets/{number}")["messages"]
        return [each for each in found if each["direction"] == direction]

    def out(self, number: str, kind: str, **having: str) -> dict[str, Any]:
        """The newest message of ours of a kind, once it has what is asked for, e.g. a state."""

        def newest() -> dict[str, Any] | None:
            found = [each for each in self.messages(number, "out") if each["kind"] == kind]
            return found[-1] if found and having.items() <= found[-1].items() else None

        found = until(newest, f"{number} has a {kind} {having}")
        assert found is not None
        return found

    def shown(self, number: str, message_id: str, state: str) -> Shown:
        """How the console shows a message of ours, once it shows it in that state."""

        def found() -> Shown | None:
            shown = self.mei.shows(number, message_id)
            return shown if shown.state == state else None

        seen = until(found, f"the console shows {message_id} of {number} as {state}")
        assert seen is not None
        return seen


@dataclass
class Door:
    """Where Twilio calls the process."""

    url: str

    def client(self, **_options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False)


def sent(found: Callable[[], list[Any]], what: str, count: int = 1) -> list[Any]:
    """What a provider was asked to send, once there are so many."""
    return until(lambda: each if len(each := found()) >= count else [], what)


@contextmanager
def world(folder: Path, twilio: TwilioServer, **settings: str) -> Iterator[World]:
    """All channels on, in one process."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    with providers(twilio) as made:
        made.number = made.aside.run(twilio.number(sms_url=f"{url}/hooks/sms"))
        made.aside.do(set_up, made.voice, made.graph, url, calls.ACCOUNT, calls.OURS)
        deployment = Deployment(
            folder,
            {
                "SLUICE_WEB__PORT": str(port),
                "SLUICE_WEB__PUBLIC_URL": url,
                # The stories shall not depend on what the trained model's certificate covers.
                "SLUICE_ROUTING__THRESHOLD": "0.5",
                **made.settings(),
                **settings,
            },
        )
        deployment.command("migrate")
        deployment.user("mei", "supervisor", PASSWORD)
        headers = {"Authorization": f"Bearer {deployment.token('stories', 'supervisor')}"}
        with (
            deployment.process() as process,
            httpx.Client(base_url=url, headers=headers, timeout=PATIENCE, trust_env=False) as api,
            httpx.Client(base_url=url, headers=_READS, timeout=PATIENCE, trust_env=False) as browser,
        ):
            mei = Person(browser)
            mei.sign_in("mei")
            yield World(deployment, process, made, url, api, mei)


_READS: Mapping[str, str] = {"Accept-Language": "en", "Accept": "text/html"}
