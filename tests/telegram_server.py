"""A strict Bot API of our own, over HTTP on loopback: what a bot does wrong it hears as it would from Telegram.

Updates wait until they are confirmed by a higher offset, or by HTTP 2xx of a webhook. Faults are put in front of
calls: `api.fail("sendMessage", retry_after(3), blocked())`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
from aiohttp import web

HOST = "127.0.0.1"
TOKEN = "123456789:AAFsecretsecretsecretsecretsecret_-1"
BOT = "123456789"
ME = {"id": int(BOT), "is_bot": True, "first_name": "Claims", "username": "claims_bot"}
LONGEST = 4096
_KINDS = {"message", "edited_message", "callback_query", "my_chat_member", "channel_post", "inline_query"}
_PARAMETERS = {
    "getMe": set(),
    "getUpdates": {"offset", "limit", "timeout", "allowed_updates"},
    "setWebhook": {"url", "secret_token", "allowed_updates", "drop_pending_updates", "max_connections"},
    "deleteWebhook": {"drop_pending_updates"},
    "getWebhookInfo": set(),
    "sendMessage": {"chat_id", "message_thread_id", "text", "link_preview_options", "reply_markup"},
    "answerCallbackQuery": {"callback_query_id", "text", "show_alert"},
    "getFile": {"file_id"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What a call hears instead of its own answer."""

    status: int = 200
    body: Any = None
    html: str = ""
    #: the work is done all the same
    done: bool = False
    #: seconds before the answer
    wait: float = 0.0
    #: no answer: the line breaks
    drop: bool = False


def refuse(status: int, description: str, **parameters: Any) -> Fault:
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    return Fault(status, body | ({"parameters": parameters} if parameters else {}))


def retry_after(seconds: int) -> Fault:
    return refuse(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)


def blocked() -> Fault:
    return refuse(403, "Forbidden: bot was blocked by the user")


def bad(description: str = "Bad Request: chat not found") -> Fault:
    return refuse(400, description)


def conflict() -> Fault:
    return refuse(409, "Conflict: terminated by other getUpdates request; make sure that only one bot runs")


def unauthorized() -> Fault:
    return refuse(401, "Unauthorized")


def gateway() -> Fault:
    return Fault(502, html="<html><head><title>502 Bad Gateway</title></head></html>")


def migrated(to: int) -> Fault:
    return refuse(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=to)


class _Refusal(Exception):
    def __init__(self, status: int, description: str) -> None:
        self.fault = refuse(status, description)


@dataclass
class BotApi:
    """One bot's server. `async with BotApi() as api: ... api.url`"""

    token: str = TOKEN
    port: int = 0
    me: dict[str, Any] = field(default_factory=lambda: dict(ME))
    waiting: list[dict[str, Any]] = field(default_factory=list)
    #: what each getUpdates asked for, None = without an offset
    offsets: list[int | None] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    answered: list[dict[str, Any]] = field(default_factory=list)
    webhook: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    chats: set[int] = field(default_factory=set)
    faults: defaultdict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    next_update: int = 1000
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._news = asyncio.Event()
        self._asking: asyncio.Event | None = None
        self._queries: set[str] = set()
        self._messages = itertools.count(1)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=50_000_000)
        app.router.add_route("*", "/bot{token}/{method}", self._call)
        app.router.add_get("/file/bot{token}/{path:.+}", self._file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def fail(self, method: str, *faults: Fault) -> None:
        self.faults[method] += faults

    # --- what customers do ----------------------------------------------------------------------------------------

    def happens(self, **update: Any) -> dict[str, Any]:
        """Something happened: an update waits for the bot, if it asked for its kind."""
        made = {"update_id": self.next_update, **update}
        self.next_update += 1
        self.waiting.append(made)
        self._news.set()
        return made

    def message(self, text: str | None = None, *, chat: int = 7, **values: Any) -> dict[str, Any]:
        self.chats.add(chat)
        person = {"id": 7, "is_bot": False, "first_name": "Li", "last_name": "Na", "language_code": "zh-hans"}
        made: dict[str, Any] = {
            "message_id": next(self._messages),
            "date": int(time.time()),
            "chat": {"id": chat, "type": "private" if chat > 0 else "supergroup", "first_name": "Li"},
            "from": person | ({"id": chat} if chat > 0 else {}),
        }
        return made | ({} if text is None else {"text": text}) | values

    def says(self, text: str | None = None, **values: Any) -> dict[str, Any]:
        return self.happens(message=self.message(text, **values))

    def presses(self, data: str, under: Mapping[str, Any] | None = None, *, chat: int = 7) -> dict[str, Any]:
        query = f"q{self.next_update}"
        self._queries.add(query)
        shown = dict(under) if under is not None else self.message("...", chat=chat)
        person = {"id": chat, "is_bot": False, "first_name": "Li", "language_code": "zh-hans"}
        return self.happens(
            callback_query={"id": query, "from": person, "chat_instance": "1", "data": data, "message": shown}
        )

    async def deliver(self, client: httpx.AsyncClient) -> list[int]:
        """Call the webhook with each update that waits, in order, until one is refused. The statuses heard."""
        heard = []
        for update in list(self.waiting):
            headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook["secret_token"]}
            answer = await client.post(self.webhook["url"], json=update, headers=headers)
            heard.append(answer.status_code)
            if answer.status_code // 100 != 2:
                break
            self.waiting.remove(update)
            if answer.headers.get("content-type", "").startswith("application/json") and answer.content:
                given = answer.json()
                await self._do(given.pop("method"), given)
        return heard

    # --- the server -----------------------------------------------------------------------------------------------

    async def _call(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        given: dict[str, Any] = dict(await request.post())
        given |= {key: value for key, value in request.query.items() if key not in given}
        fault = self.faults[method].popleft() if self.faults[method] else None
        if fault is not None and not fault.done:
            self.calls.append((method, given))
            return await self._heard(request, fault)
        try:
            if request.match_info["token"] != self.token:
                raise _Refusal(401 if ":" in request.match_info["token"] else 404, "Unauthorized")
            result = await self._do(method, given)
        except _Refusal as refusal:
            return await self._heard(request, refusal.fault)
        return await self._heard(request, fault or Fault(body={"ok": True, "result": result}))

    async def _heard(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        await asyncio.sleep(fault.wait)
        if fault.drop:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if fault.html:
            return web.Response(status=fault.status, text=fault.html, content_type="text/html")
        return web.json_response(fault.body, status=fault.status)

    async def _do(self, method: str, given: dict[str, Any]) -> Any:
        self.calls.append((method, given))
        if method not in _PARAMETERS:
            raise _Refusal(404, "Not Found: method not found")
        if unknown := given.keys() - _PARAMETERS[method]:
            raise _Refusal(400, f"Bad Request: parameters {sorted(unknown)} are not known")
        if method == "getUpdates":
            return await self._updates(given)
        return getattr(self, f"_{method}")(given)

    def _getMe(self, _given: dict[str, Any]) -> Any:
        return self.me

    async def _updates(self, given: dict[str, Any]) -> Any:
        if self.webhook.get("url"):
            raise _Refusal(409, "Conflict: can't use getUpdates method while webhook is active")
        allowed = set(json.loads(given.get("allowed_updates", "[]"))) or _KINDS
        offset = int(given["offset"]) if "offset" in given else None
        limit = int(given.get("limit", 100))
        if not 1 <= limit <= 100 or not allowed <= _KINDS:
            raise _Refusal(400, "Bad Request: limit or allowed_updates")
        self.offsets.append(offset)
        if self._asking is not None:
            self._asking.set()
        mine = self._asking = asyncio.Event()
        if offset is not None:
            self.waiting = [each for each in self.waiting if each["update_id"] >= offset]
        until = time.monotonic() + float(given.get("timeout", 0))
        # A kind that this server does not know is always handed over.
        while not (found := [each for each in self.waiting if not each.keys() & (_KINDS - allowed)]):
            self._news.clear()
            waits = [asyncio.ensure_future(self._news.wait()), asyncio.ensure_future(mine.wait())]
            await asyncio.wait(waits, timeout=until - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
            for each in waits:
                each.cancel()
            if mine.is_set():
                raise _Refusal(409, "Conflict: terminated by other getUpdates request")
            if time.monotonic() >= until:
                break
        if self._asking is mine:
            self._asking = None
        return sorted(found, key=lambda each: int(each["update_id"]))[:limit]

    def _setWebhook(self, given: dict[str, Any]) -> Any:
        if given.get("url") and not str(given["url"]).startswith("https://"):
            raise _Refusal(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
        self.webhook = given
        return True

    def _deleteWebhook(self, given: dict[str, Any]) -> Any:
        if str(given.get("drop_pending_updates", "false")).lower() == "true":
            self.waiting.clear()
        self.webhook = {}
        return True

    def _getWebhookInfo(self, _given: dict[str, Any]) -> Any:
        told = {"url": self.webhook.get("url", ""), "has_custom_certificate": False}
        return told | {"pending_update_count": len(self.waiting)} | self.info

    def _sendMessage(self, given: dict[str, Any]) -> Any:
        text = str(given.get("text", "")).strip()
        if int(given["chat_id"]) not in self.chats:
            raise _Refusal(400, "Bad Request: chat not found")
        if not text:
            raise _Refusal(400, "Bad Request: message text is empty")
        if len(text.encode("utf-16-le")) // 2 > LONGEST:
            raise _Refusal(400, "Bad Request: message is too long")
        markup = json.loads(given["reply_markup"]) if "reply_markup" in given else None
        for row in markup["inline_keyboard"] if markup else []:
            for button in row:
                if not 1 <= len(button["callback_data"].encode()) <= 64 or not button["text"]:
                    raise _Refusal(400, "Bad Request: BUTTON_DATA_INVALID")
        made = self.message(text, chat=int(given["chat_id"])) | {"from": self.me}
        made |= {"reply_markup": markup} if markup else {}
        self.sent.append(made)
        return made

    def _answerCallbackQuery(self, given: dict[str, Any]) -> Any:
        if given["callback_query_id"] not in self._queries:
            raise _Refusal(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        if len(given.get("text", "")) > 200:
            raise _Refusal(400, "Bad Request: MESSAGE_TOO_LONG")
        self._queries.remove(given["callback_query_id"])
        self.answered.append(given)
        return True

    def _getFile(self, given: dict[str, Any]) -> Any:
        found = self.files.get(given["file_id"])
        if found is None:
            raise _Refusal(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        if len(found) > 20 * 1024 * 1024:
            raise _Refusal(400, "Bad Request: file is too big")
        return {"file_id": given["file_id"], "file_unique_id": "u", "file_size": len(found),
                "file_path": f"photos/{given['file_id']}"}  # fmt: skip

    async def _file(self, request: web.Request) -> web.StreamResponse:
        if self.faults["file"]:
            return await self._heard(request, self.faults["file"].popleft())
        found = self.files.get(request.match_info["path"].rpartition("/")[2])
        if found is None or request.match_info["token"] != self.token:
            return web.Response(status=404)
        return web.Response(body=found, content_type="application/octet-stream")
