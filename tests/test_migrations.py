"""The schema's life: migrations make the tables that the code speaks of, and nothing is migrated twice or back."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from domain import SettingsError
from storage import schema
from storage.database import Database
from storage.tables import metadata

ROOT = Path(__file__).parents[1]
VERSIONS = ROOT / "storage" / "migrations" / "versions"


def ours(_object: object, name: str | None, kind: str, _reflected: bool, _to: object) -> bool:
    """The search index has no form that both databases share: `storage.search` makes it."""
    return not (
        kind in ("table", "index") and name is not None and name.removeprefix("ix_").startswith("message_search")
    )


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True, "include_object": ours}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def test_the_migrated_schema_is_that_of_the_tables(database: Database) -> None:
    with database.reading() as connection:
        assert differences(connection) == []


def test_a_missing_column_would_be_seen(database: Database) -> None:
    """The test above sees something."""
    with database.migration_engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE ticket DROP COLUMN snippet"))
        assert [each[0] for each in differences(connection)] == ["add_column"]  # type: ignore[index]


def test_partial_indexes_are_made_as_declared(database: Database) -> None:
    """Alembic does not compare their conditions."""
    kind = "sqlite" if database.is_sqlite else "postgresql"
    with database.reading() as connection:
        found = {
            index["name"]: str(index["dialect_options"][f"{kind}_where"])
            for name in metadata.tables
            for index in sa.inspect(connection).get_indexes(name)
            if index.get("dialect_options", {}).get(f"{kind}_where") is not None
        }
    declared = {
        index.name: str(index.dialect_options[kind]["where"])
        for each in metadata.tables.values()
        for index in each.indexes
        if index.dialect_options[kind]["where"] is not None
    }
    assert found.keys() == declared.keys()
    if database.is_sqlite:
        assert found == declared


def test_every_migration_is_named_by_its_number_and_follows_the_one_before() -> None:
    files = sorted(file for file in VERSIONS.glob("*.py"))
    assert [file.name[:4] for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    before = None
    for file in files:
        assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", file.name)
        text = file.read_text()
        assert f'revision = "{file.name[:4]}"' in text
        assert f"down_revision = {before!r}".replace("'", '"') in text
        before = file.name[:4]
    assert schema.head() == before


def test_a_second_migration_changes_nothing(database_url: str) -> None:
    database = Database(database_url)
    with database.reading() as connection:
        assert schema.current(connection) is None
    assert not schema.is_current(database)
    assert schema.migrate(database) == (None, schema.head())
    assert schema.migrate(database) == (schema.head(), schema.head())
    assert schema.is_current(database)
    database.close()


def test_a_newer_schema_is_refused(database: Database) -> None:
    with database.migration_engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match="newer Sluice"):
        schema.migrate(database)
    assert not schema.is_current(database)


def test_two_processes_that_migrate_at_once_both_end_well(database_url: str) -> None:
    code = "import sys; from storage import schema; from storage.database import Database as D; d = D(sys.argv[1]);"
    code += "print('ready', flush=True); sys.stdin.readline(); schema.migrate(d); d.close()"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, database_url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    database = Database(database_url)
    assert schema.is_current(database)
    database.close()
