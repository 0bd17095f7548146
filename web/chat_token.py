"""A visitor's token: who holds it is the visitor. Signed, dated, and bound to the site that the widget stands on.

PyJWT is imported with the first visitor: where `cryptography` is installed it loads all of it, 12 MB for signatures of
kinds that are not used here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain import Forbidden

_AUDIENCE = "chat"
_METHOD = "HS256"
_SESSION = re.compile(r"[A-Za-z0-9_-]{22}")


class BadToken(Forbidden):
    """The token is none of ours, too old, or of another site."""


@dataclass(frozen=True, slots=True)
class Visitor:
    session: str
    #: origin of the page that embeds the widget
    site: str


def new_visitor(site: str) -> Visitor:
    return Visitor(secrets.token_urlsafe(16), site)


class Tokens:
    """Makes and reads tokens. `secret` also signs other things, so the key is one derived for this use alone."""

    def __init__(self, secret: str, lasts: timedelta) -> None:
        self._key = hashlib.blake2b(secret.encode(), person=b"chat-token", digest_size=32).digest()
        self._lasts = lasts

    def make(self, visitor: Visitor, now: datetime) -> str:
        import jwt

        claims = {"aud": _AUDIENCE, "sub": visitor.session, "site": visitor.site, "iat": now, "exp": now + self._lasts}
        return jwt.encode(claims, self._key, algorithm=_METHOD)

    def read(self, token: str, *, site: str | None = None) -> Visitor:
        """Who holds it. `site`: where it is used, when the channel tells. Raises `BadToken`."""
        import jwt

        try:
            claims = jwt.decode(
                token, self._key, algorithms=[_METHOD], audience=_AUDIENCE,
                options={"require": ["exp", "iat", "sub", "site"]},
            )  # fmt: skip
        except jwt.InvalidTokenError as error:
            raise BadToken from error
        visitor = Visitor(str(claims["sub"]), str(claims["site"]))
        if not _SESSION.fullmatch(visitor.session) or (site is not None and site != visitor.site):
            raise BadToken
        return visitor
