"""Meta, for tests: a Graph API on loopback that answers as told, and what Meta sends to webhooks, signed as Meta does.

Written from developers.facebook.com/documentation/business-messaging: bodies are JSON with `\\u` escapes in lower case
and escaped slashes, signed as they are; entries and events come in batches, again, and in any order.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx

SECRET, OLD_SECRET = "the app's secret 密", "the app's old secret"
TOKEN = "EAAtoken-of-the-account"
PAGE, INSTAGRAM, NUMBER = "102030405060708", "17841400000000001", "106540352242922"
PSID, IGSID, WA_ID, USER_ID = "4004004004004004", "9009009009009009", "8613800138000", "US.13491208655302741918"

_numbers = itertools.count(1)

Event = dict[str, Any]


# --- what Meta sends --------------------------------------------------------------------------------------------------


def encoded(body: Any) -> bytes:
    """As Meta writes JSON."""
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")).replace("/", "\\/").encode()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}", "Content-Type": "application/json"}


def mid() -> str:
    return f"m_{next(_numbers)}Vn8bQ-x_{time.time_ns()}"


def wamid() -> str:
    return f"wamid.HBgM{next(_numbers)}{time.time_ns()}="


def said(text: str = "", *, sender: str = PSID, to: str = PAGE, **message: Any) -> Event:
    """A `messaging` event with a message."""
    given = {"mid": mid()} | ({"text": text} if text else {}) | message
    return {**_between(sender, to), "message": given}


def happened(sender: str = PSID, to: str = PAGE, **what: Any) -> Event:
    """Another `messaging` event: a postback, a reaction, a delivery."""
    return {**_between(sender, to), **what}


def echo(text: str, *, sender: str = PAGE, to: str = PSID, **message: Any) -> Event:
    """What went out from the page, by whomever."""
    return said(text, sender=sender, to=to, is_echo=True, **message)


def _between(sender: str, to: str) -> Event:
    return {"sender": {"id": sender}, "recipient": {"id": to}, "timestamp": int(time.time() * 1000)}


def page(*events: Any, account: str = PAGE, kind: str = "page") -> bytes:
    """One notification with one entry for each event, as busy pages get them."""
    now = int(time.time() * 1000)
    return encoded({"object": kind, "entry": [{"id": account, "time": now, "messaging": [each]} for each in events]})


def instagram(*events: Event, account: str = INSTAGRAM) -> bytes:
    """One notification with all events in one entry."""
    entry = {"id": account, "time": int(time.time() * 1000), "messaging": list(events)}
    return encoded({"object": "instagram", "entry": [entry]})


def wrote(kind: str = "text", content: Any = None, *, sender: str = WA_ID, **more: Any) -> Event:
    """A WhatsApp message of a kind; a text's content is its body."""
    given = {"body": content} if kind == "text" else content
    whom = {"from_user_id": sender} if "." in sender else {"from": sender, "from_user_id": USER_ID}
    message = {**whom, "id": wamid(), "timestamp": str(int(time.time())), "type": kind}
    return message | ({kind: given} if given is not None else {}) | more


def contact(sender: str = WA_ID, name: str = "李雷") -> Event:
    """Who a message is from; those who hide their number have a user id alone."""
    whom = {"user_id": sender} if "." in sender else {"wa_id": sender, "user_id": USER_ID}
    return {"profile": {"name": name}, **whom}


def whatsapp(
    *messages: Event,
    statuses: Sequence[Event] = (),
    contacts: Sequence[Event] | None = None,
    number: str = NUMBER,
    **value: Any,
) -> bytes:
    known = [contact()] if contacts is None and messages else list(contacts or ())
    given: Event = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": number},
    }
    given |= {"contacts": known} if known else {}
    given |= {"messages": list(messages)} if messages else {}
    given |= {"statuses": list(statuses)} if statuses else {}
    return business({"field": "messages", "value": given | value})


def business(*changes: Event) -> bytes:
    entry = {"id": "102290129340398", "changes": list(changes)}
    return encoded({"object": "whatsapp_business_account", "entry": [entry]})


def status(message_id: str, state: str, *, at: float | None = None, **more: Any) -> Event:
    when = str(int(at if at is not None else time.time()))
    return {"id": message_id, "status": state, "timestamp": when, "recipient_id": WA_ID, **more}


@dataclass
class Deliveries:
    """Meta's queue for one webhook: whatever is not answered with 200 is sent again, behind what came meanwhile."""

    client: httpx.AsyncClient
    path: str
    tries: int = 5
    heard: list[int] = field(default_factory=list)

    async def send(self, *bodies: bytes) -> None:
        queue = [(body, 1) for body in bodies]
        while queue:
            body, attempt = queue.pop(0)
            answer = await self.client.post(self.path, content=body, headers=signed(body))
            self.heard.append(answer.status_code)
            if answer.status_code != 200 and attempt < self.tries:
                queue.append((body, attempt + 1))


# --- the Graph API ----------------------------------------------------------------------------------------------------


class Fault(StrEnum):
    CLOSE = "close"  # the line is cut after the request was read
    HANG = "hang"  # nothing is ever answered
    DEAF = "deaf"  # the line is cut as soon as it is opened


@dataclass(frozen=True, slots=True)
class Said:
    """An answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def refusal(code: int, subcode: int = 0, *, status: int = 400, **more: Any) -> Said:
    """An error of the Graph API."""
    error = {"message": f"(#{code}) said Meta", "type": "OAuthException", "code": code, "fbtrace_id": "A1b2"} | more
    error |= {"error_subcode": subcode} if subcode else {}
    return Said(status, encoded({"error": error}))


def html(status: int) -> Said:
    return Said(status, b"<html><body>Sorry, something went wrong.</body></html>", {"Content-Type": "text/html"})


@dataclass
class GraphServer:
    """Takes messages and gives files. `next` are what the next requests get instead."""

    next: list[Said | Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    #: what lies there, by path
    files: dict[str, Said] = field(default_factory=dict)
    #: accounts and media, by id
    objects: dict[str, Event] = field(default_factory=dict)
    url: str = ""
    token: str = TOKEN
    _server: asyncio.Server | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def sent(self) -> list[Asked]:
        return [each for each in self.asked if each.method == "POST"]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.next[:1] == [Fault.DEAF]:
                self.next.pop(0)
                return
            asked = await _read(reader)
            self.asked.append(asked)
            told = self.next.pop(0) if self.next else self._answer(asked)
            if told is Fault.HANG:
                await self._stop.wait()
            if isinstance(told, Said):
                head = {"Content-Type": "application/json", "Content-Length": str(len(told.body)), **told.headers}
                lines = [f"HTTP/1.1 {told.status} X", *(f"{name}: {value}" for name, value in head.items())]
                writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + told.body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, asked: Asked) -> Said:
        if (found := self.files.get(asked.path)) is not None:
            return found
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return refusal(190, 467, status=401)
        steps = asked.path.strip("/").split("/")
        if asked.method == "GET":
            known = self.objects.get(steps[-1])
            return Said(body=encoded({"id": steps[-1], **known})) if known is not None else refusal(100, 33)
        if "messaging_product" in asked.json:
            to, recipient = asked.json.get("to"), asked.json.get("recipient")
            whom = {"input": to, "wa_id": to} if to else {"input": recipient, "user_id": recipient}
            taken = [{"id": wamid(), "message_status": "accepted"}]
            return Said(body=encoded({"messaging_product": "whatsapp", "contacts": [whom], "messages": taken}))
        return Said(body=encoded({"recipient_id": asked.json["recipient"]["id"], "message_id": mid()}))


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _version = head[0].split(" ")
    pairs = [line.split(":", 1) for line in head[1:] if ":" in line]
    headers = {name.lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    return Asked(method, parts.path, dict(parse_qsl(parts.query)), headers, body)
