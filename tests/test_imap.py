"""The strict IMAP connection: deadlines, broken lines, and what the library gets wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from channels.imap import ConnectionLost, ImapConnection, _denial, folder_name, read_fetch, uid_set


@asynccontextmanager
async def connected(host: str, port: int, **options: Any) -> AsyncIterator[ImapConnection]:
    connection = ImapConnection(host, port, tls=None, **options)
    try:
        yield connection
    finally:
        await connection.close()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server on a free port, gone with all its connections at the end."""
    writers: list[asyncio.StreamWriter] = []
    ended = asyncio.Event()
    running = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running
        writers.append(writer)
        running += 1
        try:
            await handler(reader, writer)
        finally:
            running -= 1
            ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        while running:
            ended.clear()
            await ended.wait()


def script(*answers: bytes, close: bool = False) -> Handler:
    """Greets, and answers each line with the next of `answers` (its tag filled in); then silence."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[0])
        for answer in answers[1:]:
            line = await reader.readline()
            writer.write(answer.replace(b"TAG", line.split(b" ")[0]))
        if close:
            await reader.readline()
            writer.close()

    return serve


GREETING = b"* OK ready\r\n"
CAPABILITY = b"* CAPABILITY IMAP4rev1 IDLE\r\nTAG OK done\r\n"
LOGIN = b"TAG OK in\r\n"


async def test_a_bad_greeting_is_said_at_once() -> None:
    async with serving(script(b"* BYE too many connections\r\n")) as port, connected("127.0.0.1", port) as connection:
        with pytest.raises(ConnectionLost, match="too many connections"):
            await connection.open()


async def test_every_call_has_a_deadline() -> None:
    """Also those that the library would wait for for ever."""
    select = b"* OK [UIDVALIDITY 7] x\r\nTAG OK done\r\n"
    calls: list[Callable[[ImapConnection], Awaitable[Any]]] = [
        lambda c: c.add_keyword([1], "$x"),
        lambda c: c.wait(60, 1),
        lambda c: c.search("ALL"),
        lambda c: c.bodies([1], 100),
    ]
    for call in calls:
        async with (
            serving(script(GREETING, CAPABILITY, LOGIN, CAPABILITY, select)) as port,
            connected("127.0.0.1", port, deadline=0.3) as connection,
        ):
            await connection.open()
            await connection.login("u", "p")
            await connection.select("INBOX")
            with pytest.raises(ConnectionLost, match="no answer in time"):
                await call(connection)


async def test_a_broken_line_ends_a_call_at_once() -> None:
    """Not at the deadline, which the test could not wait for."""
    select = b"* OK [UIDVALIDITY 7] x\r\nTAG OK done\r\n"
    async with (
        serving(script(GREETING, CAPABILITY, LOGIN, CAPABILITY, select, close=True)) as port,
        connected("127.0.0.1", port, deadline=600) as connection,
    ):
        await connection.open()
        await connection.login("u", "p")
        await connection.select("INBOX")
        with pytest.raises(ConnectionLost):
            await connection.add_keyword([1], "$x")


async def test_mail_that_is_told_in_passing_is_looked_for() -> None:
    """A server tells of new mail once, with any answer: a wait that began afterwards would sleep over it."""
    select = b"* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\nTAG OK done\r\n"
    search = b"* SEARCH 1\r\nTAG OK done\r\n"
    store = b"* 2 EXISTS\r\nTAG OK done\r\n"
    async with (
        serving(script(GREETING, CAPABILITY, LOGIN, CAPABILITY, select, search, store, search)) as port,
        connected("127.0.0.1", port, deadline=20) as connection,
    ):
        await connection.open()
        await connection.login("u", "p")
        await connection.select("INBOX")
        await connection.search("ALL")
        await connection.add_keyword([1], "$x")
        await connection.wait(600, 600)
        await connection.search("ALL")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.wait(600, 600), 0.1)


async def test_who_we_are_is_said_where_it_is_asked_for() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        while line := await reader.readline():
            seen.append(line)
            answer = b"* CAPABILITY IMAP4rev1 ID\r\n" if b"CAPABILITY" in line else b""
            writer.write(answer + line.split(b" ")[0] + b" OK done\r\n")

    async with serving(serve) as port, connected("127.0.0.1", port) as connection:
        await connection.open()
        await connection.login('u"x', "p")
        await connection.identify()
    assert b'LOGIN "u\\"x" "p"' in seen[1]
    assert any(b'ID ("name" "Sluice")' in line for line in seen)


def test_denial_is_read() -> None:
    assert _denial(base64.b64encode(json.dumps({"status": "401"}).encode())) == "(status 401)"
    assert _denial(b"") == ""
    assert _denial(b"!!") == ""


def test_read_fetch() -> None:
    """In whatever order a server names the items, with what it says unasked in between."""
    lines: list[bytes | bytearray] = [
        b'1 FETCH (UID 11 FLAGS ($x) INTERNALDATE "22-Nov-2026 14:50:06 +0800" RFC822.SIZE 5 BODY[] {5}',
        bytearray(b"* a)("),
        b")",
        b"4 FETCH (FLAGS (\\Seen))",
        b"2 FETCH (BODY[] {3}",
        bytearray(b"abc"),
        b" RFC822.SIZE 900 UID 12)",
        b'3 FETCH (UID 13 BODY[] "quo\\"ted")',
        b'5 FETCH (UID 14 INTERNALDATE "never" BODY[] NIL)',
    ]
    eleven, twelve, thirteen, fourteen = read_fetch(lines)
    assert (eleven.uid, eleven.size, eleven.content) == (11, 5, b"* a)(")
    assert eleven.received_at == datetime(2026, 11, 22, 6, 50, 6, tzinfo=UTC)
    assert (twelve.uid, twelve.size, twelve.content) == (12, 900, b"abc")
    assert thirteen.content == b'quo"ted'
    assert (fourteen.uid, fourteen.content, fourteen.received_at) == (14, None, None)


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("INBOX", '"INBOX"'),
        ("台北", '"&U,BTFw-"'),
        ("a & b", '"a &- b"'),
        ('q"\\', '"q\\"\\\\"'),
        ("~peter/日本語", '"~peter/&ZeVnLIqe-"'),
    ],
)
def test_folder_name(name: str, wire: str) -> None:
    assert folder_name(name) == wire


def test_uid_set() -> None:
    assert uid_set([7, 1, 2, 3]) == "1:3,7"
    assert uid_set([5]) == "5"


def test_the_library_logs_no_mail() -> None:
    assert not logging.getLogger("aioimaplib.aioimaplib").isEnabledFor(logging.INFO)
