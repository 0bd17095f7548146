"""People who sign in, and programs that hold tokens. Secrets are kept as digests only."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from domain import Conflict, Forbidden, NotFound, Role
from storage.tables import Person, SignIn, Token, table
from storage.types import AnyRow

person = table(Person)
sign_in = table(SignIn)
token = table(Token)


def digest(secret: str) -> str:
    """Of a random secret of 256 bits: a plain hash is enough, there is nothing to guess."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def add(connection: Connection, name: str, role: Role, departments: Sequence[str], password: str, now: datetime) -> int:
    """A new person; `password` is an argon2 hash or "". Raises `Conflict` for a name that is taken."""
    try:
        with connection.begin_nested():
            inserted = connection.scalar(
                sa.insert(person)
                .values(
                    name=name, role=role.value, departments=list(departments), password=password, language="",
                    active=True, created_at=now,
                )
                .returning(person.c.id)
            )  # fmt: skip
    except IntegrityError as error:
        raise Conflict(f"There is somebody named {name} already.") from error
    return int(inserted or 0)


def everybody(connection: Connection) -> Sequence[AnyRow]:
    return connection.execute(sa.select(person).where(person.c.active).order_by(person.c.name)).all()


def named(connection: Connection, name: str) -> AnyRow:
    """Raises `NotFound`."""
    row = connection.execute(sa.select(person).where(person.c.name == name, person.c.active)).first()
    if row is None:
        raise NotFound(f"There is nobody named {name}.")
    return row


def any_at_all(connection: Connection) -> bool:
    return connection.scalar(sa.select(person.c.id).limit(1)) is not None


def set_password(connection: Connection, person_id: int, password: str) -> None:
    connection.execute(sa.update(person).where(person.c.id == person_id).values(password=password))


def remove(connection: Connection, name: str) -> None:
    """Nobody signs in under the name any more; the row stays for the trail. Raises `NotFound`."""
    person_id = named(connection, name).id
    # The name becomes free for somebody else.
    gone = f"{name[:40]} ({person_id})"
    connection.execute(sa.update(person).where(person.c.id == person_id).values(active=False, password="", name=gone))
    connection.execute(sa.delete(sign_in).where(sign_in.c.person_id == person_id))


def set_language(connection: Connection, person_id: int, language: str) -> None:
    connection.execute(sa.update(person).where(person.c.id == person_id).values(language=language))


# --- sessions and one-time links --------------------------------------------------------------------------------------


def open_session(connection: Connection, person_id: int, now: datetime, lasts: timedelta) -> tuple[str, str]:
    """A new session: its secret (for the cookie) and its CSRF token."""
    secret, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(24)
    connection.execute(
        sa.insert(sign_in).values(
            digest=digest(secret),
            kind="session",
            person_id=person_id,
            csrf=csrf,
            created_at=now,
            expires_at=now + lasts,
        )
    )
    connection.execute(sa.delete(sign_in).where(sign_in.c.expires_at < now))
    return secret, csrf


def session(connection: Connection, secret: str, now: datetime) -> AnyRow | None:
    """Who holds this session: the person's row with `csrf`, or None."""
    query = (
        sa.select(person, sign_in.c.csrf)
        .join(sign_in, sign_in.c.person_id == person.c.id)
        .where(
            sign_in.c.digest == digest(secret),
            sign_in.c.kind == "session",
            sign_in.c.expires_at > now,
            person.c.active,
        )
    )
    return connection.execute(query).first()


def close_session(connection: Connection, secret: str) -> None:
    connection.execute(sa.delete(sign_in).where(sign_in.c.digest == digest(secret)))


def make_link(connection: Connection, person_id: int | None, now: datetime, lasts: timedelta) -> str:
    """A one-time sign-in link's secret. Without a person, whoever uses it founds the first account."""
    secret = secrets.token_urlsafe(32)
    connection.execute(
        sa.insert(sign_in).values(
            digest=digest(secret), kind="link", person_id=person_id, csrf="", created_at=now, expires_at=now + lasts
        )
    )
    return secret


def link_is_good(connection: Connection, secret: str, now: datetime) -> AnyRow | None:
    query = sa.select(sign_in).where(
        sign_in.c.digest == digest(secret), sign_in.c.kind == "link", sign_in.c.expires_at > now
    )
    return connection.execute(query).first()


def use_link(connection: Connection, secret: str, now: datetime) -> int | None:
    """Burn a link; the person it signs in, or None for the first account. Raises `Forbidden`."""
    used = connection.execute(
        sa.delete(sign_in)
        .where(sign_in.c.digest == digest(secret), sign_in.c.kind == "link", sign_in.c.expires_at > now)
        .returning(sign_in.c.person_id)
    ).first()
    if used is None:
        raise Forbidden("This link was used already, or is too old.")
    return used.person_id  # type: ignore[no-any-return]


# --- tokens -----------------------------------------------------------------------------------------------------------


def add_token(connection: Connection, name: str, role: Role, now: datetime) -> str:
    """A new token's secret, shown this once. Raises `Conflict` for a name that is taken."""
    secret = secrets.token_urlsafe(32)
    try:
        with connection.begin_nested():
            connection.execute(
                sa.insert(token).values(name=name, role=role.value, digest=digest(secret), created_at=now)
            )
    except IntegrityError as error:
        raise Conflict(f"There is a token named {name} already.") from error
    return secret


def token_holder(connection: Connection, secret: str) -> tuple[str, Role] | None:
    """Name and role behind a token, or None."""
    row = connection.execute(sa.select(token.c.name, token.c.role).where(token.c.digest == digest(secret))).first()
    return None if row is None else (row.name, Role(row.role))


def remove_token(connection: Connection, name: str) -> None:
    """Raises `NotFound`."""
    if connection.execute(sa.delete(token).where(token.c.name == name)).rowcount != 1:
        raise NotFound(f"There is no token named {name}.")


def tokens(connection: Connection) -> Sequence[AnyRow]:
    return connection.execute(sa.select(token.c.name, token.c.role, token.c.created_at).order_by(token.c.name)).all()
