"""What the commands share: errors as one line and an exit status, the settings, the database."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import click
from sqlalchemy.exc import DBAPIError

import settings as settings_file
from domain import SettingsError, SluiceError, UsageError
from settings import Settings


class Door(click.Group):
    """Turns our errors into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (SettingsError, UsageError) as error:
            fail(str(error), 2)
        except SluiceError as error:
            fail(str(error), 1)
        except BrokenPipeError:
            # Whoever read our output has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)
        except DBAPIError as error:
            fail(f"The database refused: {str(error.orig).partition(chr(10))[0]}", 1)


def fail(message: str, status: int) -> NoReturn:
    click.echo(f"sluice: {message}", err=True)
    sys.exit(status)


def load(*, serving: bool = False) -> Settings:
    # The heavy parts are imported by the commands that need them: `token add` need not wait for the web server's.
    from app import configure_logging

    settings = settings_file.load()
    # A command says itself what went wrong; the log's word for the same would be a second line.
    log = settings.log if serving else settings.log.model_copy(update={"level": "error"})
    configure_logging(settings.model_copy(update={"log": log}), sys.stderr)
    return settings


@contextlib.contextmanager
def world(settings: Settings) -> Iterator[Any]:
    """The database with its schema up to date."""
    from app import ready_schema
    from storage.database import Database

    database = Database(settings.database_url)
    try:
        ready_schema(settings, database)
        yield database
    finally:
        database.close()
