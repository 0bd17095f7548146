"""A provider that answers as told: an HTTP server on a loopback port that counts what it was asked to send.

It knows nothing of any channel. What each provider really says stands in the channel's samples; here it is said at the
wrong time, cut off, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.server_base import HOST, free_port

_MOST = 10_000_000
#: what another address says: always the same, or made of the sendings that were taken
Beside = Mapping[str, bytes | Callable[[list[bytes]], bytes]]


@dataclass(frozen=True, slots=True)
class Said:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: nothing is said: the request was taken, and then the line stays open in silence
    silent: bool = False
    #: nothing is said: the request was taken, and then the line is cut
    cut: bool = False


HTML = Said(200, {"Content-Type": "text/html"}, b"<html><body>Sign in to the hotel's network</body></html>")


@dataclass
class ProviderServer:
    """`script` is said first, one for each sending; afterwards `taken`."""

    taken: Said
    #: by the start of the path: what is no sending
    beside: Beside = field(default_factory=dict)
    script: deque[Said] = field(default_factory=deque)
    #: bodies of the sendings that the provider took, whether or not it could say so
    sendings: list[bytes] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _lines: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        self.port = self.port or free_port()
        self._server = await asyncio.start_server(self._talk, HOST, self.port, limit=_MOST)

    async def stop(self) -> None:
        """From now on connections are refused."""
        if self._server is not None:
            self._server.close()
            for line in list(self._lines):
                line.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                said = await self._answer(head, reader)
                if said.silent:
                    await reader.read()  # until the other side gives up
                    break
                if said.cut:
                    break
                lines = [f"HTTP/1.1 {said.status} said", f"Content-Length: {len(said.body)}"]
                lines += [f"{name}: {value}" for name, value in said.headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + said.body)
                await writer.drain()
        self._lines.discard(writer)
        writer.transport.abort()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader) -> Said:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split(" ")[1]
        for start, answer in self.beside.items():
            if path.startswith(start):
                given = answer if isinstance(answer, bytes) else answer(self.sendings)
                return Said(200, {"Content-Type": "application/json"}, given)
        said = self.script.popleft() if self.script else self.taken
        # A provider that says no has not taken it; one whose answer is lost or unreadable has.
        if said is self.taken or said.silent or said.cut or said is HTML:
            self.sendings.append(body)
        return said


@asynccontextmanager
async def provider(taken: Said, beside: Beside | None = None) -> AsyncIterator[ProviderServer]:
    server = ProviderServer(taken, beside or {})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
