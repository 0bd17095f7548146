"""A pytest plugin: `console`, over SQLite, or over each database where a test is marked with `both`."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from settings import Settings
from storage import schema
from storage.database import Database
from tests.console_world import Console, make_console
from tests.servers import PostgresServer
from tests.worlds import make_world


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database with the schema, to be copied: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("console") / "sluice.db"
    database = Database(f"sqlite:///{path}")
    schema.migrate(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database with the schema, to be emptied before each test."""
    with postgres_server.database() as url:
        database = Database(url)
        schema.migrate(database)
        database.close()
        yield url


@pytest.fixture
def console_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the kind that the test's mark names; SQLite without one."""
    if getattr(request, "param", "sqlite") == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "sluice.db")
        return f"sqlite:///{tmp_path / 'sluice.db'}"
    url: str = request.getfixturevalue("migrated_postgres")
    names = ", ".join(f'"{each.name}"' for each in SQLModel.metadata.sorted_tables)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"truncate {names} restart identity cascade"))
    engine.dispose()
    return url


@pytest.fixture
async def console(console_url: str, settings: Settings) -> AsyncIterator[Console]:
    database = Database(console_url)
    yield await make_console(make_world(database, settings))
    database.close()
