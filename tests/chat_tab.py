"""The widget in Chromium as tests use it. Every policy message fails a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import sqlalchemy as sa
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Page, expect

from storage.tables import ChatLine, Message, Ticket, table
from tests.chat_world import ChatWorld

message = table(Message)
ticket = table(Ticket)
chat_line = table(ChatLine)

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
OPEN = "button[aria-haspopup=dialog]"


class Tab:
    """A page with the widget, and all that its console and its network said."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.console: list[str] = []
        self.addresses: list[str] = []
        self.page.on("console", lambda each: self.console.append(f"{each.type}: {each.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", lambda each: self.addresses.append(each.url))
        self.page.on("websocket", lambda each: self.addresses.append(each.url))
        self.page.on("framenavigated", lambda each: self.addresses.append(each.url))

    @property
    def frame(self) -> FrameLocator:
        return self.page.frame_locator("iframe")

    def go(self, address: str) -> FrameLocator:
        self.page.goto(address)
        self.page.locator(OPEN).click()
        expect(self.frame.locator("#status.calm")).to_be_attached(timeout=15_000)
        return self.frame

    def say(self, text: str) -> None:
        self.frame.locator("#text").fill(text)
        self.frame.locator("#text").press("Enter")

    def policy_messages(self) -> list[str]:
        return [each for each in self.console if "Content Security Policy" in each or "Content-Security-Policy" in each]


@contextmanager
def visitor(browser: Browser, *, quiet: bool = True, script: str = "", **settings: Any) -> Iterator[BrowserContext]:
    """A browser profile of its own. `quiet`: neither policy messages nor script errors may come."""
    context = browser.new_context(**{"locale": "zh-CN", **settings})
    context.set_default_timeout(15_000)
    if script:
        context.add_init_script(script)
    said: list[str] = []
    context.on("console", lambda each: said.append(each.text))
    context.on("weberror", lambda each: said.append(f"script error: {each.error}"))
    try:
        yield context
        if quiet:
            bad = [each for each in said if "Content Security Policy" in each or "script error" in each]
            assert bad == []
    finally:
        context.close()


@contextmanager
def site(world_url: Callable[[], str]) -> Iterator[str]:
    """Another site that embeds the widget, under a strict policy of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            chat = world_url()
            head = f'<title>Shop</title><script src="{chat}/widget.js" defer></script>'
            body = f'<!doctype html><html lang="en">{head}<p>Shop'
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html")
            policy = f"default-src 'none'; script-src {chat}; frame-src {chat}"
            self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def only_ticket(world: ChatWorld) -> Any:
    return world.read(lambda connection: connection.execute(sa.select(ticket)).one())


def inbound(world: ChatWorld) -> list[Any]:
    query = sa.select(message).where(message.c.direction == "in").order_by(message.c.id)
    return list(world.read(lambda connection: connection.execute(query).all()))
