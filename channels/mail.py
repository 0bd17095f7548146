"""Mail in: one task a mailbox, which hands new mails over and marks them only when they are stored.

What was stored is known by (mailbox, uidvalidity, uid) from `MailMemory`; the keyword in the mailbox is a mark for
people and never asked. A push is only a hint: a search follows, and a sweep of all UIDs finds what slipped through.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, RetryCallState, wait_random, wait_random_exponential

from channels import Health, Receive
from channels.imap import CHUNK, Fetched, ImapConnection, ImapError, LoginRefused, Refused, Selected
from channels.mail_apart import parse
from channels.mail_settings import MailboxSettings, MailSettings
from domain import Incoming, Unreadable

#: bytes that one FETCH brings at most, unless a single mail is larger
_BUDGET = 16 * 1024 * 1024
#: how much of a mail over the size limit is read to find its header
_BEGINNING = 64 * 1024
#: times that a mail may break its FETCH before it goes to quarantine
_ATTEMPTS = 3
#: a session of this length was a good one: the next fault is the first again
_STEADY = 60.0
#: UIDs asked of the memory at once
_ASKED = 1000

log = structlog.get_logger(__name__)


class MailMemory(Protocol):
    """Which mails are stored. Implemented by the storage."""

    async def unseen(self, mailbox: str, uidvalidity: int, uids: Sequence[int]) -> list[int]:
        """Those of `uids` that are not stored yet."""
        ...


class MailSource:
    """All mailboxes of the settings. `health` sums up; `mailboxes` has one for each."""

    name = "mail"

    def __init__(
        self,
        settings: MailSettings,
        memory: MailMemory,
        *,
        pause: tuple[float, float] = (1.0, 60.0),
        login_pause: tuple[float, float] = (120.0, 300.0),
    ) -> None:
        """`pause`: first and longest pause after a fault; `login_pause`: bounds of the one after a refused login."""
        self.health = Health(self.name)
        self._readers = [
            _Mailbox(box, settings, memory, self._sum_up, pause, login_pause) for box in settings.mailboxes
        ]
        self.mailboxes = [reader.health for reader in self._readers]
        self._sum_up()

    def _sum_up(self) -> None:
        bad = [health for health in self.mailboxes if not health.ok]
        self.health.ok = not bad
        self.health.detail = "; ".join(f"{h.name}: {h.detail}" for h in bad) or f"{len(self._readers)} mailboxes read"

    async def run(self, receive: Receive) -> None:
        """Read until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reader in self._readers:
                group.create_task(reader.run(receive), name=f"mail {reader.health.name}")

    async def check(self) -> list[Health]:
        """Connect and log in to each mailbox once, and say in one line what works."""
        return list(await asyncio.gather(*(reader.check() for reader in self._readers)))


class _Mailbox:
    """One mailbox: its task, its health, and what is remembered between two connections."""

    def __init__(
        self,
        box: MailboxSettings,
        settings: MailSettings,
        memory: MailMemory,
        on_change: Callable[[], None],
        pause: tuple[float, float],
        login_pause: tuple[float, float],
    ) -> None:
        self.box, self.settings, self.memory = box, settings, memory
        self.health = Health(box.label)
        self._on_change = on_change
        self._pause = wait_random_exponential(multiplier=pause[0], max=pause[1])
        self._login_pause = wait_random(*login_pause)
        #: (uidvalidity, uid) -> how often its FETCH alone failed; once here it is fetched alone
        self._suspects: dict[tuple[int, int], int] = {}

    def report(self, ok: bool, detail: str) -> None:
        if (self.health.ok, self.health.detail) != (ok, detail):
            self.health.ok, self.health.detail = ok, detail
            self._on_change()

    async def run(self, receive: Receive) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            async for attempt in AsyncRetrying(wait=self._wait_before):
                with attempt:
                    started = clock()
                    try:
                        await self._session(receive)
                    except Exception as error:  # whatever it is, the next session starts afresh
                        self.report(False, self._advice(error))
                        log.warning("mailbox.down", mailbox=self.box.name, error=type(error).__name__)
                        if clock() - started < _STEADY:
                            raise
            await asyncio.sleep(1)

    def _wait_before(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return self._login_pause(state) if isinstance(error, LoginRefused) else self._pause(state)

    def _advice(self, error: Exception) -> str:
        if isinstance(error, LoginRefused):
            what = "renew its access token" if self.box.uses_token else "check its user and password"
            return f"login refused: {error}; {what}"
        return str(error) or type(error).__name__

    async def check(self) -> Health:
        health = Health(self.box.label)
        try:
            connection = await self._connect()
            try:
                selected = await connection.select(self.box.folder)
                count = len(await connection.search("ALL"))
            finally:
                await connection.close()
            push = "push" if connection.can("IDLE") else f"no push, looks every {self.settings.poll:g} s"
            health.ok, health.detail = (
                True,
                f"login works, {count} mails, {push}, {self._marking(connection, selected)}",
            )
        except (ImapError, OSError) as error:
            health.detail = self._advice(error)
        return health

    def _marking(self, connection: ImapConnection, selected: Selected) -> str:
        if self.box.move_to:
            can = connection.can("MOVE") and not selected.read_only
            return f"stored mails are moved to {self.box.move_to}" if can else "stored mails cannot be moved"
        return "stored mails get a keyword" if selected.keeps(self.box.keyword) else "keywords are not kept here"

    async def _connect(self) -> ImapConnection:
        box = self.box
        tls = await asyncio.to_thread(box.tls_context) if box.tls else None
        connection = ImapConnection(box.host, box.port, tls=tls, deadline=box.timeout)
        try:
            await connection.open()
            if box.uses_token:
                await connection.login_token(box.user, await asyncio.to_thread(box.access_token))
            else:
                await connection.login(box.user, box.password.get_secret_value() if box.password else "")
            await connection.identify()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _session(self, receive: Receive) -> None:
        connection = await self._connect()
        try:
            selected = await connection.select(self.box.folder)
            await _Session(self, connection, selected, receive).run()
        finally:
            await connection.close()

    # --- mails that break their own FETCH -------------------------------------------------------------------------

    def suspected(self, validity: int, uid: int) -> bool:
        return (validity, uid) in self._suspects

    def attempts(self, validity: int, uid: int) -> int:
        return self._suspects.get((validity, uid), 0)

    def suspect(self, validity: int, uids: Sequence[int]) -> None:
        alone = int(len(uids) == 1)
        for uid in uids:
            self._suspects[validity, uid] = self._suspects.get((validity, uid), 0) + alone

    def clear(self, validity: int, uids: Sequence[int]) -> None:
        for uid in uids:
            self._suspects.pop((validity, uid), None)


class _Session:
    """One selected folder, from its first sweep until the line breaks."""

    def __init__(self, mailbox: _Mailbox, connection: ImapConnection, selected: Selected, receive: Receive) -> None:
        self.mailbox, self.connection, self.receive = mailbox, connection, receive
        self.box, self.settings = mailbox.box, mailbox.settings
        self._enter(selected)

    def _enter(self, selected: Selected) -> None:
        self.validity = selected.uidvalidity
        self.marks = bool(self.box.move_to) or selected.keeps(self.box.keyword)
        self.known: set[int] = set()
        self.highest = 0

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        next_sweep = clock()
        while True:
            sweep = clock() >= next_sweep
            await self.look(sweep=sweep)
            if sweep:
                next_sweep = clock() + self.settings.sweep
                selected = await self.connection.select(self.box.folder)
                if selected.uidvalidity != self.validity:  # the folder was made anew under us
                    self._enter(selected)
                    continue
            self.mailbox.report(True, "reading")
            await self.connection.wait(max(next_sweep - clock(), 0.0), self.settings.poll)

    async def look(self, *, sweep: bool) -> None:
        """Take in what is new: above the highest UID seen, or in a sweep wherever it is."""
        uids = await self.connection.search("ALL" if sweep else f"UID {self.highest + 1}:*")
        await self._take(await self._unseen([uid for uid in uids if uid not in self.known]))
        self.highest = max([self.highest, *uids])
        if sweep:
            self.known.intersection_update(uids)
            await self._mark_again(uids)

    async def _unseen(self, uids: Sequence[int]) -> list[int]:
        unseen: list[int] = []
        for start in range(0, len(uids), _ASKED):
            part = uids[start : start + _ASKED]
            new = await self.mailbox.memory.unseen(self.box.label, self.validity, part)
            self.known.update(set(part).difference(new))
            unseen += new
        return sorted(unseen)

    async def _take(self, uids: Sequence[int]) -> None:
        for start in range(0, len(uids), CHUNK):
            part = uids[start : start + CHUNK]
            sizes = await self.connection.sizes(part)
            for chunk in self._chunks([uid for uid in part if uid in sizes], sizes):
                for found in await self._fetch(chunk, sizes):
                    await self._store(found)

    def _chunks(self, uids: Sequence[int], sizes: dict[int, int]) -> Iterator[list[int]]:
        """Within the byte budget; what is too large or broke a FETCH before stands alone."""
        chunk: list[int] = []
        total = 0
        for uid in uids:
            if sizes[uid] > self.settings.max_size or self.mailbox.suspected(self.validity, uid):
                yield [uid]
                continue
            if chunk and total + sizes[uid] > _BUDGET:
                yield chunk
                chunk, total = [], 0
            chunk.append(uid)
            total += sizes[uid]
        if chunk:
            yield chunk

    async def _fetch(self, chunk: list[int], sizes: dict[int, int]) -> list[list[Incoming]]:
        """The mails of a chunk, read; in several lists when they had to be fetched one by one."""
        alone = chunk[0]
        if len(chunk) == 1 and self.mailbox.attempts(self.validity, alone) >= _ATTEMPTS:
            return [[self._unreadable(alone, "the mail server does not hand it over", await self._beginning(alone))]]
        try:
            if len(chunk) == 1 and sizes[alone] > self.settings.max_size:
                return [[self._too_large(alone, sizes[alone], await self.connection.beginning(alone, _BEGINNING))]]
            mails = await self.connection.bodies(chunk, sum(sizes[uid] for uid in chunk))
        except Refused:
            self.mailbox.suspect(self.validity, chunk)
            if len(chunk) == 1:
                return []  # a later sweep tries again
            return [one for uid in chunk for one in await self._fetch([uid], sizes)]
        except ImapError:
            self.mailbox.suspect(self.validity, chunk)
            raise
        self.mailbox.suspect(self.validity, [mail.uid for mail in mails if mail.content is None])
        return [await asyncio.to_thread(self._read_all, [mail for mail in mails if mail.content is not None])]

    async def _store(self, found: list[Incoming]) -> None:
        """Hand over, and mark afterwards: `receive` comes back from a commit."""
        if not found:
            return
        await self.receive(found)
        uids = [int(item.seen_at[1].partition(":")[2]) for item in found if item.seen_at]
        self.known.update(uids)
        self.mailbox.clear(self.validity, uids)
        await self._mark(uids)

    async def _mark(self, uids: Sequence[int]) -> None:
        if not self.marks or not uids:
            return
        try:
            if self.box.move_to:
                await self.connection.move(uids, self.box.move_to)
            else:
                await self.connection.add_keyword(uids, self.box.keyword)
        except Refused as refused:  # the memory alone decides then
            self.marks = False
            log.warning("mailbox.unmarked", mailbox=self.box.name, error=str(refused).split(":")[0])

    async def _mark_again(self, uids: Sequence[int]) -> None:
        """Stored mails without their mark: a crash came between, or somebody took it away."""
        if self.marks and not self.box.move_to:
            uids = await self.connection.search(f"UNKEYWORD {self.box.keyword}")
        await self._mark([uid for uid in uids if uid in self.known])

    # --- from bytes to values -------------------------------------------------------------------------------------

    def _read_all(self, mails: Sequence[Fetched]) -> list[Incoming]:
        """Runs in a thread."""
        return [self._read(mail) for mail in mails]

    def _read(self, mail: Fetched) -> Incoming:
        raw = mail.content or b""
        if len(raw) > self.settings.max_size:  # the size that the server told was an estimate
            return self._too_large(mail.uid, len(raw), mail)
        received_at = mail.received_at or datetime.now(UTC)
        try:
            return parse(
                raw,
                received_at=received_at,
                recipient=self.box.recipient,
                own_domains=self.settings.domains,
                seen_at=self._seen_at(mail.uid),
            )
        except Exception as error:  # one strange mail costs one mail
            return Unreadable(
                channel="mail",
                account="mail",
                external_id=f"unreadable:{hashlib.sha256(raw).hexdigest()}",
                received_at=received_at,
                reason=f"it cannot be parsed: {type(error).__name__}",
                raw=raw,
                seen_at=self._seen_at(mail.uid),
            )

    def _seen_at(self, uid: int) -> tuple[str, str]:
        return self.box.label, f"{self.validity}:{uid}"

    async def _beginning(self, uid: int) -> Fetched | None:
        """Of a mail that was given up: asked for once more, and never again when even that breaks the line."""
        if self.mailbox.attempts(self.validity, uid) > _ATTEMPTS:
            return None
        try:
            return await self.connection.beginning(uid, _BEGINNING)
        except Refused:
            return None
        except ImapError:
            self.mailbox.suspect(self.validity, [uid])
            raise

    def _too_large(self, uid: int, size: int, mail: Fetched | None) -> Unreadable:
        limit = self.settings.max_size / 1024**2
        return self._unreadable(uid, f"too large: {size / 1024**2:.1f} MB, the limit is {limit:.1f} MB", mail)

    def _unreadable(self, uid: int, reason: str, mail: Fetched | None) -> Unreadable:
        """Only the header is kept: the mail itself stays in the mailbox."""
        content = (mail.content if mail else None) or b""
        header = content.partition(b"\r\n\r\n")[0][:_BEGINNING]
        received_at = (mail.received_at if mail else None) or datetime.now(UTC)
        try:
            known = parse(header + b"\r\n\r\n", received_at=received_at)
            sender, subject = known.sender, known.subject
        except Exception:  # this mail is known to be strange
            sender = subject = ""
        return Unreadable(
            channel="mail",
            account="mail",
            external_id=f"header:{hashlib.sha256(header).hexdigest() if header else self._seen_at(uid)}",
            received_at=received_at,
            reason=reason,
            raw=header,
            sender=sender,
            subject=subject,
            seen_at=self._seen_at(uid),
        )
