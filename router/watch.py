"""Watches the channels: whether their credentials still work, and whether it is quieter than it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection

from channels import Health, Probe
from domain import Unavailable
from router.flow import pause
from router.silence import silence
from storage import rates
from storage.database import Database

log = structlog.get_logger("watch")

_LOOK_EVERY = 30.0
#: seconds between two questions to a provider, while all is well and while it is not
_PROBE_EVERY, _PROBE_AGAIN = 900.0, 120.0
_PROBE_DEADLINE = 30.0


class Watch:
    """`healths` is what it knows; a row a channel whose credentials were asked, and one for each strange silence."""

    def __init__(
        self,
        database: Database,
        probes: Mapping[str, Probe],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._probes = dict(probes)
        self._now = now
        self._due = dict.fromkeys(probes, datetime.min.replace(tzinfo=UTC))
        self.healths: dict[str, Health] = {}

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(Unavailable):
                await self.look()
            await self.probe()
            await pause(stop, _LOOK_EVERY)

    async def look(self) -> None:
        """Tell of channels on which nothing comes although much would at this hour."""
        hourly, last = await self._database.read(_known)
        now = self._now()
        for channel, counts in hourly.items():
            name = f"{channel} silence"
            found = silence(counts, last.get(channel), now)
            if found is None or not found.unusual:
                if self.healths.pop(name, None) is not None:
                    log.info("silence_over", channel=channel)
                continue
            minutes = round((now - found.since).total_seconds() / 60)
            detail = f"no message for {minutes} minutes, in which {found.expected:.0f} are usual at this hour"
            if name not in self.healths:
                log.warning("silence", channel=channel, minutes=minutes, expected=round(found.expected))
            self.healths[name] = Health(name, ok=False, detail=detail)

    async def probe(self) -> None:
        """Ask the providers whose turn it is."""
        await asyncio.gather(*(self._probe(channel) for channel, due in self._due.items() if due <= self._now()))

    async def _probe(self, channel: str) -> None:
        name = f"{channel} account"
        try:
            async with asyncio.timeout(_PROBE_DEADLINE):
                said = await self._probes[channel].probe()
        except Exception as error:  # a probe promises not to raise, and a provider is not to blame for our fault
            said = Health(name, ok=False, detail=f"the question failed: {type(error).__name__}")
        known = self.healths.get(name)
        if not said.ok and (known is None or known.ok):
            log.error("credentials", channel=channel, detail=said.detail)
        self.healths[name] = Health(name, ok=said.ok, detail=said.detail)
        wait = _PROBE_EVERY if said.ok else _PROBE_AGAIN
        self._due[channel] = datetime.fromtimestamp(self._now().timestamp() + wait, tz=UTC)


def _known(connection: Connection) -> tuple[dict[str, dict[int, int]], dict[str, datetime]]:
    hourly = rates.arrivals(connection)
    return hourly, rates.last_in(connection, hourly)
