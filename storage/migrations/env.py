"""Alembic's door. Run by `bot.py migrate` only, which hands over the engine."""

from __future__ import annotations

from alembic import context

from storage.tables import metadata

config = context.config

with config.attributes["engine"].begin() as connection:
    # Two processes that start together on an empty database: the second waits and finds nothing to do.
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7305)")
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
