"""Requests to Twilio's REST API: a transport with deadlines, and what its answers mean.

The library's own asynchronous client hands `timeout=None` to aiohttp, which means none at all, and logs what it sends;
so `request` is ours.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.response import Response
from yarl import URL

from channels.settings import TwilioSettings
from domain import ChannelError

T = TypeVar("T")

#: seconds after which a fault of the other side is tried again
RETRY = 5.0
_LIMITED = 10.0
#: Twilio's answers are some kilobytes; a page of a thousand messages a few megabytes
_ANSWER_MOST = 32_000_000

_silent = logging.getLogger("sluice.twilio")
_silent.disabled = True


class Http(AsyncTwilioHttpClient):  # type: ignore[misc]  # it has no types
    """The library's transport with a deadline, another host where the settings name one, and a closed mouth.

    Raises `ChannelError`: `unknown` when the line broke after something that changes things was handed over, and
    `retry_after` when it broke before, or Twilio has too much to do.
    """

    def __init__(self, settings: TwilioSettings) -> None:
        super().__init__(pool_connections=False, timeout=settings.timeout, logger=_silent)
        self._api = settings.api_url
        self.session: aiohttp.ClientSession | None = None

    def open(self) -> aiohttp.ClientSession:
        """Made with the first request: it belongs to an event loop."""
        if self.session is None or self.session.closed:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_handed_over)
            # The environment's proxy is for Twilio itself, and not for a stand-in beside us.
            self.session = aiohttp.ClientSession(trace_configs=[trace], trust_env=self._api.startswith("https:"))
        return self.session

    def here(self, url: str) -> str:
        """The same place at the host that the settings name."""
        parts = urlsplit(url)
        return f"{self._api}{parts.path}" + (f"?{parts.query}" if parts.query else "")

    async def request(
        self,
        method: str,
        url: str,
        params: dict[str, object] | None = None,
        data: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Response:
        target = self.here(url)
        if params:
            target += ("&" if "?" in target else "?") + urlencode(params, doseq=True)
        sent = dict(headers or {})
        if auth:
            sent["Authorization"] = aiohttp.encode_basic_auth(*auth)
        body = urlencode(data, doseq=True).encode() if data else None
        trail = SimpleNamespace(handed=False)
        try:
            async with (
                asyncio.timeout(timeout or self.timeout),
                self.open().request(
                    method.upper(), URL(target, encoded=True), data=body, headers=sent, allow_redirects=False,
                    trace_request_ctx=trail,
                ) as answer,
            ):  # fmt: skip
                text = (await read(answer, _ANSWER_MOST)).decode("utf-8", "replace")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            # Never quoted: it may hold the URL, and that the customer's number.
            raise _lost(type(error).__name__, unknown=trail.handed and method.upper() != "GET") from None
        if answer.status == 429:
            raise ChannelError("Twilio asks us to slow down", retry_after=after(answer, _LIMITED), pause=True)
        if answer.status >= 500:
            raise ChannelError(f"Twilio has a fault of its own ({answer.status})", retry_after=after(answer, RETRY))
        return Response(answer.status, text, dict(answer.headers))

    async def close(self) -> None:
        if self.session is not None:
            await self.session.close()
            self.session = None


async def _handed_over(_session: aiohttp.ClientSession, trail: SimpleNamespace, _params: object) -> None:
    trail.trace_request_ctx.handed = True


def _lost(what: str, *, unknown: bool) -> ChannelError:
    if unknown:
        return ChannelError(f"the line to Twilio broke after the request ({what})", unknown=True)
    return ChannelError(f"Twilio cannot be reached ({what})", retry_after=RETRY)


def after(answer: aiohttp.ClientResponse, otherwise: float) -> float:
    given = answer.headers.get("Retry-After", "")
    return float(given) if given.isascii() and given.isdigit() and len(given) < 6 else otherwise


async def read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Raises ValueError for more than `most` bytes, counted after decompression."""
    parts, size = [], 0
    async for chunk in answer.content.iter_chunked(65_536):
        size += len(chunk)
        if size > most:
            raise ValueError("too large")
        parts.append(chunk)
    return b"".join(parts)


_ACT = "Credentials and account: see console.twilio.com."
#: by Twilio's number: nothing goes out on the account until somebody does something
_BROKEN = {
    20003: f"Twilio refuses our account SID or auth token. {_ACT}",
    20005: f"Our account with Twilio is not active. {_ACT}",
    10001: f"Our account with Twilio is not active. {_ACT}",
    20404: f"Twilio does not know our account SID. {_ACT}",
    30002: f"Our account with Twilio is suspended. {_ACT}",
}


def refusal(status: int, code: int | None, special: Callable[[int], ChannelError | None]) -> ChannelError:
    """What an answer that is no success means. `special`: what the channel knows of Twilio's numbers."""
    if code == status:  # the library's stand-in for an answer that is no JSON: somebody between us and Twilio spoke
        return ChannelError(f"not Twilio but something on the way answered ({status})", retry_after=60.0)
    if code is not None and (found := special(code)) is not None:
        return found
    if code in _BROKEN:
        return ChannelError(_BROKEN[code], broken=True)
    if status in (401, 403):
        return ChannelError(_BROKEN[20003], broken=True)
    if code == 20429:
        return ChannelError("Twilio asks us to slow down", retry_after=_LIMITED, pause=True)
    return ChannelError(f"Twilio does not take this (its error {code or status}).", permanent=True)


def _nothing_special(_code: int) -> ChannelError | None:
    return None


async def asked(call: Awaitable[T], special: Callable[[int], ChannelError | None] = _nothing_special) -> T:
    """The result of a call by the library. Raises `ChannelError` alone."""
    try:
        return await call
    except (TwilioRestException, TwilioServiceException) as error:
        raise refusal(error.status, error.code, special) from None
    except TwilioException as error:
        raise _of_a_page(error, special) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _unreadable() from None


def _unreadable() -> ChannelError:
    return ChannelError("Twilio's answer cannot be read", unknown=True)


def _of_a_page(error: TwilioException, special: Callable[[int], ChannelError | None]) -> ChannelError:
    """Of a list that is refused the library says no more than that, and hands over the answer as it came."""
    response = error.args[1] if len(error.args) > 1 else None
    if not isinstance(response, Response) or response.status_code < 300:
        return _unreadable()
    try:
        code = json.loads(response.text)["code"]
    except (ValueError, KeyError, TypeError):
        code = response.status_code
    return refusal(response.status_code, code if isinstance(code, int) else None, special)
