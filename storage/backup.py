"""Backup of a running world, and its restore into an empty one.

A backup is a zip: `manifest.json`, the database (`sluice.db` made by SQLite's online backup, or `dump.pgc` made by
pg_dump), and the signing secret from the state folder. Attachments and models trained later lie in the database.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from domain import Conflict, SluiceError
from storage import schema
from storage.database import Database

_FORMAT = 1
#: the file of the state folder that belongs to the world: what signs visitors' tokens
_SECRET = "secret"


class BackupError(SluiceError):
    """The backup or restore did not work."""


def backup(database: Database, state_dir: Path, target: Path) -> int:
    """Write a consistent backup while the world runs; its size in bytes. Raises `BackupError`.

    The file appears under its name only when it is whole, readable by its owner alone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with database.reading() as connection:
        revision = schema.current(connection)
    if revision is None:
        raise BackupError("There is nothing to back up: the database is empty.")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as folder:
        part = Path(folder) / "backup.zip"
        kind = "sqlite" if database.is_sqlite else "postgresql"
        dump = Path(folder) / ("sluice.db" if database.is_sqlite else "dump.pgc")
        if database.is_sqlite:
            _copy(str(database.url.database), str(dump))
        else:
            _run(["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={dump}"], database)
        manifest = {"format": _FORMAT, "kind": kind, "schema": revision, "at": datetime.now(UTC).isoformat()}
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
            archive.writestr("manifest.json", json.dumps(manifest))
            archive.write(dump, dump.name)
            if (file := state_dir / _SECRET).exists():
                archive.write(file, _SECRET)
        part.chmod(0o600)
        part.replace(target)
    return target.stat().st_size


def restore(database: Database, state_dir: Path, source: Path) -> dict[str, str]:
    """Fill an empty world from a backup; the backup's manifest. Raises `BackupError` and `Conflict`."""
    try:
        archive = zipfile.ZipFile(source)
        manifest = json.loads(archive.read("manifest.json"))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise BackupError(f"{source} is no backup of Sluice.") from error
    with archive:
        kind = "sqlite" if database.is_sqlite else "postgresql"
        if manifest.get("format") != _FORMAT or manifest.get("kind") != kind:
            raise BackupError(f"{source} is a backup of {manifest.get('kind')}; this world is {kind}.")
        if manifest["schema"] > schema.head():
            raise BackupError(f"{source} is of a newer Sluice (schema {manifest['schema']}).")
        if _has_content(database):
            raise Conflict("This world is not empty. Restore into a fresh state_dir or database.")
        state_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=state_dir, prefix=".restore-") as folder:
            dump = Path(archive.extract("sluice.db" if database.is_sqlite else "dump.pgc", folder))
            if database.is_sqlite:
                _copy(str(dump), str(database.url.database))
            else:
                _run(
                    [
                        "pg_restore",
                        "--clean",
                        "--if-exists",
                        "--no-owner",
                        "--single-transaction",
                        "--dbname=",
                        f"{dump}",
                    ],
                    database,
                )
        if _SECRET in archive.namelist():
            descriptor = os.open(state_dir / _SECRET, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as output:
                output.write(archive.read(_SECRET))
    return {name: str(value) for name, value in manifest.items()}


def _has_content(database: Database) -> bool:
    with database.reading() as connection:
        if schema.current(connection) is None:
            return False
        found = connection.exec_driver_sql("SELECT 1 FROM message LIMIT 1").first()
        return found is not None or connection.exec_driver_sql("SELECT 1 FROM person LIMIT 1").first() is not None


def _copy(origin: str, target: str) -> None:
    """SQLite's online backup: all pages of one moment, while others write."""
    with sqlite3.connect(origin) as read, sqlite3.connect(target) as write:
        read.backup(write)
    read.close()
    write.close()


def _run(command: list[str], database: Database) -> None:
    """Run a client of PostgreSQL; what it needs goes by the environment, so that no process list shows a password."""
    if shutil.which(command[0]) is None:
        raise BackupError(f"{command[0]} is not installed; it comes with PostgreSQL's client package.")
    url = database.url
    given = {
        "PGHOST": url.host or url.query.get("host", ""),
        "PGPORT": str(url.port or ""),
        "PGUSER": url.username or "",
        "PGPASSWORD": str(url.password or ""),
        "PGDATABASE": url.database or "",
    }
    environment = os.environ | {name: str(value) for name, value in given.items() if value}
    command = [part + (url.database or "") if part == "--dbname=" else part for part in command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BackupError(f"{command[0]} failed: {line}")
