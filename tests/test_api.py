"""/api/v1, as the contract has it: messages in, tickets out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domain import Role
from settings import Settings
from storage import people, schema, tickets
from storage.database import Database
from tests.api_world import Api, serving
from tests.servers import PostgresServer
from tests.worlds import make_world
from web import api_access


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


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_a_message_is_stored_once_and_the_first_content_stays(api: Api) -> None:
    first = await api.post("first words", external_id="a")
    assert first.status_code == 202
    assert set(first.json()) == {"message_id"}
    assert isinstance(first.json()["message_id"], str)
    again = await api.post("first words", external_id="a")
    assert (again.status_code, again.json()) == (200, first.json())
    assert await api.count("event", kind="duplicate_differs") == 0
    other = await api.post("other words", external_id="a")
    assert (other.status_code, other.json()) == (200, first.json())
    assert await api.count("event", kind="duplicate_differs") == 1
    assert await api.count("message", text="first words") == 1
    assert await api.count("message") == 1


async def test_the_account_is_the_token_s_name(small: Api) -> None:
    record = {"external_id": "same", "sender": "li@example.com", "text": "hello"}
    answers = []
    for role in (Role.CHANNEL, Role.ADMIN):
        async with small.client(role) as client:
            answers.append(await client.post("/api/v1/messages", json=record))
    assert [each.status_code for each in answers] == [202, 202]
    assert await small.count("message", account="the-channel") == 1
    assert await small.count("message", account="the-admin") == 1


async def test_the_same_thread_and_sender_join_and_nobody_else(small: Api) -> None:
    for fields in (
        {"thread": "t", "sender": "a@example.com"},
        {"thread": "t", "sender": "a@example.com"},
        {"thread": "t", "sender": "b@example.com"},
        {"sender": "a@example.com"},
        {"sender": "a@example.com"},
    ):
        await small.ticket(**fields)
    async with small.client(Role.AGENT) as client:
        items = (await client.get("/api/v1/tickets")).json()["items"]
        whole = [(await client.get(f"/api/v1/tickets/{each['number']}")).json() for each in items]
    incoming = [(each["customer"], sum(m["direction"] == "in" for m in each["messages"])) for each in whole]
    assert incoming == [("a@example.com", 1), ("a@example.com", 1), ("b@example.com", 1), ("a@example.com", 2)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"external_id": None}, "external_id"),
        ({"external_id": ""}, "external_id"),
        ({"external_id": "x" * 513}, "external_id"),
        ({"sender": "   "}, "sender"),
        ({"text": None}, "text"),
        ({"text": ["a"]}, "text"),
        ({"text": "x" * 200_001}, "text"),
        ({"subject": 3}, "subject"),
        ({"subject": "x" * 999}, "subject"),
        ({"thread": True}, "thread"),
        ({"sender_name": {}}, "sender_name"),
        ({"received_at": "yesterday"}, "received_at"),
        ({"received_at": "2026-11-22T14:05:00"}, "received_at"),
        ({"received_at": "0001-01-01T00:00:00+14:00"}, "received_at"),
        ({"received_at": 5}, "received_at"),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_stored(small: Api, change: dict[str, Any], field: str) -> None:
    answer = await small.post(**change)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert answer.json()["error"]
    assert await small.count("message") == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"a":NaN'])
async def test_what_is_no_message_is_refused(small: Api, body: bytes) -> None:
    async with small.client(Role.CHANNEL) as client:
        answer = await client.post("/api/v1/messages", content=body)
    assert answer.status_code == 422
    assert "field" in answer.json()


async def test_strange_characters_are_no_reason_to_refuse(api: Api) -> None:
    body = b'{"external_id":"n\\u0000","sender":"a\\ud800@example.com","text":"nul \\u0000 half \\ud83d end"}'
    async with api.client(Role.CHANNEL) as client:
        answer = await client.post("/api/v1/messages", content=body)
        assert answer.status_code == 202
        assert (await client.post("/api/v1/messages", content=body)).json() == answer.json()
    await api.world.flow.finish()
    assert await api.count("message", state="ticketed") == 1


async def test_a_body_that_is_too_large_is_not_read(small: Api) -> None:
    small.web.settings = small.web.settings.model_copy(update={"body_most": 1000})
    assert (await small.post("x" * 1000)).status_code == 413
    assert await small.count("message") == 0
    read: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(1)
            yield b" " * 100

    for role, path, status in (
        (Role.CHANNEL, "messages", 413),
        (Role.AGENT, "tickets/S-123456/reply", 413),
        # Nobody's body is not read at all.
        (None, "tickets/S-123456/reply", 401),
    ):
        read.clear()
        async with small.client(role) as client:
            answer = await client.post(f"/api/v1/{path}", content=endless())
        assert answer.status_code == status, answer.text
        assert len(read) == (0 if role is None else 11)


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic bGk6bGk=", "Bearer \u00e9"])
async def test_no_or_a_wrong_token(small: Api, header: str) -> None:
    async with small.client(headers={"Authorization": header.encode()}) as client:
        for method, path in (("POST", "messages"), ("GET", "tickets"), ("POST", "tickets/S-1/close")):
            answer = await client.request(method, f"/api/v1/{path}", json={})
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["error"]


async def test_roles(small: Api) -> None:
    number = await small.ticket()
    for role in Role:
        async with small.client(role) as client:
            listing = await client.get("/api/v1/tickets")
            queue = await client.get("/api/v1/queues/claims")
            one = await client.get(f"/api/v1/tickets/{number}")
            note = await client.post(f"/api/v1/tickets/{number}/note", json={"text": "seen"})
            posted = await client.post("/api/v1/messages", json={"external_id": "r", "sender": "a", "text": "b"})
        desk = 403 if role is Role.CHANNEL else 200
        assert [each.status_code for each in (listing, queue, one, note)] == [desk] * 4, role
        assert posted.status_code == (202 if role in (Role.CHANNEL, Role.ADMIN) else 403), role


async def test_a_token_that_was_taken_away_stops(small: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(api_access, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert (await small.post()).status_code == 202
    await small.world.database.write(lambda connection: people.remove_token(connection, "the-channel"))
    # What is believed without a look is forgotten within seconds.
    clock[0] += 5
    assert (await small.post()).status_code == 401
    async with small.client(Role.AGENT) as client:
        assert (await client.get("/api/v1/tickets")).status_code == 200


# --- the database is down ---------------------------------------------------------------------------------------------


async def refused_while_down(api: Api) -> None:
    answer = await api.post("lost", external_id="down")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "message_id" not in answer.json()
    async with api.client(Role.AGENT) as client:
        listing = await client.get("/api/v1/tickets")
    assert listing.status_code == 503
    assert int(listing.headers["Retry-After"]) > 0


async def taken_again(api: Api) -> None:
    assert await api.count("message") == 1
    assert (await api.post("found", external_id="down")).status_code == 202
    assert await api.count("message", text="lost") == 0


async def test_503_while_sqlite_s_file_cannot_be_read(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "sluice.db"
    database = Database(f"sqlite:///{path}")
    schema.migrate(database)
    async with serving(make_world(database, settings)) as api:
        assert (await api.post()).status_code == 202
        tokens = api.tokens
    database.close()
    kept = path.rename(tmp_path / "kept.db")
    path.mkdir()
    database = Database(f"sqlite:///{path}")
    async with serving(make_world(database, settings), tokens) as api:
        await refused_while_down(api)
        path.rmdir()
        kept.rename(path)
        await taken_again(api)
    database.close()


async def test_503_while_postgresql_is_stopped(settings: Settings) -> None:
    with PostgresServer(durable=True) as server, server.database() as url:
        database = Database(url)
        schema.migrate(database)
        async with serving(make_world(database, settings)) as api:
            assert (await api.post()).status_code == 202
            server.stop()
            await refused_while_down(api)
            server.start()
            await taken_again(api)
        database.close()


# --- reading ----------------------------------------------------------------------------------------------------------


async def numbers(api: Api, path: str, **params: str) -> list[str]:
    """All pages of a list, two tickets each."""
    found: list[str] = []
    cursor = ""
    async with api.client(Role.AGENT) as client:
        while True:
            given = {"limit": "2", **params} | ({"cursor": cursor} if cursor else {})
            answer = await client.get(f"/api/v1/{path}", params=given)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            assert set(page) == {"items", "next"}
            found += [each["number"] for each in page["items"]]
            if page["next"] is None:
                return found
            assert len(page["items"]) == 2
            cursor = page["next"]


async def test_filters_and_search(api: Api) -> None:
    invoice = await api.ticket("#invoice_request 请给我开去年的保费发票", sender="wang@example.com", subject="开票")
    claim = await api.ticket("#claim_status my windscreen is broken", sender="ada@stone.example", sender_name="Ada")
    async with api.client(Role.AGENT) as client:
        await client.post(f"/api/v1/tickets/{claim}/resolve", json={})
    for params, expected in (
        ({}, [claim, invoice]),
        ({"department": "", "state": "", "q": "", "cursor": ""}, [claim, invoice]),
        ({"department": "billing"}, [invoice]),
        ({"department": "nowhere"}, []),
        ({"state": "resolved"}, [claim]),
        ({"state": "new", "department": "claims"}, []),
        ({"q": "发票"}, [invoice]),
        ({"q": "保费"}, [invoice]),
        ({"q": "费发"}, [invoice]),
        ({"q": "票发"}, []),
        ({"q": "开票"}, [invoice]),
        ({"q": "windscreen"}, [claim]),
        ({"q": "WINDSC"}, [claim]),
        ({"q": "stone"}, [claim]),
        ({"q": "wang@example.com"}, [invoice]),
        ({"q": invoice}, [invoice]),
        ({"q": invoice.removeprefix("S-")}, [invoice]),
        ({"q": "'\" OR * ("}, []),
        ({"q": "发票", "department": "claims"}, []),
    ):
        assert await numbers(api, "tickets", **params) == expected, params


async def test_pages_have_neither_gaps_nor_repeats_while_more_come_in(small: Api) -> None:
    made = [await small.ticket(sender=f"c{n}@example.com") for n in range(7)]
    assert await numbers(small, "tickets") == made[::-1]
    async with small.client(Role.AGENT) as client:
        first = (await client.get("/api/v1/tickets", params={"limit": 3})).json()
        await small.ticket(sender="late@example.com")
        rest = (await client.get("/api/v1/tickets", params={"limit": 200, "cursor": first["next"]})).json()
    assert [each["number"] for each in first["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None


async def test_a_queue_is_the_unclosed_of_its_department_most_urgent_first(api: Api) -> None:
    normal = await api.ticket()
    closed = await api.ticket()
    high = await api.ticket("#claim_status #negative")
    resolved = await api.ticket()
    injury = await api.ticket("#claim_status #injury")
    await api.ticket("#invoice_request")
    async with api.client(Role.AGENT) as client:
        for number in (closed, resolved):
            await client.post(f"/api/v1/tickets/{number}/resolve", json={"code": "done"})
        await client.post(f"/api/v1/tickets/{closed}/close")
        departments = {(await client.get(f"/api/v1/tickets/{injury}")).json()["department"]}
    expected = [high, normal, resolved]
    assert await numbers(api, "queues/claims") == (expected if departments != {"claims"} else [injury, *expected])
    async with api.client(Role.AGENT) as client:
        assert (await client.get("/api/v1/queues/nowhere")).status_code == 404


@pytest.mark.parametrize("path", ["tickets", "queues/claims"])
@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"cursor": "?"}, "cursor"),
        ({"cursor": "\u4e2d"}, "cursor"),
        ({"cursor": "LTU"}, "cursor"),  # -5
        ({"cursor": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"}, "cursor"),  # more than a database counts
        ({"limit": "0"}, "limit"),
        ({"limit": "many"}, "limit"),
    ],
)
async def test_wrong_parameters_are_named(small: Api, path: str, params: dict[str, str], field: str) -> None:
    async with small.client(Role.AGENT) as client:
        answer = await client.get(f"/api/v1/{path}", params=params)
    assert answer.status_code == 422
    assert answer.json()["field"] == field


async def test_an_unknown_state_is_named(small: Api) -> None:
    async with small.client(Role.AGENT) as client:
        answer = await client.get("/api/v1/tickets", params={"state": "lost"})
    assert (answer.status_code, answer.json()["field"]) == (422, "state")


async def test_a_ticket_has_the_export_s_fields_and_its_story(api: Api) -> None:
    number = await api.ticket("#claim_status #negative where is it", subject="My claim", sender_name="Li")
    async with api.client(Role.AGENT) as client:
        await client.post(f"/api/v1/tickets/{number}/note", json={"text": "call first"})
        await client.post(f"/api/v1/tickets/{number}/reply", json={"text": "It is on its way."})
        whole = (await client.get(f"/api/v1/tickets/{number}")).json()
        [listed] = (await client.get("/api/v1/tickets")).json()["items"]
        [queued] = (await client.get("/api/v1/queues/claims")).json()["items"]
    with api.world.database.reading() as connection:
        [exported] = tickets.export(connection)
    messages, events, url = whole.pop("messages"), whole.pop("events"), whole.pop("tracking_url")
    assert whole == listed == queued == exported
    assert {"number", "state", "department", "priority", "intent", "sentiment", "risk", "channel", "customer",
            "created_at", "first_response_due_at", "resolution_due_at"} <= set(whole)  # fmt: skip
    for name in ("created_at", "first_response_due_at", "resolution_due_at", "first_response_at"):
        assert whole[name].endswith("Z")
        assert datetime.fromisoformat(whole[name]).tzinfo is not None
    assert (whole["department"], whole["sentiment"], whole["state"]) == ("claims", "negative", "open")
    assert [each["direction"] for each in messages] == ["in", "out", "note", "out"]
    assert messages[0]["text"] == "#claim_status #negative where is it"
    assert (messages[0]["sender"], messages[0]["sender_name"], messages[0]["state"]) == (
        "li@example.com", "Li", "ticketed",
    )  # fmt: skip
    assert messages[0]["tags"]["intent"] == "claim_status"
    assert (messages[3]["text"], messages[3]["state"]) == ("It is on its way.", "queued")
    assert {"opened", "noted", "replied", "state"} <= {each["kind"] for each in events}
    assert {each["actor"] for each in events} == {"bot", "token:the-agent"}
    assert set(events[0]) == {"id", "kind", "actor", "at", "data"}
    async with api.client() as visitor:
        page = await visitor.get(url)
    assert page.status_code == 200
    assert number in page.text
    assert "call first" not in page.text


@pytest.mark.parametrize("number", ["S-999999", "S-1", "nothing", "S-123456789012345678901234567890", "%00"])
async def test_unknown_tickets(small: Api, number: str) -> None:
    async with small.client(Role.AGENT) as client:
        assert (await client.get(f"/api/v1/tickets/{number}")).status_code == 404
        for verb, body in (("reply", {"text": "x"}), ("close", {}), ("assign", {"user": None})):
            assert (await client.post(f"/api/v1/tickets/{number}/{verb}", json=body)).status_code == 404
