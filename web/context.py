"""What every route may use: made once by the wiring and kept in `app.state.web`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from fastapi import Request, WebSocket

from channels import Health
from router.desk import Desk
from router.flow import Flow
from router.tickets import Verbs
from storage import health
from storage.database import Database
from storage.queue import WorkQueue
from web.hook_calls import Hooks
from web.settings import WebSettings


@dataclass(slots=True)
class Web:
    settings: WebSettings
    database: Database
    queue: WorkQueue
    flow: Flow
    desk: Desk
    verbs: Verbs
    #: signs visitors' tokens; made once and kept in the state folder or given by the environment
    secret: str
    #: channels that have a way out
    outgoing: Callable[[], Sequence[str]] = field(default=lambda: ())
    #: tells delivery in this process that an answer waits
    nudge: Callable[[], None] = field(default=lambda: None)
    #: the channels that providers call
    hooks: Hooks | None = None
    #: how the server of the tagger is, (works, in words), where there is one; asks it, so off the event loop
    nlu: Callable[[], tuple[bool, str]] | None = None

    @property
    def secure(self) -> bool:
        """Cookies are marked Secure when customers reach us by https."""
        return self.desk.public_url.startswith("https://")

    async def all_healths(self) -> list[Health]:
        """How the channels' sources, ways out and accounts are, in whichever process they run. Raises `Unavailable`."""
        now = datetime.now(UTC)
        found = []
        for row in await self.database.read(health.told):
            if now - row.at < health.SILENT:
                found.append(Health(row.name, row.ok, row.detail))
            elif not health.PASSING.search(row.name):
                found.append(Health(row.name, False, "no process that reads it has said anything for a minute"))
        return found


def web_of(connection: Request | WebSocket) -> Web:
    return cast(Web, connection.app.state.web)
