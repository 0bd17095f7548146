"""Who may embed the chat, and how much anyone may do: origins, headers, limits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import Request, WebSocket
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from domain import Forbidden, TooMany
from web.context import web_of

#: behind one address stands an office or a mobile network: it may do this many times what one visitor may
_PEOPLE_PER_ADDRESS = 10

_BASE = {
    "X-Content-Type-Options": "nosniff",
    # not no-referrer: under that a browser gives `Origin: null` with a form, and ours must name us
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
}


class Brake:
    """Limits of this process: by visitor and by network address."""

    def __init__(self, per_minute: int) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._visitor = RateLimitItemPerMinute(per_minute)
        self._address = RateLimitItemPerMinute(per_minute * _PEOPLE_PER_ADDRESS)

    def line(self, session: str, address: str) -> None:
        """A visitor sends something. Raises `TooMany`."""
        self._hit(self._visitor, "line", session)
        self._hit(self._address, "lines", address)

    def knock(self, address: str) -> None:
        """Somebody opens a connection. Raises `TooMany`."""
        self._hit(self._address, "knock", address)

    def _hit(self, limit: RateLimitItemPerMinute, *names: str) -> None:
        if not self._limiter.hit(limit, *names):
            reset = self._limiter.get_window_stats(limit, *names).reset_time
            raise TooMany(max(1.0, reset - time.time()))


def address_of(connection: Request | WebSocket) -> str:
    return connection.client.host if connection.client else "?"


def own_origin(connection: Request | WebSocket) -> str:
    """Our origin as the browser sees it."""
    scheme = {"ws": "http", "wss": "https"}.get(connection.url.scheme, connection.url.scheme)
    return f"{scheme}://{connection.url.netloc}"


def is_ours(connection: Request | WebSocket, origin: str) -> bool:
    """The origin is our own, be it behind a proxy that speaks https for us."""
    public = urlsplit(web_of(connection).desk.public_url)
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc in (connection.url.netloc, public.netloc)


def may_embed(connection: Request | WebSocket, site: str) -> bool:
    """The widget may stand on that site."""
    return site in web_of(connection).settings.chat.origins or is_ours(connection, site)


def check_origin(connection: Request | WebSocket) -> None:
    """A browser's page speaks from our frame or from an allowed site, or not at all. Raises `Forbidden`."""
    origin = connection.headers.get("origin", "")
    if not origin or not may_embed(connection, origin):
        raise Forbidden("This site may not use the chat.")


def headers(request: Request, *, framed: bool = False) -> Mapping[str, str]:
    """Of a chat page. `framed`: it may stand on our own and on the allowed sites."""
    settings = web_of(request).settings.chat
    socket = own_origin(request).replace("http", "ws", 1)
    policy = [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        # Safari before 15.4 does not count ws: as 'self'
        f"connect-src 'self' {socket}",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors " + (" ".join(["'self'", *settings.origins]) if framed else "'none'"),
    ]
    return {**_BASE, "Content-Security-Policy": "; ".join(policy)}
