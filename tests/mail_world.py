"""What the tests of mail in share: a stand-in for the storage, mails, mailboxes, and another mail program."""

from __future__ import annotations

import asyncio
import imaplib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from channels.mail import MailSource
from channels.mail_settings import MailboxSettings, MailSettings
from domain import Incoming, Stored
from tests.servers import Dovecot

QUICK = {"pause": (0.02, 0.2), "login_pause": (0.05, 0.1)}


class World:
    """Stands in for the storage: what `receive` committed, and a queue that tells of it."""

    def __init__(self) -> None:
        self.items: list[Incoming] = []
        self.places: set[tuple[str, str]] = set()
        self.arrived: asyncio.Queue[Incoming] = asyncio.Queue()
        self.batches: list[int] = []
        self.before_commit: Callable[[], Awaitable[None]] | None = None
        self.after_commit: Callable[[], Awaitable[None]] | None = None

    async def unseen(self, mailbox: str, uidvalidity: int, uids: Sequence[int]) -> list[int]:
        return [uid for uid in uids if (mailbox, f"{uidvalidity}:{uid}") not in self.places]

    async def receive(self, batch: Sequence[Incoming]) -> list[Stored]:
        if self.before_commit:
            await self.before_commit()
        self.batches.append(len(batch))
        for item in batch:
            assert item.seen_at
            assert item.seen_at not in self.places, "handed over twice after it was stored"
            self.places.add(item.seen_at)
            self.items.append(item)
            self.arrived.put_nowait(item)
        if self.after_commit:
            await self.after_commit()
        return [Stored(len(self.items), new=True) for _ in batch]

    async def next(self) -> Incoming:
        async with asyncio.timeout(30):
            return await self.arrived.get()

    async def take(self, count: int) -> list[Incoming]:
        return [await self.next() for _ in range(count)]


def mail(number: int | str, body: str = "hello", *, size: int = 0) -> bytes:
    head = f"From: Ada <ada@customer.test>\r\nSubject: mail {number}\r\nMessage-ID: <{number}@customer.test>\r\n"
    return f"{head}\r\n{body}\r\n".encode() + b"x" * 76 * (size // 78) + b"\r\n" * bool(size)


def box(dovecot: Dovecot, user: str, **options: Any) -> MailboxSettings:
    options = {"password": dovecot.password, "tls": False, "timeout": 20.0, **options}
    return MailboxSettings(host=dovecot.host, port=options.pop("port", dovecot.port), user=user, **options)


def settings_for(*boxes: MailboxSettings, **options: Any) -> MailSettings:
    return MailSettings(enabled=True, mailboxes=list(boxes), **options)


@asynccontextmanager
async def running(world: World, settings: MailSettings) -> AsyncIterator[MailSource]:
    source = MailSource(settings, world, **QUICK)
    task = asyncio.create_task(source.run(world.receive))
    try:
        yield source
        assert not task.done(), "the source ended by itself"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(check: Callable[[], Any]) -> None:
    """Wait for the state of another process, which sends no signal."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(check):
            await asyncio.sleep(0.02)


@contextmanager
def client(
    dovecot: Dovecot, user: str, folder: str | None = "INBOX", *, readonly: bool = False
) -> Iterator[imaplib.IMAP4]:
    """Somebody else's mail program."""
    with imaplib.IMAP4(dovecot.host, dovecot.port) as other:
        other.login(user, dovecot.password)
        if folder:
            other.select(folder, readonly)
        yield other


def flags(dovecot: Dovecot, user: str, folder: str = "INBOX") -> list[str]:
    with client(dovecot, user, folder, readonly=True) as other:
        found: list[Any] = other.uid("FETCH", "1:*", "(FLAGS)")[1]
    return [line.decode() for line in found if line]


def marked(dovecot: Dovecot, user: str, count: int) -> bool:
    return sum("$SluiceStored" in line for line in flags(dovecot, user)) == count


def subjects(items: Sequence[Incoming]) -> list[str]:
    return [item.subject for item in items]
