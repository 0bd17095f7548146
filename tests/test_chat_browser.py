"""The widget in Chromium, on our own page and on another site's: lines there and back, and the end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Error, expect, sync_playwright

from storage import messages
from tests.chat_tab import OPEN, PNG, Tab, chat_line, inbound, only_ticket, site, visitor
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


# --- the way there and back -------------------------------------------------------------------------------------------


def test_on_another_site_a_line_becomes_a_ticket_and_the_answer_is_text(browser: Browser, tmp_path: Path) -> None:
    url = ""
    with site(lambda: url) as shop, ChatWorld(tmp_path, settings=ChatSettings(origins=[shop])) as world:
        url = world.url
        with visitor(browser) as context:
            tab = Tab(context)
            frame = tab.go(shop)
            expect(frame.locator("html")).to_have_attribute("lang", "en")
            tab.say("My claim <img src=x onerror=alert(1)>")
            expect(frame.locator("#log .from-visitor .bubble")).to_have_text("My claim <img src=x onerror=alert(1)>")
            expect(frame.locator("#log .from-bot")).to_contain_text("S-")
            expect(frame.locator("#pending li")).to_have_count(0)
            expect(frame.locator("#about")).to_contain_text("Claims")
            row = only_ticket(world)
            world.reply(row.id, "<b>Soon</b>, see https://example.com/a?b=1.")
            answer = frame.locator("#log .from-agent .bubble")
            expect(answer).to_have_text("<b>Soon</b>, see https://example.com/a?b=1.")
            expect(answer.locator("b")).to_have_count(0)
            link = answer.locator("a")
            expect(link).to_have_attribute("href", "https://example.com/a?b=1")
            expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
            expect(frame.locator("#log img")).to_have_count(0)
            assert len(tab.addresses) > 5
            assert not any("eyJ" in each or row.address in each for each in tab.addresses)
            # Chromium gives this frame no storage of its own: the token was handed to the site, and comes back.
            with pytest.raises(Error, match="Access is denied"):
                frame.locator("body").evaluate("() => localStorage.length")
            tab.go(shop)
            expect(frame.locator("#log .from-agent .bubble")).to_be_visible()
            tab.say("My claim, still me")
            expect(frame.locator("#log .from-visitor")).to_have_count(2)
            assert {each.address for each in inbound(world)} == {row.address}


def test_site_that_is_not_allowed_gets_no_frame(browser: Browser, world: ChatWorld) -> None:
    with site(lambda: world.url) as shop, visitor(browser, quiet=False) as context:
        tab = Tab(context)
        tab.page.goto(shop)
        with tab.page.expect_console_message(lambda each: "frame-ancestors" in each.text):
            tab.page.locator(OPEN).click()
    assert inbound(world) == []


def test_before_the_first_click_there_is_the_button_alone(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        tab.page.goto(f"{world.url}/chat?lang=zh")
        expect(tab.page.locator(OPEN)).to_be_visible()
        assert not any("/chat/frame" in each or "/chat/ws" in each for each in tab.addresses)


def test_two_tabs_and_a_reload_are_one_conversation(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        left, right = Tab(context), Tab(context)
        left.go(f"{world.url}/chat?lang=zh")
        right.go(f"{world.url}/chat?lang=zh")
        left.say("理赔，左边")
        expect(right.frame.locator("#log .from-visitor .bubble")).to_have_text("理赔，左边")
        right.say("理赔，右边")
        expect(left.frame.locator("#log .from-visitor")).to_have_count(2)
        left.frame.locator("#text").fill("还没写完")
        left.go(f"{world.url}/chat?lang=zh")
        expect(left.frame.locator("#log .from-visitor")).to_have_count(2)
        expect(left.frame.locator("#text")).to_have_value("还没写完")
    assert len({each.address for each in inbound(world)}) == 1


def test_restart_keeps_what_was_typed_and_stores_it_once(browser: Browser, tmp_path: Path) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        with ChatWorld(tmp_path) as first:
            frame = tab.go(f"{first.url}/chat?lang=zh")
            tab.say("理赔，第一句")
            expect(frame.locator("#log .from-bot")).to_be_visible()
            port = first.port
        expect(frame.locator("#status")).to_contain_text("重新连接")
        tab.say("理赔，第二句")
        expect(frame.locator("#pending .state")).to_have_text("发送中")
        with ChatWorld(tmp_path, port=port) as second:
            expect(frame.locator("#log .from-visitor .bubble").nth(1)).to_have_text("理赔，第二句", timeout=40_000)
            expect(frame.locator("#pending li")).to_have_count(0)
            expect(frame.locator("#status.calm")).to_be_attached()
            assert [each.text for each in inbound(second)] == ["理赔，第一句", "理赔，第二句"]


def test_comes_back_at_once_when_the_network_does(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        context.set_offline(True)
        expect(frame.locator("#status")).not_to_have_class("status calm")
        tab.say("理赔，离线时写的")
        context.set_offline(False)
        expect(frame.locator("#log .from-visitor .bubble")).to_have_text("理赔，离线时写的")
    assert len(inbound(world)) == 1


def test_lost_acknowledgement_is_resent_and_stored_once(browser: Browser, world: ChatWorld) -> None:
    lose = """(() => {
      const Real = WebSocket;
      let lost = false;
      window.WebSocket = class extends Real {
        set onmessage(take) {
          super.onmessage = (event) => {
            const type = JSON.parse(event.data).type;
            if (!lost && (type === "ack" || type === "lines")) { lost = true; this.close(); return; }
            if (lost !== "over" && this.readyState !== 1) return;
            take(event);
          };
        }
      };
    })()"""
    with visitor(browser, script=lose) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        tab.say("理赔，确认丢了")
        expect(frame.locator("#log .from-visitor .bubble")).to_have_text("理赔，确认丢了")
        expect(frame.locator("#pending li")).to_have_count(0)
    assert len(inbound(world)) == 1


def test_missed_lines_are_noticed_and_fetched(browser: Browser, world: ChatWorld) -> None:
    lose = """(() => {
      const Real = WebSocket;
      window.WebSocket = class extends Real {
        set onmessage(take) {
          super.onmessage = (event) => {
            const frame = JSON.parse(event.data);
            const drop = frame.type === "lines" && frame.after === 0 && !window.dropped;
            if (drop) window.dropped = true;
            else take(event);
          };
        }
      };
    })()"""
    with visitor(browser, script=lose) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        tab.say("理赔，丢了一帧")
        expect(frame.locator("#log .from-bot")).to_be_visible()
        world.reply(only_ticket(world).id, "第三条")
        expect(frame.locator("#log li")).to_have_count(3)
        order = frame.locator("#log li").evaluate_all("nodes => nodes.map((node) => node.dataset.seq)")
        assert order == ["1", "2", "3"]


# --- files, contact, the end ------------------------------------------------------------------------------------------


def test_files(browser: Browser, tmp_path: Path) -> None:
    settings = ChatSettings(upload_most=1_000_000)
    with ChatWorld(tmp_path, settings=settings) as world, visitor(browser) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        tab.say("理赔资料")
        expect(frame.locator("#log .from-bot")).to_be_visible()

        def choose(name: str, content: bytes) -> None:
            frame.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})

        choose("照片.png", PNG)
        expect(frame.locator("#log .from-visitor .bubble").nth(1)).to_have_text("文件：照片.png")
        choose("网页.png", b"<html>")
        expect(frame.locator("#pending .failed")).to_contain_text("不支持这种文件")
        frame.get_by_role("button", name="删除").click()
        choose("大.png", PNG + b"\0" * 1_000_000)
        expect(frame.locator("#pending .failed")).to_contain_text("文件太大，最多 1 MB")
        frame.get_by_role("button", name="删除").click()
        # The line breaks, the file stays, and goes through when asked again.
        context.route("**/chat/upload*", lambda route: route.abort())
        choose("再来.png", PNG)
        expect(frame.locator("#pending .failed")).to_contain_text("上传中断，文件还在这里")
        context.unroute("**/chat/upload*")
        frame.get_by_role("button", name="重试").click()
        expect(frame.locator("#log .from-visitor .bubble").nth(2)).to_have_text("文件：再来.png")
        expect(frame.locator("#pending li")).to_have_count(0)
        ids = [each.id for each in inbound(world)]
        files = world.read(lambda connection: messages.attachments(connection, ids))
        assert [each.name for each in files] == ["照片.png", "再来.png"]


def test_contact_when_nobody_answers(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        tab.page.clock.install()
        frame = tab.go(f"{world.url}/chat?lang=zh")
        tab.say("理赔没人回")
        expect(frame.locator("#log .from-bot")).to_be_visible()
        expect(frame.locator("#contact_form")).to_be_hidden()
        tab.page.clock.fast_forward(91_000)
        expect(frame.locator("#contact_why")).to_contain_text("暂时没有人接待")
        frame.locator("#contact").fill("不是地址")
        frame.locator("#contact").press("Enter")
        expect(frame.locator("#contact_error")).to_have_text("请填写电子邮箱或电话号码。")
        frame.locator("#contact").fill("wang@example.cn")
        frame.locator("#contact").press("Enter")
        expect(frame.locator("#contact_form")).to_be_hidden()
        expect(frame.locator("#log .from-visitor .bubble").nth(1)).to_have_text("我的联系方式：wang@example.cn")
    only_ticket(world)


def test_end_then_forget_leaves_nothing_on_the_device(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser) as context:
        tab = Tab(context)
        frame = tab.go(f"{world.url}/chat?lang=zh")
        tab.say("理赔，公用电脑")
        expect(frame.locator("#log .from-bot")).to_be_visible()
        frame.locator("#more").click()
        frame.locator("#end").click()
        expect(frame.locator("#ended_text")).to_have_text("聊天已结束。")
        token = only_ticket(world).token
        expect(frame.locator("#ended_track")).to_have_attribute("href", f"{world.url}/t/{token}")
        expect(frame.locator("#log li")).to_have_count(0)
        frame.locator("#forget_ended").click()
        expect(frame.locator("#ended_text")).to_have_text("这台设备上已没有您的聊天记录。")
        expect(frame.locator("#ended_track")).to_be_hidden()
        everything = "() => JSON.stringify([{...localStorage}, {...sessionStorage}])"
        assert tab.page.evaluate(everything) == "[{},{}]"
        frame.locator("#again").click()
        expect(frame.locator("#status.calm")).to_be_attached()
        tab.say("理赔，另一个人")
        expect(frame.locator("#log .from-visitor")).to_have_count(1)
    assert len({each.address for each in inbound(world)}) == 2


def test_form_without_script(browser: Browser, world: ChatWorld) -> None:
    with visitor(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{world.url}/chat?lang=zh")
        page.get_by_label("您的消息").fill("理赔，没有脚本")
        page.get_by_role("button", name="发送").click()
        expect(page.locator(".from-visitor .bubble")).to_have_text("理赔，没有脚本")
        page.get_by_role("link", name="刷新看答复").click()
        world.run(_drained(world))
        page.reload()
        expect(page.locator(".from-bot .bubble")).to_contain_text("S-")
        assert "eyJ" not in page.url


async def _drained(world: ChatWorld) -> None:
    """The bot's answer is numbered."""
    while world.read(lambda connection: connection.scalar(sa.select(sa.func.max(chat_line.c.seq)))) != 2:
        await asyncio.sleep(0.02)
