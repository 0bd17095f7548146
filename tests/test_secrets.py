"""What must never be written to a log: tokens, tracking links, passwords, customers' words and addresses."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn

from domain import Role
from settings import Settings
from storage import schema
from storage.database import Database
from tests.api_world import serving
from tests.processes import Deployment, until
from tests.worlds import make_world

PASSWORD = "a very private password"
TEXT = "PRIVATEWORDS where is my claim money"
SENDER = "privatesender@customer.example"


def requests_with_secrets(url: str, token: str) -> list[str]:
    """What people and programs send, well and badly; the secrets that were in it."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, timeout=30) as client:
        for n in range(2):  # the second is a duplicate with other content
            record = {"external_id": "PRIVATEID", "sender": SENDER, "text": f"{TEXT} {n}", "subject": "PRIVATESUBJECT"}
            assert client.post("/api/v1/messages", json=record, headers=headers).status_code in (202, 200)
        for content in (TEXT, json.dumps({"text": [TEXT]}), json.dumps({"external_id": TEXT, "sender": [SENDER]})):
            refused = client.post("/api/v1/messages", content=content, headers=headers)
            assert refused.status_code == 422
        listed = until(
            lambda: client.get("/api/v1/tickets", params={"q": "PRIVATEWORDS"}, headers=headers).json()["items"],
            "a ticket of the message",
        )
        ticket = client.get(f"/api/v1/tickets/{listed[0]['number']}", headers=headers).json()
        tracking = ticket["tracking_url"].rpartition("/")[2]
        assert client.get(f"/t/{tracking}").status_code == 200
        client.post(f"/api/v1/tickets/{listed[0]['number']}/reply", json={"text": "PRIVATEANSWER"}, headers=headers)
        client.post(f"/api/v1/tickets/{listed[0]['number']}/reply", json={"text": ["PRIVATEANSWER"]}, headers=headers)
        assert client.get("/api/v1/tickets", headers={"Authorization": "Bearer PRIVATEGUESS"}).status_code == 401
        wrong = client.post("/console/signin", data={"name": "PRIVATENAME", "password": "PRIVATEWRONG"})
        assert wrong.status_code == 401
        entered = client.post("/console/signin", data={"name": "mei", "password": PASSWORD})
        assert entered.status_code == 303
        session = entered.cookies["sluice_session"]
        client.get("/console/link/PRIVATELINK")
        client.get("/t/PRIVATETRACK")
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:  # what is no HTTP
        line.sendall(b"PRIVATENOISE\r\n\r\n")
        line.recv(1000)
    return [token, tracking, session, PASSWORD, SENDER, "where is my claim money", r"PRIVATE\w*"]


def test_no_secret_is_in_the_output_of_a_process(tmp_path: Path) -> None:
    """Everything that `run` writes, structlog's and uvicorn's, at the level that says most."""
    deployment = Deployment(tmp_path, {"SLUICE_LOG__LEVEL": "debug", "SLUICE_ROUTING__THRESHOLD": "0.5"})
    token = deployment.token("crm", "admin")
    deployment.user("mei", "admin", PASSWORD)
    with deployment.process() as process:
        secrets = requests_with_secrets(process.url, token)
        process.stop()
        output = (process.dir / "output").read_text()
    assert "Sluice is at" in output
    for secret in secrets:
        assert re.findall(secret, output) == [], secret
    assert "Traceback" not in output


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Every line of the log, uvicorn's with its tracebacks."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines:
        yield lines


async def test_a_fault_of_ours_tells_nothing_of_the_customer(
    tmp_path: Path,
    settings: Settings,
    heard: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception's text may quote what was sent: neither the log nor the answer may."""
    database = Database(f"sqlite:///{tmp_path / 'sluice.db'}")
    schema.migrate(database)
    async with serving(make_world(database, settings)) as api:

        async def broken(items: Any, **_more: Any) -> Any:
            raise RuntimeError(f"cannot store {items[0].text}")

        monkeypatch.setattr(api.world.flow, "receive", broken)
        server = uvicorn.Server(uvicorn.Config(api.app, port=0, log_config=None, access_log=False, lifespan="off"))
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0)
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"Authorization": f"Bearer {api.tokens[Role.CHANNEL]}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            record = {"external_id": "1", "sender": SENDER, "text": TEXT}
            answer = await client.post("/api/v1/messages", json=record)
        server.should_exit = True
        await task
    database.close()
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert any(line["event"] == "request_failed" and line["error"] == "RuntimeError" for line in heard)
    for said in (answer.text, repr(heard), caplog.text):
        assert "PRIVATEWORDS" not in said
        assert SENDER not in said
