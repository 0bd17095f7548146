"""What programs do with tickets, once for each Idempotency-Key; and the API's description of itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain import Role
from settings import Settings
from storage import people, schema
from storage.database import Database
from tests.api_world import Api, serving
from tests.worlds import make_world


@pytest.fixture
async def api(database: Database, settings: Settings) -> AsyncIterator[Api]:
    """On both databases."""
    async with serving(make_world(database, settings)) as made:
        yield made


@pytest.fixture
async def small(tmp_path: Path, settings: Settings) -> AsyncIterator[Api]:
    """On SQLite, for what no database decides."""
    database = Database(f"sqlite:///{tmp_path / 'small.db'}")
    schema.migrate(database)
    async with serving(make_world(database, settings)) as made:
        yield made
    database.close()


async def act(api: Api, number: str, verb: str, body: Any = None, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    async with api.client(Role.AGENT, headers=headers) as client:
        return await client.post(f"/api/v1/tickets/{number}/{verb}", json=body)


async def test_every_verb_answers_with_the_ticket(api: Api) -> None:
    def add_person(connection: Any) -> None:
        people.add(connection, "mei", Role.AGENT, ["billing"], "", datetime.now(UTC))

    await api.world.database.write(add_person)
    number = await api.ticket()
    steps: list[tuple[str, Any, dict[str, Any]]] = [
        ("note", {"text": "look"}, {"state": "new"}),
        ("assign", {"user": "mei"}, {"state": "open", "owner": "mei"}),
        ("assign", {"user": None}, {"owner": None}),
        ("reply", {"text": "Hello."}, {"state": "open"}),
        ("transfer", {"department": "billing", "reason": "theirs"}, {"department": "billing"}),
        ("pending", {}, {"state": "pending"}),
        ("resolve", {"code": "paid"}, {"state": "resolved"}),
        ("reopen", {}, {"state": "open", "resolved_at": None}),
        ("resolve", None, {"state": "resolved"}),
        ("close", None, {"state": "closed"}),
    ]
    for verb, body, expected in steps:
        answer = await act(api, number, verb, body)
        assert answer.status_code == 200, (verb, answer.text)
        ticket = answer.json()
        assert ticket["number"] == number
        assert ticket | expected == ticket, verb
    async with api.client(Role.AGENT) as client:
        assert (await client.get(f"/api/v1/tickets/{number}")).json() | ticket == (
            await client.get(f"/api/v1/tickets/{number}")
        ).json()
    assert len(api.nudges) == len(steps)  # delivery hears of it


async def test_a_forbidden_move_changes_nothing(small: Api) -> None:
    number = await small.ticket()
    answer = await act(small, number, "close", {})
    assert answer.status_code == 409
    assert answer.json()["error"]
    assert (await act(small, number, "resolve", {})).status_code == 200
    assert (await act(small, number, "close", {})).status_code == 200
    for verb, body in (
        ("reply", {"text": "late"}), ("pending", {}), ("resolve", {}), ("reopen", {}), ("assign", {"user": None}),
        ("transfer", {"department": "billing", "reason": "late"}),
    ):  # fmt: skip
        assert (await act(small, number, verb, body)).status_code == 409, verb
    assert await small.count("outbox", kind="reply") == 0


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("reply", {}, "text"),
        ("reply", {"text": ""}, "text"),
        ("reply", {"text": "   "}, "text"),
        ("reply", {"text": "x" * 50_001}, "text"),
        ("reply", {"text": 5}, "text"),
        ("reply", {"text": "x", "to": "y"}, "to"),
        ("reply", [], ""),
        ("note", {"text": ""}, "text"),
        ("transfer", {"department": "billing"}, "reason"),
        ("transfer", {"department": "billing", "reason": " "}, "reason"),
        ("transfer", {"department": "nowhere", "reason": "x"}, "department"),
        ("assign", {"user": "nobody"}, "user"),
        ("resolve", {"code": "x" * 65}, "code"),
        ("close", {"why": "x"}, "why"),
    ],
)
async def test_a_wrong_field_is_named(small: Api, verb: str, body: Any, field: str) -> None:
    number = await small.ticket()
    answer = await act(small, number, verb, body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert await small.count("event", actor="token:the-agent") == 0


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json(small: Api, body: bytes) -> None:
    number = await small.ticket()
    async with small.client(Role.AGENT, headers={"Content-Type": "application/json"}) as client:
        answer = await client.post(f"/api/v1/tickets/{number}/reply", content=body)
    assert (answer.status_code, answer.json()["field"]) == (422, "")


# --- once -------------------------------------------------------------------------------------------------------------


async def test_the_same_key_and_body_have_one_effect_and_one_answer(api: Api) -> None:
    number = await api.ticket()
    first = await act(api, number, "reply", {"text": "once"}, "k")
    assert (await act(api, number, "resolve", {})).status_code == 200
    again = await act(api, number, "reply", {"text": "once"}, "k")
    assert (again.status_code, again.json()) == (200, first.json())
    assert await api.count("outbox", kind="reply") == 1
    assert await api.count("event", kind="replied") == 1


async def test_the_same_key_for_something_else_is_refused(small: Api) -> None:
    number, other = await small.ticket(), await small.ticket()
    assert (await act(small, number, "reply", {"text": "once"}, "k")).status_code == 200
    for where, verb, body in (
        (number, "reply", {"text": "twice"}),
        (number, "note", {"text": "once"}),
        (other, "reply", {"text": "once"}),
    ):
        assert (await act(small, where, verb, body, "k")).status_code == 409
    assert await small.count("outbox", kind="reply") == 1
    assert await small.count("event", kind="noted") == 0
    # Another program's keys are its own.
    async with small.client(Role.ADMIN, headers={"Idempotency-Key": "k"}) as client:
        assert (await client.post(f"/api/v1/tickets/{number}/reply", json={"text": "mine"})).status_code == 200


async def test_a_key_is_not_used_up_by_a_refusal(small: Api) -> None:
    number = await small.ticket()
    assert (await act(small, number, "close", {}, "k")).status_code == 409
    assert (await act(small, number, "resolve", {})).status_code == 200
    assert (await act(small, number, "close", {}, "k")).json()["state"] == "closed"


async def test_without_a_key_each_call_counts(small: Api) -> None:
    number = await small.ticket()
    for key in (None, None, "", ""):
        assert (await act(small, number, "note", {"text": "same"}, key)).status_code == 200
    assert await small.count("event", kind="noted") == 4
    assert (await act(small, number, "note", {"text": "same"}, "k" * 201)).status_code == 422


async def test_the_same_key_at_the_same_time_in_two_processes(api: Api, settings: Settings) -> None:
    """Two apps over the same database, as two web processes are."""
    number = await api.ticket()
    second = Database(api.world.database.url.render_as_string(hide_password=False))
    async with serving(make_world(second, settings), api.tokens) as other:
        for n in range(5):
            calls = [act(each, number, "reply", {"text": f"once {n}"}, f"k{n}") for each in [api, other] * 4]
            answers = await asyncio.gather(*calls)
            assert [each.status_code for each in answers] == [200] * 8, [each.text for each in answers]
            assert all(each.json() == answers[0].json() for each in answers)
            assert await api.count("outbox", kind="reply") == n + 1
            # Of two different bodies under one key, one is done.
            calls = [act(each, number, "note", {"text": f"{n} {i}"}, f"n{n}") for i, each in enumerate([api, other])]
            assert sorted(each.status_code for each in await asyncio.gather(*calls)) == [200, 409]
            assert await api.count("event", kind="noted") == n + 1
    second.close()


# --- what it says of itself -------------------------------------------------------------------------------------------

ROUTES = {
    "/api/v1/messages": {"post"},
    "/api/v1/tickets": {"get"},
    "/api/v1/queues/{department}": {"get"},
    "/api/v1/tickets/{number}": {"get"},
    **{
        f"/api/v1/tickets/{{number}}/{verb}": {"post"}
        for verb in ("reply", "note", "transfer", "assign", "pending", "resolve", "close", "reopen")
    },
}


def references(part: Any) -> list[str]:
    """Every $ref of a document."""
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [each for value in part.values() for each in references(value)]
    return [each for value in part for each in references(value)] if isinstance(part, list) else []


async def test_the_openapi_document_lists_every_route(small: Api) -> None:
    async with small.client() as client:
        answer = await client.get("/api/openapi.json")
    document = answer.json()
    assert document["openapi"].startswith("3.")
    assert {"title", "version"} <= set(document["info"])
    assert {path: set(methods) for path, methods in document["paths"].items()} == ROUTES
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["security"], path
            assert operation["responses"], path
            names = {each["name"] for each in operation.get("parameters", [])}
            assert set(re.findall(r"{(\w+)}", path)) <= names
            if method == "post" and path != "/api/v1/messages":
                assert "Idempotency-Key" in names, path
    for reference in references(document):
        here: Any = document
        for step in reference.removeprefix("#/").split("/"):
            here = here[step]
        assert isinstance(here, dict)
    posted = document["paths"]["/api/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert posted["required"] == ["external_id", "sender", "text"]
    assert {"subject", "thread", "sender_name", "received_at"} <= set(posted["properties"])


async def test_the_docs_name_every_route_and_load_nothing_from_elsewhere(small: Api) -> None:
    async with small.client() as client:
        answer = await client.get("/api/docs")
        assert answer.status_code == 200
        for path in ROUTES:
            assert f"<code>{path}</code>" in answer.text
        assert "<script" not in answer.text
        assert " style=" not in answer.text
        loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        assert loaded
        for address in loaded:
            assert address.startswith("/")
            assert not address.startswith("//")
            assert (await client.get(address)).status_code == 200, address
