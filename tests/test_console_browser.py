"""The console in Chromium: sign-in, live rows, the composer under a colleague's message, keys, phone. Any message of
the content security policy fails the test."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from starlette.types import Receive, Scope, Send

from domain import ticket_id_of
from settings import Settings
from storage import tickets
from storage.database import Database
from tests.console_world import PASSWORD, Console, make_console
from tests.worlds import make_world, message
from web.console_live import live_of

T = TypeVar("T")
pytest_plugins = ["tests.console_fixtures"]


class Served:
    """The console on a free port, in a thread with an event loop of its own. Each test gets a world of its own."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._server: uvicorn.Server
        self.console: Console

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.console.app(scope, receive, send)

        config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
        self._server = uvicorn.Server(config)
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        self._ready.set()
        await serving

    @contextmanager
    def world(self, console_url: str, settings: Settings) -> Iterator[None]:
        """A new world behind the same address."""
        database = Database(console_url)

        async def begin() -> None:
            self.console = await make_console(make_world(database, settings, public_url=self.url))

        async def end() -> None:
            live_of(self.console.app).close()

        self._run(begin())
        yield
        self._run(end())
        database.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def do(self, work: Callable[[Console], Coroutine[Any, Any, T]]) -> T:
        """Run something beside the pages, as another process or colleague would."""
        return self._run(work(self.console))

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served() as made:
        yield made


@pytest.fixture
def served(server: Served, console_url: str, settings: Settings) -> Iterator[Served]:
    with server.world(console_url, settings):
        yield server


# A module's and not the session's: Playwright's loop runs in this thread, where asyncio tests need one of their own.
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complained of."""
    return []


@pytest.fixture
def page(browser: Browser, served: Served, complaints: list[str], tmp_path: Path) -> Iterator[Page]:
    """A page in English that allows no complaint of the browser."""
    context = browser.new_context(locale="en-US", viewport={"width": 1440, "height": 900})
    made = _listened(context.new_page(), complaints)
    yield made
    made.screenshot(path=str(tmp_path / "last.png"))
    context.close()
    assert complaints == []


def _listened(page: Page, complaints: list[str]) -> Page:
    page.on("console", lambda said: complaints.append(said.text) if _is_complaint(said.text) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def _is_complaint(text: str) -> bool:
    return any(
        word in text
        for word in ("Content Security Policy", "Content-Security-Policy", "Refused to", "violates", "htmx:")
    )


def _sign_in(page: Page, served: Served, name: str, then: str = "/console") -> None:
    page.goto(f"{served.url}/console/signin?next={then}")
    page.fill("[name=name]", name)
    page.fill("[name=password]", PASSWORD)
    page.click("button.first")
    expect(page.locator("nav.rail")).to_be_visible()
    page.wait_for_load_state("load")


def _live(page: Page) -> None:
    """The poller follows: what happens from now on is told."""
    expect(page.locator("#live")).to_have_attribute("data-state", "on", timeout=20_000)


def test_new_tickets_wait_behind_a_bar_and_rows_stay_where_they_are(page: Page, served: Served) -> None:
    first = served.do(lambda console: console.ticket("#claim_status one", sender_name="Wang"))
    _sign_in(page, served, "li", "/console/q/claims")
    _live(page)
    row = page.locator(f"#row-{first}")
    expect(row).to_contain_text("Wang")
    verb = served.console.web.verbs.assign("li")
    ticket_id = ticket_id_of(first)
    assert ticket_id is not None
    actor = served.console.actor("li")
    _write(served, lambda connection: verb(connection, ticket_id, actor))
    expect(row.locator(".r-owner")).to_have_text("Me", timeout=20_000)
    second = served.do(lambda console: console.ticket("#claim_status #injury two", sender="b@example.com"))
    expect(page.locator(".news")).to_contain_text("New tickets: 1", timeout=20_000)
    expect(page.locator(f"#row-{second}")).to_have_count(0)
    expect(page.locator("[data-count=claims]").first).to_have_text("2", timeout=20_000)
    page.keyboard.press(".")
    expect(page.locator(".rows .row").first).to_have_id(f"row-{second}")


def _held(page: Page, pattern: str) -> list[Route]:
    """Requests of a pattern wait here until the test lets them go."""
    waiting: list[Route] = []
    page.route(pattern, lambda route: waiting.append(route))
    return waiting


def test_what_happened_before_the_stream_began_is_on_the_page_all_the_same(page: Page, served: Served) -> None:
    number = served.do(lambda console: console.ticket("#claim_status one", thread="t"))
    streams = _held(page, "**/console/events")
    with page.expect_request("**/console/events"):
        _sign_in(page, served, "li", f"/console/t/{number}?from=q/claims")
    expect(page.locator("#live")).to_have_attribute("data-state", "off")
    served.do(lambda console: console.world.come_in(message("I write again", thread="t")))
    second = served.do(lambda console: console.ticket("#claim_status two", sender="b@example.com"))
    streams[0].continue_()
    _live(page)
    expect(page.locator("#timeline")).to_contain_text("I write again")
    expect(page.locator(".news")).to_contain_text("New tickets: 1")
    expect(page.locator("[data-count=claims]").first).to_have_text("2")
    page.keyboard.press(".")
    expect(page.locator(f"#row-{second}")).to_be_visible()


def test_a_lost_answer_does_not_stop_the_next_change(page: Page, served: Served) -> None:
    number = served.do(lambda console: console.ticket("#claim_status one", thread="t"))
    _sign_in(page, served, "li", f"/console/t/{number}")
    _live(page)
    lost: list[str] = []

    def lose_the_first(route: Route) -> None:
        if lost:
            route.continue_()
        else:
            lost.append(route.request.url)
            route.abort()

    page.route("**/live?**", lose_the_first)
    with page.expect_event("requestfailed"):
        served.do(lambda console: console.world.come_in(message("the second", thread="t")))
    served.do(lambda console: console.world.come_in(message("the third", thread="t")))
    timeline = page.locator("#timeline .msg.in")
    expect(timeline).to_have_count(3, timeout=20_000)
    expect(timeline.last).to_contain_text("the third")
    expect(page.locator("#timeline .msg.in", has_text="the second")).to_have_count(1)


def _write(served: Served, unit: Callable[[Any], Any]) -> None:
    async def run(console: Console) -> None:
        await console.world.database.write(unit)

    served.do(run)


def test_a_colleague_s_message_never_touches_what_is_being_typed(page: Page, served: Served) -> None:
    number = served.do(lambda console: console.ticket("#claim_status one", thread="t"))
    _sign_in(page, served, "li", f"/console/t/{number}?from=q/claims")
    _live(page)
    page.keyboard.press("r")
    box = page.locator("#text")
    expect(box).to_be_focused()
    box.type("half a sen")
    page.evaluate("document.getElementById('text').setSelectionRange(4, 4)")
    # Seen or not is decided by the eye; here nobody looks.
    page.evaluate("document.getElementById('seen').remove()")
    served.do(lambda console: console.world.come_in(message("I write again", thread="t")))
    expect(page.locator("#timeline")).to_contain_text("I write again", timeout=20_000)
    expect(box).to_have_value("half a sen")
    expect(box).to_be_focused()
    assert page.evaluate("document.getElementById('text').selectionStart") == 4
    page.keyboard.press("Control+Enter")
    expect(page.locator("#composer-said")).to_contain_text("Reply queued")
    expect(box).to_have_value("")
    expect(page.locator("#timeline .msg.out").last).to_contain_text("half a sen")
    expect(page.locator("#timeline .msg.out").last).to_contain_text("Queued for sending")


def test_a_collision_shows_the_newer_message_and_sends_only_on_a_second_click(page: Page, served: Served) -> None:
    number = served.do(lambda console: console.ticket("#claim_status one", thread="t"))
    _sign_in(page, served, "li", f"/console/t/{number}")
    page.fill("#text", "my answer")
    page.route("**/live?**", lambda route: route.abort())
    served.do(lambda console: console.world.come_in(message("wait, I was wrong", thread="t")))
    page.click("#send")
    said = page.locator("#composer-said")
    expect(said).to_contain_text("The customer wrote again")
    expect(said).to_contain_text("wait, I was wrong")
    expect(page.locator("#text")).to_have_value("my answer")
    said.get_by_role("button", name="Send anyway").click()
    expect(said).to_contain_text("Reply queued")
    rows = served.do(_answers(number))
    assert rows == ["my answer"]


def _answers(number: str) -> Callable[[Console], Coroutine[Any, Any, list[str]]]:
    async def read(console: Console) -> list[str]:
        ticket_id = ticket_id_of(number)
        assert ticket_id is not None
        rows = await console.world.database.read(lambda connection: tickets.messages(connection, ticket_id))
        return [row.text for row in rows if row.direction == "out" and not row.out_automatic]

    return read


def test_a_draft_outlives_a_reload_and_goes_with_the_session(page: Page, served: Served) -> None:
    number = served.do(lambda console: console.ticket())
    _sign_in(page, served, "li", f"/console/t/{number}")
    page.fill("#text", "typed for long")
    page.click("text=Assign to me")
    expect(page.locator("#status")).to_have_text("Assigned.")
    expect(page.locator("#text")).to_have_value("typed for long")
    page.goto(f"{served.url}/console/me")
    page.click("form[action='/console/signout'] button")
    expect(page.locator("h1")).to_have_text("Sign in")
    assert page.evaluate("Object.keys(sessionStorage).length") == 0


def test_keys_move_focus_and_leave_fields_and_input_methods_alone(page: Page, served: Served) -> None:
    numbers = [served.do(partial(Console.ticket, sender=f"{n}@example.com")) for n in "ab"]
    _sign_in(page, served, "li", "/console/q/claims")
    page.keyboard.press("j")
    expect(page.locator(f"#open-{numbers[0]}")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator(f"#open-{numbers[1]}")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator(f"#open-{numbers[1]}")).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("jk?")
    expect(page.locator("#q")).to_have_value("jk?")
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    page.keyboard.press("o")
    expect(page.locator("article.ticket")).to_be_visible()
    expect(page.locator("article.ticket h1")).to_be_focused()
    page.keyboard.press("n")
    expect(page.locator("#mode-note")).to_be_checked()
    page.keyboard.type("pinyin")
    # While an input method composes, no Enter of any kind sends.
    page.evaluate(
        "document.getElementById('text').dispatchEvent(new KeyboardEvent('keydown',"
        " {key: 'Enter', code: 'Enter', ctrlKey: true, isComposing: true, bubbles: true}))"
    )
    expect(page.locator("#text")).to_have_value("pinyin")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    expect(page).to_have_url(re.compile("/console/q/claims$"))


def test_the_triage_desk_by_keys(page: Page, served: Served) -> None:
    number = served.do(lambda console: console.ticket("#claim_status=0.2 the invoice"))
    _sign_in(page, served, "sun", f"/console/review/{number}")
    page.keyboard.press("q")
    expect(page.locator("input[value=negative]")).to_be_checked()
    page.keyboard.press("3")
    page.keyboard.press("4")
    expect(page.locator("input[value=invoice_request]")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("Labelled")
    page.goto(f"{served.url}/console/t/{number}")
    expect(page.locator(".why summary")).to_contain_text("sun said at the triage desk that it belongs here")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_page_scrolls_sideways(browser: Browser, served: Served, complaints: list[str], language: str) -> None:
    long = "https://example.com/" + "x" * 300
    number = served.do(
        lambda console: console.ticket(
            f"#claim_status=0.3 #legal #self_harm {long}", subject="长" * 200, sender_name="W" * 120
        )
    )
    context = browser.new_context(locale="zh-CN" if language == "zh" else "en-US")
    page = _listened(context.new_page(), complaints)
    _sign_in(page, served, "sun", "/console/q/all")
    for path in (
        "/console/q/all", f"/console/t/{number}?from=q/all", "/console/review", f"/console/review/{number}",
        "/console/intake/health", "/console/me", "/console/intake/quarantine", "/console/intake/mail", "/console/t/S-1",
    ):  # fmt: skip
        page.goto(served.url + path)
        for width in (1440, 1024, 390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("innerWidth") == width
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
    context.close()
    assert complaints == []


def test_everything_works_without_script(browser: Browser, served: Served) -> None:
    number = served.do(lambda console: console.ticket())
    context = browser.new_context(locale="en-US", java_script_enabled=False)
    page = context.new_page()
    _sign_in(page, served, "li", f"/console/t/{number}?from=q/claims")
    page.fill("#text", "by form alone")
    page.click("#send")
    expect(page.locator("#status")).to_contain_text("Reply queued")
    expect(page.locator("#timeline")).to_contain_text("by form alone")
    page.click("summary:has-text('Transfer ticket')")
    page.select_option("form[action$='/transfer'] select", "billing")
    page.fill("form[action$='/transfer'] input[name=reason]", "a payment")
    page.click("form[action$='/transfer'] button")
    expect(page.locator("h1")).to_have_text("Claims")
    context.close()
