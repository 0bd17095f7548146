"""The application that is called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from settings import Settings
from storage.database import Database
from tests.api_world import Api, serving
from tests.phone_reading import Door
from tests.samples.phone import make
from tests.worlds import make_world


@pytest.fixture
async def door(database: Database, settings: Settings) -> AsyncIterator[Door]:
    """An API with the phone as these settings make it."""
    async with AsyncExitStack() as stack:

        async def opened(**phone: Any) -> Api:
            hook = make(**phone).hook
            assert hook is not None
            world = make_world(database, settings, mute={"phone"})
            return await stack.enter_async_context(serving(world, hooks=[hook]))

        yield opened
