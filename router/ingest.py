"""Messages from files, by the same receive and process path as all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import chain

from domain import Incoming
from router.flow import Flow
from storage import counts, messages
from storage.database import Database

_TOGETHER = 250
_BYTES = 16 * 1024 * 1024
_LOOK_AGAIN = 0.2  # seconds between two looks at what another process is working on


@dataclass(slots=True)
class Summary:
    """read = accepted + duplicates; accepted = ticketed + appended + quarantined + automatic."""

    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    ticketed: int = 0
    appended: int = 0
    quarantined: int = 0
    automatic: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


async def ingest(
    flow: Flow, database: Database, items: Iterable[Incoming], *, progress: Callable[[int], object] = lambda _n: None
) -> Summary:
    """Store and process all of `items`; returns when every accepted message has ended.

    What an earlier, killed run stored and did not process is finished too, and not counted.
    """
    summary = Summary()
    accepted: list[int] = []
    for batch in _batches(items):
        stored = await flow.receive(batch, ring=False)
        new = [each.message_id for each in stored if each.new]
        summary.read += len(batch)
        summary.accepted += len(new)
        summary.duplicates += len(batch) - len(new)
        accepted += new
        await flow.process(new)
        progress(len(batch))
    await _until_ended(flow, database, accepted)
    ended = await database.read(lambda connection: counts.ended(connection, accepted))
    for state in ("ticketed", "appended", "quarantined", "automatic"):
        setattr(summary, state, ended.get(state, 0))
    return summary


def _batches(items: Iterable[Incoming]) -> Iterable[Sequence[Incoming]]:
    """By number and by size, so that a folder of huge mails needs no huge memory."""
    batch: list[Incoming] = []
    size = 0
    for item in chain(items):
        batch.append(item)
        size += len(item.raw)
        if len(batch) >= _TOGETHER or size >= _BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def _until_ended(flow: Flow, database: Database, ids: Sequence[int]) -> None:
    while True:
        await flow.finish()
        open_ids = await database.read(
            lambda connection: messages.overdue(connection, older_than=timedelta(0), limit=1, held=True)
        )
        if not open_ids:
            return
        # A worker of a running server has the rest; if it dies, its claim ends and `finish` takes them.
        ended = await database.read(lambda connection: counts.ended(connection, ids))
        if not ended.get("received"):
            return
        await asyncio.sleep(_LOOK_AGAIN)
