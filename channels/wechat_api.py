"""WeChat's API as far as answers need it: the access token, the customer-service message, customers' files.

The token stands in the query of every call, so no URL and no exception that holds one is ever logged or quoted.
Codes: https://developers.weixin.qq.com/doc/service/guide/dev/errcode.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from email.message import Message as Header
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from channels import Health, Limits
from channels.settings import WechatSettings
from domain import Attachment, ChannelError, Receipt, Reply

for _library in ("httpx", "httpcore"):  # below WARNING they log the URL of each call, and with it the token
    logging.getLogger(_library).setLevel(logging.WARNING)

_TOKEN = "/cgi-bin/stable_token"
_SEND = "/cgi-bin/message/custom/send"
_MEDIA = "/cgi-bin/media/get"

#: a token is used until so many seconds before its end, when WeChat hands out the next one
_EARLY = 300.0
#: WeChat makes a new token on demand at most every 30 seconds, and 20 times a day
_FORCE_EVERY = 300.0
#: seconds after which what is only momentary is tried again
_SOON = 5.0
#: the token is not taken (any more)
_STALE = frozenset({40001, 40014, 42001})
#: nothing was handed over: the line was never there
_NOT_THERE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FETCH_LONGEST = 50.0  # seconds for one file
_DOCUMENT = 64 * 1024  # bytes of an answer that is no file

_SECRET_WRONG = (
    "WeChat refuses wechat.app_secret. Compare it with the AppSecret at mp.weixin.qq.com, or reset it there."
)
#: code -> (words, marks of `ChannelError`). For agents where it concerns one customer, for operators otherwise.
_REFUSALS: Mapping[int, tuple[str, Mapping[str, Any]]] = {
    -1: ("WeChat is busy.", {"retry_after": _SOON}),
    40001: (_SECRET_WRONG, {"broken": True}),
    40002: ("WeChat refuses to give a token to this kind of account.", {"broken": True}),
    40003: ("WeChat does not know this customer as a follower of the account.", {"permanent": True}),
    40007: ("WeChat no longer has the file: it keeps files for three days.", {"permanent": True}),
    40013: ("WeChat does not know wechat.app_id. Compare it with the AppID at mp.weixin.qq.com.", {"broken": True}),
    40125: (_SECRET_WRONG, {"broken": True}),
    40243: ("The AppSecret is frozen. Unfreeze it at mp.weixin.qq.com.", {"broken": True}),
    43004: (
        "The customer no longer follows the account, so nothing can be sent.",
        {"permanent": True, "refused": "unsubscribed"},
    ),
    43019: ("The customer is on the account's blacklist at mp.weixin.qq.com.", {"permanent": True}),
    45002: ("The text is longer than WeChat carries.", {"permanent": True}),
    45009: ("The account's calls to WeChat are used up for today.", {"retry_after": 3600.0, "pause": True}),
    45011: ("WeChat wants fewer calls a minute.", {"retry_after": 60.0, "pause": True}),
    45015: (
        "WeChat takes answers for 48 hours after the customer's last message, and from accounts that the customer "
        "follows. One of the two is over. Use another channel.",
        {"permanent": True},
    ),
    45047: (
        "WeChat takes no more answers until the customer writes again: it allows five to each of their messages.",
        {"permanent": True},
    ),
    48001: (
        "The account may not send customer-service messages: WeChat gives that right to verified accounts.",
        {"broken": True},
    ),
    48002: ("The customer takes no messages from the account.", {"permanent": True, "refused": "blocked"}),
    48004: (
        "WeChat has taken the account's right to send away. See the notices at mp.weixin.qq.com.",
        {"broken": True},
    ),
    50002: ("WeChat has limited the account. See the notices at mp.weixin.qq.com.", {"broken": True}),
    50007: ("WeChat has frozen the account. See the notices at mp.weixin.qq.com.", {"broken": True}),
    61024: ("The account is managed by a third-party platform, which alone may take tokens.", {"broken": True}),
    87014: ("WeChat refuses the text for what it says.", {"permanent": True}),
    89501: ("An administrator of the account must allow this machine's address in WeChat.", {"broken": True}),
    89503: ("An administrator of the account must allow this machine's address in WeChat.", {"broken": True}),
}


def _refusal(code: int, said: str) -> ChannelError:
    if code == 40164:
        found = re.search(r"invalid ip ([0-9a-fA-F.:]+)", said)
        where = found.group(1) if found else "of this machine"
        words = f"Add the address {where} to the IP whitelist of the account at mp.weixin.qq.com."
        return ChannelError(words, broken=True)
    words, marks = _REFUSALS.get(code, (f"WeChat refused it (code {code}).", {"permanent": True}))
    return ChannelError(words, **marks)


class _NoAnswer(Exception):
    """What came is no answer of WeChat's API, such as a proxy's page."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"HTTP {status} without an answer")


def _document(status: int, body: bytes) -> dict[str, Any]:
    """Raises `_NoAnswer`."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _NoAnswer(status)
    return found


def _code(answer: Mapping[str, Any], default: int | None = 0) -> int:
    """0 = yes. `default`: where a yes has no code. Raises `_NoAnswer`."""
    found = answer.get("errcode", default)
    if not isinstance(found, int):
        raise _NoAnswer(httpx.codes.OK)
    return found


class WechatApi:
    """One account's calls. All parts of the channel share its token."""

    def __init__(self, settings: WechatSettings, secret: SecretStr) -> None:
        self.app_id = settings.app_id
        self.host = urlsplit(settings.api_url).hostname or ""
        self._secret = secret
        self._client = httpx.AsyncClient(
            base_url=settings.api_url, timeout=httpx.Timeout(settings.timeout, connect=settings.timeout / 2)
        )
        #: one asks, the others wait for what it brings
        self._asking = asyncio.Lock()
        self._token = ""
        self._until = 0.0
        self._forced_at = float("-inf")

    async def token(self, stale: str = "") -> str:
        """The access token. `stale`: the one that WeChat just refused.

        Raises `ChannelError` where WeChat gives none, httpx.HTTPError where it cannot be asked.
        """
        async with self._asking:
            if self._token and self._token != stale and time.monotonic() < self._until:
                return self._token
            await self._ask()
            # Another process may have had a new one made, which the plain call just brought. Only when there is none
            # is one made: it ends the one of every other process.
            if stale and self._token == stale and time.monotonic() - self._forced_at > _FORCE_EVERY:
                self._forced_at = time.monotonic()
                await self._ask(force=True)
            return self._token

    async def _ask(self, *, force: bool = False) -> None:
        wanted = {
            "grant_type": "client_credential",
            "appid": self.app_id,
            "secret": self._secret.get_secret_value(),
            "force_refresh": force,
        }
        try:
            answer = await self.post(_TOKEN, wanted)
            code = _code(answer)
        except _NoAnswer as error:
            raise ChannelError(f"WeChat gives no token (HTTP {error.status}).", retry_after=_SOON) from None
        if code:
            raise _refusal(code, str(answer.get("errmsg", "")))
        token, lasts = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not token or not isinstance(lasts, int | float):
            raise ChannelError("WeChat gives no token.", retry_after=_SOON)
        self._token, self._until = token, time.monotonic() + max(lasts - _EARLY, 0.0)

    async def post(self, path: str, body: Mapping[str, Any], token: str = "") -> dict[str, Any]:
        """Raises `_NoAnswer`, httpx.HTTPError."""
        # As it is read: WeChat shows \\uXXXX to the customer as it stands.
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        answer = await self._client.post(
            path,
            params={"access_token": token} if token else None,
            content=content,
            headers={"Content-Type": "application/json; charset=utf-8"},
        )
        return _document(answer.status_code, answer.content)

    @asynccontextmanager
    async def get(self, url: str, **query: str) -> AsyncIterator[httpx.Response]:
        """A file, to be read by and by. Raises httpx.HTTPError."""
        async with self._client.stream("GET", url, params=query or None) as answer:
            yield answer

    async def close(self) -> None:
        await self._client.aclose()


class WechatSender:
    """The way out: customer-service messages."""

    limits = Limits(
        text=2048,
        measure=lambda text: len(text.encode("utf-8", "replace")),
        unit="bytes",
        # WeChat takes five to each message of the customer, and the acknowledgement may be one of them.
        parts=4,
        window=timedelta(hours=48),
        automatic_window=timedelta(hours=48),
        ordered=True,
    )

    def __init__(self, name: str, api: WechatApi, timeout: float) -> None:
        self.name = name
        self._api = api
        self._timeout = timeout

    async def send(self, reply: Reply) -> Receipt:
        body = {"touser": reply.to, "msgtype": "text", "text": {"content": reply.text}}
        handed = False
        stale = ""
        try:
            async with asyncio.timeout(self._timeout):
                for _try in range(2):
                    token = await self._api.token(stale)
                    handed = True
                    answer = await self._api.post(_SEND, body, token)
                    code = _code(answer, None)
                    handed = False  # WeChat said yes or no
                    if code in _STALE:
                        stale = token
                        continue
                    if code:
                        raise _refusal(code, str(answer.get("errmsg", "")))
                    return Receipt(provider_id=str(answer.get("msgid", "")))
        except _NOT_THERE:
            raise ChannelError("WeChat cannot be reached.", retry_after=_SOON) from None
        except _NoAnswer as error:
            if error.status in (429, 503):
                raise ChannelError(f"WeChat is busy (HTTP {error.status}).", retry_after=_SOON) from None
            raise ChannelError(f"{error}", unknown=True) from None
        except (httpx.HTTPError, TimeoutError) as error:
            if handed:
                raise ChannelError(f"The line broke ({type(error).__name__}).", unknown=True) from None
            raise ChannelError("WeChat cannot be reached.", retry_after=_SOON) from None
        raise ChannelError("WeChat refuses its own access token again and again.", broken=True)

    async def close(self) -> None:
        await self._api.close()


class WechatFetcher:
    """Customers' pictures, voice and videos, which WeChat keeps for three days."""

    def __init__(self, api: WechatApi, most: int) -> None:
        self._api = api
        self._most = most

    async def fetch(self, reference: Mapping[str, str]) -> Attachment:
        media_id = reference["media_id"]
        stale = ""
        try:
            async with asyncio.timeout(_FETCH_LONGEST):
                for _try in range(2):
                    stale = await self._api.token(stale)
                    found = await self._read(_MEDIA, access_token=stale, media_id=media_id)
                    if isinstance(found, dict) and (where := found.get("video_url")):
                        found = await self._read(self._trusted(where))
                    if isinstance(found, Attachment):
                        return found
                    if (code := _code(found)) not in _STALE:
                        raise _refusal(code, str(found.get("errmsg", ""))) if code else _NoAnswer(200)
        except _NoAnswer as error:
            raise ChannelError(f"WeChat gave no file (HTTP {error.status}).", retry_after=_SOON) from None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise ChannelError(f"The file did not come ({type(error).__name__}).", retry_after=_SOON) from None
        raise ChannelError("WeChat refuses its own access token again and again.", broken=True)

    def _trusted(self, url: Any) -> str:
        """Videos may lie elsewhere at WeChat, and nowhere else."""
        with suppress(ValueError):
            parts = urlsplit(str(url))
            host = parts.hostname or ""
            if parts.scheme in ("http", "https") and (host == self._api.host or host.endswith(".qq.com")):
                return str(url)
        raise ChannelError("WeChat named a place that is not its own.", permanent=True)

    async def _read(self, url: str, **query: str) -> Attachment | dict[str, Any]:
        """The file, or the document that came in its place."""
        async with self._api.get(url, **query) as answer:
            media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if answer.status_code != httpx.codes.OK or "json" in media_type or media_type.startswith("text/"):
                return _document(answer.status_code, await _body(answer, _DOCUMENT) or b"")
            content = await _body(answer, self._most)
        if content is None:
            raise ChannelError(f"The file has more than {self._most:,} bytes.", permanent=True)
        name = _name(answer.headers.get("content-disposition", ""))
        return Attachment(name=name, media_type=media_type or "application/octet-stream", content=content)


async def _body(answer: httpx.Response, most: int) -> bytes | None:
    """None as soon as it is too much, whatever its header said."""
    found = bytearray()
    async for chunk in answer.aiter_bytes():
        found += chunk
        if len(found) > most:
            return None
    return bytes(found)


def _name(disposition: str) -> str:
    header = Header()
    header["Content-Disposition"] = disposition
    return PurePosixPath((header.get_filename() or "").replace("\\", "/")).name[:200]


class WechatProbe:
    """Asks for a token, which needs the id, the secret and this machine's address to be right."""

    def __init__(self, name: str, api: WechatApi | None) -> None:
        self._name = name
        self._api = api

    async def probe(self) -> Health:
        if self._api is None:
            words = "messages come in, but answers wait: wechat.app_secret is missing (SLUICE_WECHAT__APP_SECRET)"
            return Health(self._name, ok=False, detail=words)
        try:
            async with asyncio.timeout(_FETCH_LONGEST):
                await self._api.token()
        except ChannelError as error:
            return Health(self._name, ok=False, detail=str(error))
        except (httpx.HTTPError, TimeoutError) as error:
            words = f"{self._api.host} cannot be reached ({type(error).__name__})"
            return Health(self._name, ok=False, detail=words)
        return Health(self._name, ok=True, detail=f"account {self._api.app_id}, answers can be sent")
