"""What tests of calls say and look at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from storage.tables import Message
from tests.api_world import Api
from tests.reading import rows

DAY_AND_NIGHT = ["mon-sun 00:00-24:00"]
PERSON = "+862112345678"
Door = Callable[..., Awaitable[Api]]


def came_in(api: Api) -> list[Any]:
    return rows(api.world.database, Message, direction="in")


def parts_of(row: Any) -> list[tuple[str, str]]:
    return [(each["kind"], each.get("text", "")) for each in (row.extra or {}).get("parts", [])]


async def finish(api: Api) -> None:
    await api.world.flow.finish()
