"""The widget in Chromium under hands and for ears: IME, keyboard, phone, limits, blocked storage."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.chat_tab import Tab, inbound, only_ticket, visitor
from tests.chat_world import ChatWorld
from web.settings import ChatSettings


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ChatWorld]:
    with ChatWorld(tmp_path) as made:
        yield made


# --- hands and senses -------------------------------------------------------------------------------------------------


def test_enter_that_chooses_a_word_does_not_send(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        tab.page.goto(f"{world.url}/chat/frame?lang=zh")
        page = tab.page
        expect(page.locator("#status.calm")).to_be_attached()
        page.locator("#text").focus()
        ime = context.new_cdp_session(page)
        ime.send("Input.imeSetComposition", {"text": "lipei", "selectionStart": 5, "selectionEnd": 5})
        page.keyboard.press("Enter")
        expect(page.locator("#pending li, #log li")).to_have_count(0)
        ime.send("Input.insertText", {"text": "理赔"})
        # Safari's order: the composition is over, and then comes the Enter, marked 229.
        page.locator("#text").evaluate(
            "node => node.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: 229, bubbles: true}))"
        )
        expect(page.locator("#pending li, #log li")).to_have_count(0)
        expect(page.locator("#text")).to_have_value(re.compile(r"^理赔\s*$"))
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Enter")
        expect(page.locator("#log .from-visitor .bubble")).to_have_text("理赔")


def test_keyboard_alone_and_names_for_the_ear(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        page = tab.page
        page.goto(f"{world.url}/chat?lang=en")
        opener = page.get_by_role("button", name="Chat")
        opener.focus()
        page.keyboard.press("Enter")
        frame = tab.frame
        expect(frame.get_by_role("textbox", name="Your message")).to_be_focused()
        log = frame.get_by_role("log", name="Conversation")
        expect(log).to_have_attribute("aria-live", "polite")
        page.keyboard.type("claim, typed")
        page.keyboard.press("Enter")
        expect(log.locator(".from-bot")).to_be_visible()
        expect(frame.get_by_role("textbox", name="Your message")).to_be_focused()
        for name in ("More", "Close chat", "Send"):
            expect(frame.get_by_role("button", name=name)).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("iframe")).to_be_hidden()
        expect(opener).to_be_focused()
        world.reply(only_ticket(world).id, "while you were away")
        expect(page.get_by_role("button", name="Chat, 1 unread")).to_be_visible()
        page.reload()  # a page later the count is still there, without a click
        expect(page.get_by_role("button", name="Chat, 1 unread")).to_be_visible()
        page.get_by_role("button", name="Chat, 1 unread").click()
        expect(frame.locator(".from-agent")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Chat", exact=True)).to_be_visible()


def test_phone(browser: Browser, world: ChatWorld) -> None:
    phone: dict[str, Any] = {
        "viewport": {"width": 390, "height": 664},
        "device_scale_factor": 3,
        "is_mobile": True,
        "has_touch": True,
    }
    with visitor(browser, **phone) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        assert tab.page.locator("iframe").bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 664}
        for field in ("#text", "#contact"):
            size = frame.locator(field).evaluate("node => parseFloat(getComputedStyle(node).fontSize)")
            assert size >= 16
        for control in ("#send", "#more", "#close", "label[for=file]"):
            box = frame.locator(control).bounding_box()
            assert box is not None
            assert min(box["width"], box["height"]) >= 44
        composer = frame.locator("#composer").bounding_box()
        assert composer is not None
        assert composer["y"] + composer["height"] <= 664
        assert frame.locator("html").evaluate("node => node.scrollWidth") <= 390
        tab.page.set_viewport_size({"width": 390, "height": 360})  # the keyboard is up
        composer = frame.locator("#composer").bounding_box()
        assert composer is not None
        assert composer["y"] + composer["height"] <= 360


def test_length_is_counted_and_limited(browser: Browser, tmp_path: Path) -> None:
    with ChatWorld(tmp_path, settings=ChatSettings(longest=20)) as world, visitor(browser) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        frame.locator("#text").fill("😀" * 18)
        expect(frame.locator("#counter")).to_have_text("还可输入 2 个字符")
        tab.say("理" * 21)
        expect(frame.locator("#counter")).to_have_text("超出 1 个字符")
        expect(frame.locator("#send")).to_be_disabled()
        assert inbound(world) == []


def test_typing_is_throttled(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        sent: list[str] = []
        tab.page.on("websocket", lambda line: line.on("framesent", lambda data: sent.append(str(data))))
        frame = tab.go(f"{world.url}/chat?lang=zh")
        frame.locator("#text").press_sequentially("claim claim")
        tab.say("理赔")
        expect(frame.locator("#log .from-bot")).to_be_visible()
        assert sum('"typing"' in each for each in sent) in (1, 2)  # 12 keys


def test_works_where_storage_is_blocked(browser: Browser, world: ChatWorld) -> None:
    blocked = """for (const name of ["localStorage", "sessionStorage"])
      Object.defineProperty(window, name, {get() { throw new DOMException("blocked", "SecurityError"); }});"""
    with visitor(browser, script=blocked) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        tab.say("理赔")
        expect(frame.locator("#log .from-bot")).to_be_visible()
        context.set_offline(True)
        expect(frame.locator("#status")).not_to_have_class("status calm")
        context.set_offline(False)
        expect(frame.locator("#status.calm")).to_be_attached()
        tab.say("理赔，还是我")
        expect(frame.locator("#log .from-visitor")).to_have_count(2)
    assert len({each.address for each in inbound(world)}) == 1
