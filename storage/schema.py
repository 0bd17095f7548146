"""The schema's life: migrations by Alembic, and what `run` needs to know of them."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from domain import SettingsError
from storage.database import Database

_FOLDER = Path(__file__).parent / "migrations"


def head() -> str:
    """The newest migration's number: files are named `NNNN_what.py`, and their revision is that number."""
    return max(file.name[:4] for file in (_FOLDER / "versions").glob("[0-9]*.py"))


def current(connection: Connection) -> str | None:
    """The schema's revision in the database; None for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return str(found) if found is not None else None


def is_current(database: Database) -> bool:
    with database.reading() as connection:
        return current(connection) == head()


def migrate(database: Database) -> tuple[str | None, str]:
    """Bring the schema up to date; the revision before and after. Raises `SettingsError` for a newer schema."""
    with database.reading() as connection:
        before = current(connection)
    newest = head()
    if before == newest:
        return before, newest
    if before is not None and before > newest:
        raise SettingsError(f"The database is of a newer Sluice (schema {before}, this one knows {newest}).")
    # Alembic costs 0.2 s and 20 MB, and a start with the schema present needs none of it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["engine"] = database.migration_engine
    command.upgrade(config, "head")
    return before, newest
