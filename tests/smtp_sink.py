"""An SMTP server that keeps what arrives, and that can act at an exact moment of the conversation."""

from __future__ import annotations

import asyncio
import email
import email.policy
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from enum import StrEnum
from types import TracebackType
from typing import Self


class Stage(StrEnum):
    DATA = "data"  # the client said DATA and waits for 354
    CONTENT = "content"  # the first line of the mail came
    DOT = "dot"  # the whole mail came; the client waits for 250
    SAID = "said"  # 250 is on its way


@dataclass(frozen=True, slots=True)
class _Trap:
    stage: Stage
    action: Callable[[], None]
    wanted: Callable[[EmailMessage | None], bool]
    sprung: threading.Event


class SmtpSink:
    """`arrived` is the mailbox: like any server, it has a mail as soon as it has the dot behind it."""

    def __init__(self) -> None:
        self.port = 0
        self.arrived: list[EmailMessage] = []
        self._trap: _Trap | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="smtp sink", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def trap(
        self, stage: Stage, action: Callable[[], None], wanted: Callable[[EmailMessage | None], bool] = lambda _: True
    ) -> threading.Event:
        """Do `action` once, when a mail gets to that stage, before anything further is read or written."""
        trap = _Trap(stage, action, wanted, threading.Event())
        self._trap = trap
        return trap.sprung

    def _reach(self, stage: Stage, mail: EmailMessage | None = None) -> None:
        trap = self._trap
        if trap is not None and trap.stage == stage and trap.wanted(mail):
            self._trap = None
            trap.action()
            trap.sprung.set()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stop.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            try:
                await self._talk(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")
            await writer.drain()

        await say("220 sink ESMTP")
        while line := await reader.readline():
            verb = line.split(maxsplit=1)[0].upper() if line.strip() else b""
            if verb == b"DATA":
                self._reach(Stage.DATA)
                await say("354 go on")
                content = await self._content(reader)
                if content is None:
                    return  # the client went away before the dot: nobody has this mail
                mail = email.message_from_bytes(content, policy=email.policy.default)
                assert isinstance(mail, EmailMessage)
                self.arrived.append(mail)
                self._reach(Stage.DOT, mail)
                await say("250 2.0.0 taken")
                self._reach(Stage.SAID, mail)
            elif verb == b"QUIT":
                await say("221 bye")
                return
            else:
                await say("250-sink\r\n250 8BITMIME" if verb == b"EHLO" else "250 2.0.0 good")

    async def _content(self, reader: asyncio.StreamReader) -> bytes | None:
        lines: list[bytes] = []
        while line := await reader.readline():
            if not lines:
                self._reach(Stage.CONTENT)
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line.removeprefix(b"."))
        return None
