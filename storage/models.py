"""Models trained from people's labels: candidates, the one in use, and the way back.

What was in use before forms a chain (`predecessor`), whose end is the shipped file. A promotion puts a model on top of
it, a rollback takes it off. A model stands in the chain at most once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import Conflict, NotFound
from storage import events
from storage.tables import Model, table
from storage.types import AnyRow, literal

model = table(Model)

CANDIDATE, PROMOTED, RETIRED = "candidate", "promoted", "retired"

#: each model is some 13 MB in the database and in every backup
KEPT_CANDIDATES = 5
KEPT_BELOW = 5

_IN_USE = model.c.state == literal(PROMOTED)
_FIGURES = [column for column in model.c if column is not model.c.content]


def in_use(connection: Connection) -> str | None:
    """The promoted model's version; None: the shipped file is in use. Workers ask this every few seconds."""
    return connection.scalar(sa.select(model.c.version).where(_IN_USE))


def listed(connection: Connection) -> Sequence[AnyRow]:
    """All models without their content, the newest first."""
    return connection.execute(sa.select(*_FIGURES).order_by(model.c.made_at.desc(), model.c.version)).all()


def get(connection: Connection, version: str) -> AnyRow:
    """A model without its content. Raises `NotFound`."""
    row = connection.execute(sa.select(*_FIGURES).where(model.c.version == version)).first()
    if row is None:
        raise NotFound(f"There is no model {version!r}. The command `models` lists them.")
    return row


def content(connection: Connection, version: str) -> bytes:
    """A model's file. Raises `NotFound`."""
    found: bytes | None = connection.scalar(sa.select(model.c.content).where(model.c.version == version))
    if found is None:
        raise NotFound(f"There is no model {version!r}. The command `models` lists them.")
    return found


def add(
    connection: Connection, version: str, content: bytes, report: Mapping[str, Any], now: datetime, actor: str
) -> str:
    """Keep a trained model as a candidate; its state afterwards.

    The same data, code and settings give the same version: one that was in use already keeps its row. Candidates and
    former models beyond the newest few are forgotten.
    """
    known: str | None = connection.scalar(sa.select(model.c.state).where(model.c.version == version))
    if known in (PROMOTED, RETIRED):
        return known
    connection.execute(sa.delete(model).where(model.c.version == version))
    connection.execute(
        sa.insert(model).values(
            version=version, state=CANDIDATE, made_at=now, promoted_by="", report=dict(report), content=content
        )
    )
    events.append(connection, [events.row("model_trained", actor, now, model=version)])
    _forget(connection)
    return CANDIDATE


def promote(
    connection: Connection,
    version: str,
    now: datetime,
    actor: str,
    *,
    instead_of: str | None,
    against: Sequence[str] = (),
) -> None:
    """Take a model into use. `instead_of`: what it was compared with. `against`: reasons that were overruled.

    Raises `NotFound`, and `Conflict` when it is in use already or another one was promoted meanwhile.
    """
    row = get(connection, version)
    before = in_use(connection)
    if row.state == PROMOTED:
        raise Conflict(f"The model {version} is in use already.")
    if before != instead_of:
        raise Conflict("Another model was promoted meanwhile. Try again.")
    _unlink(connection, row)
    _set(connection, before, state=RETIRED)
    _set(connection, version, state=PROMOTED, promoted_at=now, promoted_by=actor, predecessor=before)
    events.append(
        connection, [events.row("model_promoted", actor, now, model=version, before=before, against=list(against))]
    )


def roll_back(connection: Connection, now: datetime, actor: str) -> tuple[str, str | None]:
    """Return to what was in use before: (the model taken out of use, the one in use now; None: the shipped file).

    Raises `Conflict` when the shipped file is in use, which nothing was before.
    """
    current = in_use(connection)
    if current is None:
        raise Conflict("The shipped model is in use: there is none before it.")
    before: str | None = get(connection, current).predecessor
    _set(connection, current, state=RETIRED)
    _set(connection, before, state=PROMOTED)
    events.append(connection, [events.row("model_rolled_back", actor, now, model=before, before=current)])
    return current, before


def _set(connection: Connection, version: str | None, **values: Any) -> None:
    if version is not None:
        connection.execute(sa.update(model).where(model.c.version == version).values(**values))


def _unlink(connection: Connection, row: AnyRow) -> None:
    """Take a model out of the chain: what stood on it now stands on what it stood on."""
    connection.execute(sa.update(model).where(model.c.predecessor == row.version).values(predecessor=row.predecessor))


def _forget(connection: Connection) -> None:
    rows = {row.version: row for row in listed(connection)}
    chain = []
    version = in_use(connection)
    while version is not None and version in rows and version not in chain:
        chain.append(version)
        version = rows[version].predecessor
    candidates = [row.version for row in rows.values() if row.state == CANDIDATE]
    kept = {*chain[: KEPT_BELOW + 1], *candidates[:KEPT_CANDIDATES]}
    for each in rows.values():
        if each.version not in kept:
            # Read again: it may have been moved by the one before.
            _unlink(connection, get(connection, each.version))
            connection.execute(sa.delete(model).where(model.c.version == each.version))
