"""A strict IMAP connection over aioimaplib, which hangs, recurses or drops text when it is used freely.

One connection belongs to one task. Every call has a deadline and ends at once when the line breaks; after any
`ImapError` but `Refused` the connection is dead. FETCH asks for at most `CHUNK` mails and only for items that the
library hands over unharmed, `\\Seen` is neither read nor set, and nothing of a mail's text gets into its log.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import re
import ssl
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aioimaplib

from domain import SluiceError

#: more mails in one FETCH end in a RecursionError inside the library
CHUNK = 200
#: servers may hang up after 30 minutes in IDLE, and routers long before
IDLE_SECONDS = 9 * 60.0
#: slowest line that still gets a mail through before the deadline, in bytes a second
_SLOWEST = 50_000
_ITEMS = "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"

for _name in ("aioimaplib", "aioimaplib.aioimaplib"):  # below WARNING it logs whole mails
    logging.getLogger(_name).setLevel(logging.WARNING)


class ImapError(SluiceError):
    """The mail server cannot be used."""


class ConnectionLost(ImapError):
    """The line to the mail server broke, or it does not answer."""


class Refused(ImapError):
    """The mail server said no. The connection is still good."""


class LoginRefused(ImapError):
    """The mail server does not take the password or the token."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What the server says of a folder."""

    uidvalidity: int
    #: what may be stored with mails for good; None = the server does not say
    flags: frozenset[str] | None
    read_only: bool = False

    def keeps(self, keyword: str) -> bool:
        """Whether a keyword of ours can be stored with mails."""
        return not self.read_only and (self.flags is None or "\\*" in self.flags or keyword in self.flags)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A mail, or its beginning, as the server handed it over."""

    uid: int
    size: int
    received_at: datetime | None
    #: None: the server had nothing to give
    content: bytes | None = field(repr=False)


class ImapConnection:
    """A line to one server, for one task."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None, deadline: float = 30.0) -> None:
        self._deadline = deadline
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._denial = ""
        #: the server told of new mail since the last search began
        self._news = False
        self._client = aioimaplib.IMAP4(host, port, timeout=deadline, conn_lost_cb=self._on_lost, ssl_context=tls)
        protocol = self._client.protocol
        self._welcome, self._continue, self._untagged = (
            protocol.welcome,
            protocol._continuation,
            protocol._untagged_response,
        )
        protocol.welcome = self._on_welcome
        protocol._continuation = self._on_continuation
        protocol._untagged_response = self._on_untagged

    # --- what the library leaves out ------------------------------------------------------------------------------

    def _on_lost(self, error: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result("the connection broke" if error is None else f"the connection broke: {error}")

    async def _on_welcome(self, line: bytes) -> None:
        """The library drops the error of a bad greeting and waits on."""
        try:
            await self._welcome(line)
        except (aioimaplib.Error, OSError) as error:
            if not self._lost.done():
                self._lost.set_result(f"the server greets with {error}")

    def _on_continuation(self, line: bytes) -> None:
        """An expired token is told as a challenge that wants an empty answer; the library never gives one."""
        pending = self._client.protocol.pending_sync_command
        if pending is not None and pending.name == "AUTHENTICATE":
            self._denial = _denial(line[1:].strip())
            self._client.protocol.transport.write(b"\r\n")
        else:
            self._continue(line)

    def _on_untagged(self, line: bytes) -> Any:
        """New mail is told once, with whatever command comes next; IDLE would then have nothing to say."""
        self._news = self._news or _EXISTS.match(line) is not None
        return self._untagged(line)

    async def _call(self, what: str, call: Coroutine[Any, Any, Any], *, deadline: float | None = None) -> Any:
        task = asyncio.ensure_future(call)
        try:
            done, _ = await asyncio.wait(
                {task, self._lost}, timeout=deadline or self._deadline, return_when=asyncio.FIRST_COMPLETED
            )
            if task in done:
                return task.result()
        except (TimeoutError, aioimaplib.CommandTimeout):
            done = set()
        except (OSError, aioimaplib.AioImapException) as error:
            self.abort()
            raise ConnectionLost(f"{what}: {error}") from error
        except BaseException:
            self.abort()
            raise
        finally:
            task.cancel()
        self.abort()
        raise ConnectionLost(f"{what}: {self._lost.result() if done else 'no answer in time'}")

    async def _ask(self, what: str, call: Coroutine[Any, Any, Any], *, deadline: float | None = None) -> list[Any]:
        """The answer's lines but the last. Raises Refused."""
        answer = await self._call(what, call, deadline=deadline)
        if answer.result != "OK":
            raise Refused(f"{what}: {answer.result} {_text(answer.lines)}")
        lines: list[Any] = answer.lines[:-1]
        return lines

    def _command(self, name: str, *args: str) -> Coroutine[Any, Any, Any]:
        protocol = self._client.protocol
        coroutine: Coroutine[Any, Any, Any] = protocol.execute(aioimaplib.Command(name, protocol.new_tag(), *args))
        return coroutine

    # --- verbs ----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        await self._call("connect", self._client.wait_hello_from_server())

    async def login(self, user: str, password: str) -> None:
        await self._login(self._client.protocol.login(quote(user), password))

    async def login_token(self, user: str, token: str) -> None:
        """XOAUTH2."""
        await self._login(self._client.protocol.xoauth2(user, token))

    async def _login(self, call: Coroutine[Any, Any, Any]) -> None:
        answer = await self._call("login", call)
        if answer.result != "OK":
            raise LoginRefused(" ".join(part for part in (_text(answer.lines), self._denial) if part))
        await self._call("capability", self._client.protocol.capability())  # most servers have more after the login

    async def identify(self) -> None:
        """Say who we are; 163.com and 126.com refuse SELECT before that."""
        if self.can("ID"):
            with contextlib.suppress(Refused):
                await self._ask("id", self._command("ID", '("name" "Sluice")'))

    def can(self, capability: str) -> bool:
        return bool(self._client.has_capability(capability))

    async def select(self, folder: str) -> Selected:
        answer = await self._call("select", self._client.protocol.select(folder_name(folder)))
        text = b"\n".join(line for line in answer.lines if isinstance(line, bytes))
        validity = re.search(rb"\[UIDVALIDITY (\d+)\]", text)
        if answer.result != "OK" or validity is None:
            raise Refused(f"folder {folder!r}: {answer.result} {_text(answer.lines)}")
        flags = re.search(rb"\[PERMANENTFLAGS \(([^)]*)\)\]", text)
        return Selected(
            int(validity[1]),
            frozenset(flags[1].decode(errors="replace").split()) if flags else None,
            read_only=b"[READ-ONLY]" in text,
        )

    async def search(self, criteria: str) -> list[int]:
        """UIDs. No CHARSET is named: Exchange, Yahoo and Aliyun refuse it."""
        self._news = False
        lines = await self._ask("search", self._client.protocol.search(criteria, by_uid=True, charset=None))
        return sorted({int(word) for line in lines for word in line.split() if word.isdigit()})

    async def sizes(self, uids: Sequence[int]) -> dict[int, int]:
        return {mail.uid: mail.size for mail in await self._fetch(uids, "(UID RFC822.SIZE)")}

    async def bodies(self, uids: Sequence[int], total: int) -> list[Fetched]:
        """Whole mails, `total` bytes together as the server counts them; those that are gone are left out."""
        return await self._fetch(uids, _ITEMS, deadline=self._deadline + total / _SLOWEST)

    async def beginning(self, uid: int, length: int) -> Fetched | None:
        found = await self._fetch([uid], _ITEMS.replace("[]", f"[]<0.{length}>"))
        return found[0] if found else None

    async def _fetch(self, uids: Sequence[int], items: str, deadline: float | None = None) -> list[Fetched]:
        if len(uids) > CHUNK:
            raise ValueError(f"{len(uids)} mails in one FETCH")
        if not uids:
            return []
        call = self._client.uid("FETCH", uid_set(uids), items)
        wanted = set(uids)  # others come unasked, when somebody else changes their flags
        return [mail for mail in read_fetch(await self._ask("fetch", call, deadline=deadline)) if mail.uid in wanted]

    async def add_keyword(self, uids: Sequence[int], keyword: str) -> None:
        for part in _parts(uids):
            await self._ask("store", self._client.uid("STORE", uid_set(part), "+FLAGS.SILENT", f"({keyword})"))

    async def move(self, uids: Sequence[int], folder: str) -> None:
        if not self.can("MOVE"):
            raise Refused("the server has no MOVE")
        for part in _parts(uids):
            try:
                await self._ask("move", self._client.uid("MOVE", uid_set(part), folder_name(folder)))
            except Refused as refused:
                if "[TRYCREATE]" not in str(refused):
                    raise
                await self._ask("create", self._client.create(folder_name(folder)))
                await self._ask("move", self._client.uid("MOVE", uid_set(part), folder_name(folder)))

    async def wait(self, seconds: float, poll: float) -> None:
        """Until the server says something, or the time is up. What it says is only a hint to look."""
        if self._news:
            return
        if not self.can("IDLE"):
            await asyncio.wait({self._lost}, timeout=min(seconds, poll))
            await self._ask("noop", self._client.noop())
            return
        ended = await self._call("idle", self._client.idle_start(timeout=IDLE_SECONDS * 2))
        push = asyncio.ensure_future(self._client.protocol.idle_queue.get())
        try:
            await asyncio.wait(
                {push, ended, self._lost}, timeout=min(seconds, IDLE_SECONDS), return_when=asyncio.FIRST_COMPLETED
            )
        except BaseException:
            self.abort()
            raise
        finally:
            push.cancel()
        if not self._lost.done() and not ended.done():
            self._client.idle_done()
        await self._call("idle", _result(ended))

    async def close(self) -> None:
        """Take leave; never raises."""
        if not self._lost.done():
            with contextlib.suppress(ImapError):
                await self._call("logout", self._client.protocol.logout(), deadline=2.0)
        self.abort()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    def abort(self) -> None:
        """Drop the line and everything that waits on it."""
        if not self._lost.done():
            self._lost.set_result("closed")
        if self._client._idle_waiter is not None:
            self._client._idle_waiter.cancel()
        for task in (*self._client.tasks, *self._client.protocol.tasks, self._client._client_task):
            task.cancel()
        if self._client.protocol.transport is not None:
            self._client.protocol.transport.abort()


async def _result(future: asyncio.Future[Any]) -> Any:
    return await future


def _denial(challenge: bytes) -> str:
    """The reason inside an XOAUTH2 challenge: base64 of JSON with a status."""
    try:
        return f"(status {json.loads(base64.b64decode(challenge))['status']})"
    except (ValueError, KeyError, TypeError):
        return ""


def _text(lines: Sequence[Any]) -> str:
    return bytes(lines[-1]).decode(errors="replace") if lines else ""


_EXISTS = re.compile(rb"\* \d+ EXISTS")
_HEAD = re.compile(rb"\d+ FETCH \(")
_UID = re.compile(rb"\bUID (\d+)")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d+)")
_DATE = re.compile(rb'\bINTERNALDATE "([^"]+)"')
_QUOTED = re.compile(rb'\bBODY\[\](?:<0>)? "((?:[^"\\]|\\.)*)"')


def read_fetch(lines: Iterable[bytes | bytearray]) -> Iterator[Fetched]:
    """The mails in an answer to FETCH. The library gives literals as bytearray, everything else as bytes."""
    text, literal = b"", None
    for line in lines:
        if isinstance(line, bytearray):
            literal = bytes(line)
            continue
        if _HEAD.match(line):
            yield from _mail(text, literal)
            text, literal = b"", None
        text += line
    yield from _mail(text, literal)


def _mail(text: bytes, literal: bytes | None) -> Iterator[Fetched]:
    uid, size, date, short = (pattern.search(text) for pattern in (_UID, _SIZE, _DATE, _QUOTED))
    if uid is None:
        return
    if literal is None and short is not None:
        literal = re.sub(rb"\\(.)", rb"\1", short[1])
    received_at = None
    if date is not None:
        with contextlib.suppress(ValueError):
            received_at = datetime.strptime(date[1].decode(errors="replace").strip(), "%d-%b-%Y %H:%M:%S %z")
    yield Fetched(
        uid=int(uid[1]),
        size=int(size[1]) if size else len(literal or b""),
        received_at=received_at and received_at.astimezone(UTC),
        content=literal,
    )


def uid_set(uids: Sequence[int]) -> str:
    """1,2,3,7 -> `1:3,7`."""
    ranges: list[list[int]] = []
    for uid in sorted(uids):
        if ranges and uid == ranges[-1][1] + 1:
            ranges[-1][1] = uid
        else:
            ranges.append([uid, uid])
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in ranges)


def _parts(uids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(uids), CHUNK):
        yield uids[start : start + CHUNK]


def quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def folder_name(name: str) -> str:
    """As it goes over the line: modified UTF-7 (RFC 3501, 5.1.3), quoted."""

    def encoded(match: re.Match[str]) -> str:
        if match[0] == "&":
            return "&-"
        letters = base64.b64encode(match[0].encode("utf-16-be")).decode().rstrip("=")
        return f"&{letters.replace('/', ',')}-"

    return quote(re.sub(r"&|[^\x20-\x7e]+", encoded, name))
