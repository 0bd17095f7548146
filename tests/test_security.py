"""Nobody gets in unsigned (promise P8): one contract over all routes of the application, whoever adds one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from domain import Role, SluiceError
from settings import Settings
from storage import people, schema
from storage.database import Database
from tests.console_world import BASE, PASSWORD, Browser, Console, make_console
from tests.worlds import make_world, message

#: What anybody may see. A route that is not here must ask who is there.
PUBLIC = {
    "/healthz",
    "/readyz",
    "/widget.js",
    "/static",
    "/chat",
    "/chat/frame",
    "/api/docs",
    "/api/openapi.json",
    "/console/signin",
    "/console/language/{language}",
}
#: Whose address or first frame is the secret: with a wrong one nothing is to be had.
SIGNED = {"/t/{token}", "/console/link/{secret}", "/chat/ws", "/hooks/{channel}", "/hooks/{channel}/{rest:path}"}
#: Open to this machine alone, see test_health.
LOCAL = {"/metrics"}
#: Forms of somebody who has no session yet: they need our origin, but have no session's token.
ENTRANCES = {"/console/signin", "/console/link/{secret}"}


def flat(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every (method, path) that is served."""
    for route in routes:
        if isinstance(route, WebSocketRoute):
            yield "WS", prefix + route.path
        elif isinstance(route, APIRoute | Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, prefix + route.path
        elif isinstance(route, Mount):
            yield "GET", prefix + route.path
        else:
            nested = getattr(route, "routes", None)
            if nested is None:
                nested = route.original_router.routes  # type: ignore[attr-defined]
            yield from flat(list(nested), prefix)


def paths(app: FastAPI) -> list[tuple[str, str]]:
    return sorted(set(flat(list(app.routes))))


def example(path: str) -> str:
    """A path with something in its holes."""
    values = {"number": "S-123456", "queue": "claims", "department": "claims", "language": "en"}
    return re.sub(r"{(\w+)(?::\w+)?}", lambda hole: values.get(hole[1], "7"), path)


@pytest.fixture
async def console(tmp_path: Path, settings: Settings) -> AsyncIterator[Console]:
    database = Database(f"sqlite:///{tmp_path / 'sluice.db'}")
    schema.migrate(database)
    yield await make_console(make_world(database, settings))
    database.close()


def test_the_walk_sees_the_routes_of_every_part(console: Console) -> None:
    found = paths(console.app)
    for each in (
        ("GET", "/healthz"), ("POST", "/api/v1/messages"), ("POST", "/api/v1/tickets/{number}/reply"),
        ("GET", "/console/q/{queue}"), ("POST", "/console/t/{number}/say"), ("POST", "/chat"), ("WS", "/chat/ws"),
        ("GET", "/t/{token}"), ("GET", "/static"),
    ):  # fmt: skip
        assert each in found
    assert {path for _method, path in found} >= PUBLIC | SIGNED | LOCAL
    assert len(found) > 50


def refuses(answer: httpx.Response) -> bool:
    if answer.status_code == 303:
        return answer.headers["location"].startswith("/console/signin")
    return answer.status_code in (401, 403)


async def test_whatever_is_not_public_refuses_who_is_not_signed_in(console: Console) -> None:
    strangers: list[dict[str, Any]] = [
        {},
        {"headers": {"Authorization": "Bearer wrong"}},
        {"cookies": {"sluice_session": "wrong", "sluice_chat": "wrong"}},
        {"headers": {"Accept": "application/json", "HX-Request": "true"}},
    ]
    asked = 0
    for options in strangers:
        async with console.browser(**options).client as client:
            for method, path in paths(console.app):
                if path in PUBLIC | LOCAL or method == "WS":
                    continue
                answer = await client.request(method, example(path), json={} if method == "POST" else None)
                refused = refuses(answer) or (path in SIGNED and answer.status_code == 404)
                assert refused, (method, path, options, answer.status_code)
                asked += 1
    assert asked > 150


async def test_a_session_is_no_token_and_a_token_no_session(console: Console) -> None:
    add = partial(people.add_token, name="crm", role=Role.ADMIN, now=message().received_at)
    secret = await console.world.database.write(add)
    admin = await console.signed_in("root")
    async with console.browser(headers={"Authorization": f"Bearer {secret}"}).client as program:
        for method, path in paths(console.app):
            if path.startswith("/api/v1"):
                assert (await admin.client.request(method, example(path), json={})).status_code == 401, path
            elif path.startswith("/console") and path not in PUBLIC | SIGNED:
                assert refuses(await program.request(method, example(path))), path


def console_posts(app: FastAPI) -> list[str]:
    found = [path for method, path in paths(app) if method == "POST" and path.startswith("/console")]
    assert len(found) > 15
    return found


async def test_every_form_of_the_console_needs_its_token_and_our_origin(console: Console) -> None:
    browser = await console.signed_in("root")
    foreign: list[dict[str, str]] = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"{BASE}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ]
    client = browser.client
    for path in console_posts(console.app):
        wrong: list[tuple[dict[str, str], dict[str, str]]] = [({"csrf": browser.csrf}, each) for each in foreign]
        if path not in ENTRANCES:
            wrong += [({}, {}), ({"csrf": ""}, {}), ({"csrf": "x" * 32}, {}), ({}, {"X-CSRF-Token": "x"})]
        for form, headers in wrong:
            answer = await client.post(example(path), data=form, headers=headers)
            assert answer.status_code == 403, (path, form, headers, answer.status_code)
    # The session lives on, and with its token the last of them does something.
    assert (await client.post("/console/signout", data={"csrf": browser.csrf})).status_code == 303


async def test_nothing_of_the_console_changes_by_get(console: Console) -> None:
    """A picture's address on another site could ask for it."""
    await console.ticket()
    browser = await console.signed_in("root")
    events = await count(console, "event")
    sessions = await count(console, "sign_in")
    client = browser.client
    for method, path in paths(console.app):
        if method == "GET" and path.startswith("/console") and path != "/console/events":
            await client.get(example(path))
    assert await count(console, "event") == events
    assert await count(console, "sign_in") == sessions


async def count(console: Console, table: str) -> int:
    def query(connection: Any) -> int:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar())

    return await console.world.database.read(query)


async def test_security_headers_are_on_every_answer(console: Console) -> None:
    admin = await console.signed_in("root")
    seen: set[int] = set()
    async with console.browser().client as stranger:
        for client in (stranger, admin.client):
            for method, path in [*paths(console.app), ("GET", "/no/such/page"), ("GET", "/static/console.css")]:
                if method == "WS" or path == "/console/events":  # which never ends
                    continue
                answer = await client.request(method, example(path))
                seen.add(answer.status_code)
                policy = answer.headers["content-security-policy"]
                assert re.match("default-src '(self|none)'", policy), path
                assert "unsafe" not in policy, path
                assert "frame-ancestors" in policy, path
                assert answer.headers["x-content-type-options"] == "nosniff", path
                assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer"), path
    assert {200, 303, 401, 403, 404} <= seen


def cookies(answer: httpx.Response) -> list[str]:
    return answer.headers.get_list("set-cookie")


@pytest.mark.parametrize("base", ["https://help.example", "http://sluice.test"])
async def test_cookies_are_kept_from_scripts_and_other_sites(tmp_path: Path, settings: Settings, base: str) -> None:
    database = Database(f"sqlite:///{tmp_path / 'sluice.db'}")
    schema.migrate(database)
    console = await make_console(make_world(database, settings, public_url=base))
    async with console.browser().client as client:
        entered = await client.post("/console/signin", data={"name": "root", "password": PASSWORD})
        session = entered.cookies["sluice_session"]
        client.cookies.set("sluice_session", session)
        csrf = re.search(r'<meta name="csrf" content="([^"]+)">', (await client.get("/console/me")).text)
        assert csrf is not None
        given = [
            entered,
            await client.get("/console/language/en"),
            await client.post("/chat", data={"text": "hello", "id": "abcdefgh"}, headers={"Origin": BASE}),
            await client.post("/console/signout", data={"csrf": csrf[1]}),
        ]
    for answer in given:
        assert cookies(answer), answer.url
        for cookie in cookies(answer):
            parts = {part.strip().lower() for part in cookie.split(";")}
            assert "httponly" in parts, cookie
            assert parts & {"samesite=lax", "samesite=strict"}, cookie
            assert ("secure" in parts) == base.startswith("https"), cookie
    database.close()


async def test_there_is_no_default_account(tmp_path: Path, settings: Settings) -> None:
    database = Database(f"sqlite:///{tmp_path / 'sluice.db'}")
    schema.migrate(database)
    console = await make_console(make_world(database, settings))

    def without_password(connection: Any) -> None:
        people.add(connection, "admin", Role.ADMIN, [], "", message().received_at)

    await database.write(without_password)
    async with console.browser().client as client:
        for name in ("admin", "root"):
            for password in ("", name, "password", "nobody has this password"):
                answer = await client.post("/console/signin", data={"name": name, "password": password})
                assert answer.status_code == 401
                assert not cookies(answer)
    database.close()


def test_no_password_or_token_ships_in_the_settings(settings: Settings) -> None:
    assert (settings.web.secret, settings.web.metrics_token) == ("", "")
    assert settings.web.host == "127.0.0.1"


async def test_guessing_passwords_is_slowed_down(console: Console) -> None:
    async def guess(client: httpx.AsyncClient, name: str) -> httpx.Response:
        return await client.post("/console/signin", data={"name": name, "password": "wrong password"})

    most = console.web.settings.sign_ins_per_minute
    async with console.browser().client as client:
        for n in range(most):
            assert (await guess(client, f"somebody-{n}")).status_code == 401
        slowed = await guess(client, "somebody-else")
        assert slowed.status_code == 429
        assert int(slowed.headers["Retry-After"]) > 0
        # Not even the right password is tried then: it would tell.
        assert (await client.post("/console/signin", data={"name": "li", "password": PASSWORD})).status_code == 429
    async with Browser(console.browser(client=("10.0.0.9", 1)).client).client as elsewhere:
        assert (await elsewhere.post("/console/signin", data={"name": "li", "password": PASSWORD})).status_code == 303


async def test_errors_tell_nothing_of_the_inside(console: Console) -> None:
    number = await console.ticket("#claim_status secret words of a customer")
    browser = await console.signed_in("root")

    def broken(*_args: Any, **_more: Any) -> Any:
        raise RuntimeError("secret words of a customer")

    console.world.database.read = broken  # type: ignore[method-assign]
    transport = httpx.ASGITransport(console.app, raise_app_exceptions=False)
    for accept in ("text/html", "application/json"):
        headers = {"Accept": accept, "Authorization": "Bearer x"}
        async with httpx.AsyncClient(
            transport=transport, base_url=BASE, headers=headers, cookies=browser.client.cookies
        ) as client:
            for path in (f"/console/t/{number}", "/console/q/claims", "/api/v1/tickets", "/readyz", "/t/abc"):
                answer = await client.get(path)
                assert answer.status_code == 500, path
                for word in ("Traceback", "RuntimeError", "secret words", ".py", "SELECT"):
                    assert word not in answer.text, (path, word)
    await browser.client.aclose()


def test_every_error_of_ours_has_words_without_an_inside() -> None:
    def family(kind: type[SluiceError]) -> Iterator[type[SluiceError]]:
        yield kind
        for each in kind.__subclasses__():
            yield from family(each)

    for kind in family(SluiceError):
        assert kind.__doc__, kind
        assert "Traceback" not in kind.__doc__
