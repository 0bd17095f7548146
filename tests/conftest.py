"""Fixtures of all tests. The servers are real and ours alone: see `tests.servers`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from settings import Settings
from settings import load as load_settings
from storage import schema
from storage.database import Database

pytest_plugins = ["tests.servers", "tests.twilio_server", "tests.contract"]

# A developer's own settings must not change what a test sees.
for _name in [name for name in os.environ if name.startswith("SLUICE_")]:
    del os.environ[_name]


# What is fuzzed by and by: `pytest --hypothesis-profile long --timeout 0 TEST` (some five minutes a test).
hypothesis_settings.register_profile("long", max_examples=20_000)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind: tests that use it run on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sluice.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of each kind with the schema."""
    made = Database(database_url)
    schema.migrate(made)
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The shipped settings in a fresh state folder, routing alone from confidence .5 up."""
    return load_settings({"SLUICE_STATE_DIR": str(tmp_path / "state"), "SLUICE_ROUTING__THRESHOLD": "0.5"})
