"""Passwords: argon2id by argon2-cffi, with its own defaults (RFC 9106, low memory)."""

from __future__ import annotations

from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from domain import InvalidInput

LEAST = 10
_hasher = PasswordHasher()


def hashed(password: str) -> str:
    """Raises `InvalidInput` for a password that is too short or too long."""
    if len(password) < LEAST:
        raise InvalidInput("password", f"At least {LEAST} characters.")
    if len(password) > 1000:
        raise InvalidInput("password", "1,000 characters at most.")
    return _hasher.hash(password)


def fits(stored: str, password: str) -> bool:
    """Costs the same whether or not there is a password to compare with."""
    try:
        return _hasher.verify(stored or _nobody(), password) and bool(stored)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobody() -> str:
    return _hasher.hash("nobody has this password")
