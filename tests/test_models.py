"""The stored models: candidates, the one in use, and the way back to each before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import sqlalchemy as sa

from domain import Conflict, NotFound
from storage import models
from storage.database import Database
from storage.tables import Event
from tests.reading import on, rows

_seconds = count()


async def kept(database: Database, version: str) -> str:
    now = datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=next(_seconds))
    state: str = await on(database, models.add, version, version.encode(), {"labels": {"learned": [1]}}, now, "command")
    return state


async def promote(database: Database, version: str) -> None:
    now = datetime.now(UTC)

    def unit(connection: sa.Connection) -> None:
        models.promote(connection, version, now, "command", instead_of=models.in_use(connection))

    await database.write(unit)


async def roll_back(database: Database) -> tuple[str, str | None]:
    found: tuple[str, str | None] = await on(database, models.roll_back, datetime.now(UTC), "command")
    return found


def in_use(database: Database) -> str | None:
    with database.reading() as connection:
        return models.in_use(connection)


def states(database: Database) -> dict[str, str]:
    with database.reading() as connection:
        return {row.version: row.state for row in models.listed(connection)}


async def test_a_trained_model_is_a_candidate_until_it_is_promoted(database: Database) -> None:
    assert in_use(database) is None
    assert await kept(database, "a") == "candidate"
    assert in_use(database) is None
    await promote(database, "a")
    assert in_use(database) == "a"
    with database.reading() as connection:
        row = models.get(connection, "a")
        assert (row.state, row.promoted_by, row.report) == ("promoted", "command", {"labels": {"learned": [1]}})
        assert row.promoted_at > row.made_at
        assert models.content(connection, "a") == b"a"


async def test_rolling_back_goes_through_each_model_before_to_the_shipped_one(database: Database) -> None:
    for version in ("a", "b", "c"):
        await kept(database, version)
        await promote(database, version)
    assert states(database) == {"a": "retired", "b": "retired", "c": "promoted"}
    assert [await roll_back(database) for _ in range(3)] == [("c", "b"), ("b", "a"), ("a", None)]
    assert in_use(database) is None
    with pytest.raises(Conflict, match="shipped"):
        await roll_back(database)


async def test_a_model_that_is_promoted_again_does_not_send_a_rollback_in_circles(database: Database) -> None:
    for version in ("a", "b"):
        await kept(database, version)
    for version in ("a", "b", "a"):
        await promote(database, version)
    assert [await roll_back(database) for _ in range(2)] == [("a", "b"), ("b", None)]


async def test_what_was_rolled_back_is_not_returned_to(database: Database) -> None:
    """After a rollback from b the one before c is a, whatever was in use last."""
    for version in ("a", "b", "c"):
        await kept(database, version)
    await promote(database, "a")
    await promote(database, "b")
    await roll_back(database)
    await promote(database, "c")
    assert await roll_back(database) == ("c", "a")


async def test_each_change_is_in_the_trail(database: Database) -> None:
    await kept(database, "a")
    await promote(database, "a")
    await roll_back(database)
    assert [(row.kind, row.actor, row.data["model"]) for row in rows(database, Event)] == [
        ("model_trained", "command", "a"), ("model_promoted", "command", "a"), ("model_rolled_back", "command", None),
    ]  # fmt: skip


async def test_what_cannot_be_promoted_changes_nothing(database: Database) -> None:
    await kept(database, "a")
    await kept(database, "b")
    with pytest.raises(NotFound):
        await promote(database, "none")
    await promote(database, "a")
    with pytest.raises(Conflict, match="in use already"):
        await promote(database, "a")
    with pytest.raises(Conflict, match="meanwhile"):
        # Compared with the shipped model, while a was promoted.
        await database.write(
            lambda connection: models.promote(connection, "b", datetime.now(UTC), "command", instead_of=None)
        )
    assert states(database) == {"a": "promoted", "b": "candidate"}


async def test_the_database_itself_lets_only_one_model_be_in_use(database: Database) -> None:
    await kept(database, "a")
    await kept(database, "b")
    with pytest.raises(sa.exc.IntegrityError):
        await database.write(
            lambda connection: connection.execute(sa.update(models.model).values(state=models.PROMOTED))
        )


async def test_the_same_training_again_keeps_what_is_known_of_the_model(database: Database) -> None:
    await kept(database, "a")
    assert await kept(database, "a") == "candidate"
    await promote(database, "a")
    assert await kept(database, "a") == "promoted"
    assert states(database) == {"a": "promoted"}
    await roll_back(database)
    assert await kept(database, "a") == "retired"


async def test_old_candidates_and_old_models_are_forgotten_and_the_way_back_stays_whole(database: Database) -> None:
    used = [f"used{number}" for number in range(models.KEPT_BELOW + 3)]
    for version in used:
        await kept(database, version)
        await promote(database, version)
    tried = [f"tried{number}" for number in range(models.KEPT_CANDIDATES + 2)]
    for version in tried:
        await kept(database, version)
    assert set(states(database)) == {*used[-models.KEPT_BELOW - 1 :], *tried[-models.KEPT_CANDIDATES :]}
    back = [(await roll_back(database))[1] for _ in range(models.KEPT_BELOW + 1)]
    assert back == [*reversed(used[-models.KEPT_BELOW - 1 : -1]), None]
