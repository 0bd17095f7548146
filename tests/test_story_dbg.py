"""The story from end to end: customers write by mail and in the chat, an agent answers, and the answers reach them."""

from __future__ import annotations

import email
import email.policy
import shutil
import smtplib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, expect, sync_playwright

from tests.processes import Deployment, mail_settings, until
from tests.servers import Dovecot, MailDrop, Postfix, free_port

PASSWORD = "a story's password"
PATIENCE = 30_000  # ms that a browser waits for what other processes do


@dataclass
class World:
    deployment: Deployment
    url: str
    service: str
    customer: str


@contextmanager
def world(folder: Path, dovecot: Dovecot, postfix: Postfix | MailDrop, name: str, **servers: str) -> Iterator[World]:
    """Sluice with mail and chat: all in one process, or every role apart where servers are given."""
    service, customer = f"service@{name}.test", f"ada@customer-of-{name}.test"
    port = free_port()
    deployment = Deployment(
        folder,
        {
            "SLUICE_WEB__PORT": str(port),
            "SLUICE_WEB__PUBLIC_URL": f"http://127.0.0.1:{port}",
            # The story shall not depend on what the trained model's certificate covers.
            "SLUICE_ROUTING__THRESHOLD": "0.5",
            **servers,
            **mail_settings(dovecot, postfix.port, service),
        },
    )
    deployment.command("migrate")
    deployment.user("mei", "agent", PASSWORD, "digital_support", "billing")
    dovecot.deliver(service)  # the mailbox exists
    with ExitStack() as stack:
        if servers:
            for roles in (["worker"], ["worker"], ["listen"], ["clock"]):
                stack.enter_context(deployment.process(*roles))
            web = stack.enter_context(deployment.process("web"))
        else:
            web = stack.enter_context(deployment.process())
        yield World(deployment, web.url, service, customer)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "Chromium is not installed: run scripts/servers.sh"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield launched
        launched.close()


@contextmanager
def person(browser: Browser, locale: str) -> Iterator[BrowserContext]:
    """Somebody's own browser profile. A message of the content security policy, or a script's error, fails the test."""
    complaints: list[str] = []

    def heard(said: ConsoleMessage) -> None:
        if "Content Security Policy" in said.text:
            complaints.append(said.text)

    def failed(error: WebError) -> None:
        complaints.append(str(error.error))

    context = browser.new_context(locale=locale, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.on("console", heard)
    context.on("weberror", failed)
    yield context
    context.close()
    assert complaints == []


def read(raw: bytes) -> EmailMessage:
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def send_mail(world: World, postfix: Postfix | MailDrop) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = f"Ada Stone <{world.customer}>"
    mail["To"] = world.service
    mail["Subject"] = "Cannot log in"
    mail["Message-ID"] = f"<first@{world.customer.rpartition('@')[2]}>"
    mail.set_content("Hello,\n\nI forgot my password and cannot log in to my account.\n\nAda\n")
    with smtplib.SMTP("127.0.0.1", postfix.port) as smtp:
        smtp.send_message(mail)
    return mail


def write_in_chat(page: Page, world: World, text: str) -> None:
    page.goto(f"{world.url}/chat")
    page.locator("button[aria-haspopup=dialog]").click()
    frame = page.frame_locator("iframe")
    expect(frame.locator("#status.calm")).to_be_attached(timeout=PATIENCE)
    frame.locator("#text").press_sequentially(text)
    frame.locator("#text").press("Enter")


def sign_in(page: Page, world: World) -> None:
    page.goto(f"{world.url}/console/signin")
    page.fill("[name=name]", "mei")
    page.fill("[name=password]", PASSWORD)
    page.click("button.first")
    expect(page.locator("nav.rail")).to_be_visible()


def answer(page: Page, world: World, department: str, words: str, text: str) -> str:
    """Find the message in its department's queue, answer it, and see it leave; the ticket's number."""
    page.goto(f"{world.url}/console/q/{department}")
    row = page.locator(".rows .row", has_text=words)
    row.locator("a").click()
    expect(page.locator("article.ticket")).to_have_attribute("data-department", department)
    number = page.locator("article.ticket").get_attribute("data-ticket")
    assert number is not None
    page.fill("#composer #text", text)
    with page.expect_response(lambda answer: answer.url.endswith("/say")) as said:
        page.click("#send")
    assert said.value.ok
    gone = page.locator("#timeline .msg.out", has_text=text).locator(".out.sent, .out.delivered")

    def shown() -> bool:
        page.reload()
        return gone.is_visible()

    try:
        until(shown, "the answer is shown as sent", 20)
    except AssertionError:
        print(page.locator("#timeline").inner_html()); print(*[r for r in world.deployment.export("messages")], sep="\n"); print(*world.deployment.export("events"), sep="\n")
        raise
    return number


def tell(world: World, browser: Browser, dovecot: Dovecot, postfix: Postfix | MailDrop) -> None:
    asked = send_mail(world, postfix)
    with person(browser, "zh-CN") as visitor, person(browser, "en-US") as agent:
        chat = visitor.new_page()
        write_in_chat(chat, world, "我要开具去年的保费发票。")
        talk = chat.frame_locator("iframe")
        # Both customers hear their ticket's number at once.
        receipt = talk.locator(".line.from-bot")
        expect(receipt).to_contain_text("S-", timeout=PATIENCE)
        [first] = dovecot.wait_for_mail(world.customer, 1)

        console = agent.new_page()
        sign_in(console, world)
        by_mail = answer(console, world, "digital_support", "I forgot my password", "Ada, we have sent you a new link.")
        by_chat = answer(console, world, "billing", "保费发票", "您好，发票已经寄出，三天内到。")

        # The answers arrive where the questions came from.
        expect(talk.locator(".line.from-agent .bubble")).to_have_text("您好，发票已经寄出，三天内到。")
        expect(receipt).to_contain_text(by_chat)
        expect(talk.locator(".line.from-visitor .bubble")).to_have_text("我要开具去年的保费发票。")
        _first, second = map(read, dovecot.wait_for_mail(world.customer, 2))
        assert by_mail in str(read(first)["Subject"])
        assert read(first)["Auto-Submitted"] == "auto-replied"
        assert second.get_content().strip() == "Ada, we have sent you a new link."
        assert second["Auto-Submitted"] is None
        assert second["In-Reply-To"] == asked["Message-ID"]
        assert second["Subject"] == f"Re: Cannot log in [{by_mail}]"

    rows = world.deployment.export("tickets")
    assert {(each["number"], each["channel"], each["department"], each["state"]) for each in rows} == {
        (by_mail, "mail", "digital_support", "open"),
        (by_chat, "chat", "billing", "open"),
    }
    outgoing = [each for each in world.deployment.export("messages") if each["direction"] == "out"]
    assert len(outgoing) == 4
    assert {each["state"] for each in outgoing} <= {"sent", "delivered"}


def test_one_process(tmp_path: Path, browser: Browser, dovecot: Dovecot, postfix: Postfix | MailDrop) -> None:
    with world(tmp_path, dovecot, postfix, "one") as made:
        tell(made, browser, dovecot, postfix)


def test_roles_apart(
    tmp_path: Path,
    browser: Browser,
    dovecot: Dovecot,
    postfix: Postfix | MailDrop,
    postgres_url: str,
    redis_url: str,
) -> None:
    servers = {"SLUICE_DATABASE__URL": postgres_url, "SLUICE_QUEUE__URL": redis_url}
    with world(tmp_path, dovecot, postfix, "apart", **servers) as made:
        tell(made, browser, dovecot, postfix)
