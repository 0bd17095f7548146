"""A pytest plugin: `world`, with several channels that have a way out and a tagger that finds numbers, and `verbs`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.flow import Flow
from router.identity import Identity
from settings import Settings
from storage.database import Database
from tests.identity_world import CARRIES, Naming
from tests.worlds import World, make_world


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    made = make_world(database, settings, carries=CARRIES, mute=frozenset({"hotline"}))
    return replace(made, flow=Flow(database, made.queue, Naming(settings.taxonomy), made.desk))


@pytest.fixture
def verbs(world: World) -> Identity:
    return Identity(world.desk)
