"""Mail out: what a reply looks like as a mail, and what becomes of it when the server misbehaves at each step."""

from __future__ import annotations

import asyncio
import email
import email.policy
import smtplib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as SmtpServer
from aiosmtpd.smtp import AuthResult, Envelope
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.mail_settings import MailSettings, SmtpSettings
from channels.smtp import MailSender, compose, message_key, subject_of
from domain import ChannelError, Reply
from tests.mail_servers import MailDrop
from tests.servers import Dovecot, Postfix, free_port

NOW = datetime(2026, 11, 22, 8, 30, tzinfo=UTC)


def mail_settings(server: Any, **smtp: Any) -> MailSettings:
    defaults = {"host": "127.0.0.1", "port": server.port, "tls": "none", "timeout": 20.0}
    return MailSettings(
        enabled=True,
        from_address="service@insurer.test",
        from_name='客服中心, Insurer "24h"',
        smtp=SmtpSettings(**{**defaults, **smtp}),
    )


class NoServer:
    port = 1


def reply(**values: Any) -> Reply:
    return Reply(
        **{"to": "ada@customer.test", "text": "您好\n.\n..dots\n", "key": "sluice.S-1.ab@insurer.test", **values}
    )


def read(content: bytes) -> EmailMessage:
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def text_of(mail: EmailMessage) -> str:
    text: str = mail.get_content()
    return text.replace("\r\n", "\n")


# --- the mail ---------------------------------------------------------------------------------------------------------


def test_a_reply_as_mail() -> None:
    keys = ("first@customer.test", "x" * 120 + "@outlook.test")
    answer = reply(to_name="王小明", subject="回复：理赔进度", ticket_number="S-123456", thread_keys=keys)
    envelope = compose(answer, mail_settings(NoServer), NOW)
    mail = read(envelope.content)
    assert mail["Message-ID"] == "<sluice.S-1.ab@insurer.test>"
    assert mail["In-Reply-To"] == f"<{keys[1]}>"
    assert mail["References"].split() == [f"<{key}>" for key in keys]
    assert mail["Subject"] == "Re: 理赔进度 [S-123456]"
    assert mail["From"].addresses[0].display_name == '客服中心, Insurer "24h"'
    assert mail["From"].addresses[0].addr_spec == "service@insurer.test"
    assert mail["To"].addresses[0].display_name == "王小明"
    assert mail["Date"].datetime == NOW
    assert mail["X-Sluice"] == "1"
    assert mail["Auto-Submitted"] is None
    assert mail["Precedence"] is None
    assert text_of(mail) == "您好\n.\n..dots\n"
    assert (envelope.sender, envelope.recipients) == ("service@insurer.test", ("ada@customer.test",))
    assert b"\n" not in envelope.content.replace(b"\r\n", b"")


def test_the_same_reply_is_the_same_mail_at_every_attempt() -> None:
    answer = reply(subject="x", thread_keys=("a@b",))
    assert compose(answer, mail_settings(NoServer), NOW) == compose(answer, mail_settings(NoServer), NOW)


@pytest.mark.parametrize(
    ("null", "return_path"), [(False, "service@insurer.test"), (True, "")], ids=["bounces come back", "null"]
)
def test_automatic_mail_says_so(null: bool, return_path: str) -> None:
    answer = reply(automatic=True)
    envelope = compose(answer, mail_settings(NoServer, automatic_null_sender=null), NOW)
    mail = read(envelope.content)
    assert mail["Auto-Submitted"] == "auto-replied"
    assert mail["X-Auto-Response-Suppress"] == "All"
    assert envelope.sender == return_path


def test_people_have_a_return_path_of_their_own() -> None:
    answered = compose(reply(), mail_settings(NoServer, envelope_from="bounce@insurer.test"), NOW)
    assert answered.sender == "bounce@insurer.test"
    assert read(answered.content)["From"].addresses[0].addr_spec == "service@insurer.test"


@pytest.mark.parametrize(
    ("subject", "number", "expected"),
    [
        ("理赔", "S-123456", "Re: 理赔 [S-123456]"),
        ("Re: 理赔 [S-123456]", "S-123456", "Re: 理赔 [S-123456]"),
        ("RE: Re: 回复: 答复：理赔", "", "Re: 理赔"),
        ("Re[2]: [S-123456] claim", "S-123456", "Re: claim [S-123456]"),
        ("", "S-123456", "Re: [S-123456]"),
        ("a\r\nBcc: x@y", "", "Re: a Bcc: x@y"),
        ("Regarding my claim", "", "Re: Regarding my claim"),
    ],
)
def test_subject(subject: str, number: str, expected: str) -> None:
    assert subject_of(subject, number) == expected
    assert subject_of(expected, number) == expected


def test_message_keys_are_unique() -> None:
    keys = {message_key("S-123456", "insurer.test") for _ in range(1000)}
    assert len(keys) == 1000
    assert all(key.startswith("sluice.S-123456.") and key.endswith("@insurer.test") for key in keys)


@pytest.mark.parametrize(
    "to", ["", "nobody", "a b@c", "@x.test", "a@", "a@x\r\nBcc: y@z", "a@" + "x" * 70 + ".test\u3002"]
)
def test_no_address_is_final(to: str) -> None:
    with pytest.raises(ChannelError) as error:
        compose(reply(to=to), mail_settings(NoServer), NOW)
    assert error.value.permanent


def test_domains_are_spelled_as_in_the_dns() -> None:
    assert compose(reply(to="a@例子.test"), mail_settings(NoServer), NOW).recipients == ("a@xn--fsqu00a.test",)


@settings(max_examples=150, deadline=None)
@given(subject=st.text(max_size=300), name=st.text(max_size=150), text=st.text(max_size=500))
def test_whatever_people_write_makes_one_readable_mail(subject: str, name: str, text: str) -> None:
    envelope = compose(reply(subject=subject, to_name=name, text=text), mail_settings(NoServer), NOW)
    mail = read(envelope.content)
    assert mail.keys() == [
        "Message-ID", "From", "To", "Subject", "Date", "X-Sluice",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    ]  # fmt: skip
    assert [address.addr_spec for address in mail["To"].addresses] == ["ada@customer.test"]
    assert b"\n" not in envelope.content.replace(b"\r\n", b"")


# --- the server -------------------------------------------------------------------------------------------------------


class Script:
    """What the server does at each step. Counts what it was handed."""

    def __init__(self) -> None:
        self.mail = self.rcpt = self.data = "250 OK"
        self.refused: tuple[str, ...] = ()
        self.drop_at = ""
        self.hang_at = ""
        self.received: list[Envelope] = []
        self.sessions: set[int] = set()
        self.release = asyncio.Event()

    async def step(self, name: str, server: Any) -> None:
        if self.drop_at == name:
            server.transport.abort()
        if self.hang_at == name:
            await self.release.wait()

    async def handle_MAIL(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:
        self.sessions.add(id(session))
        await self.step("mail", server)
        if self.mail.startswith("2"):
            envelope.mail_from = address
        return self.mail

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: Any) -> str:
        await self.step("rcpt", server)
        if address in self.refused:
            return "550 5.1.1 no such user"
        if self.rcpt.startswith("2"):
            envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if self.data.startswith("2"):
            self.received.append(envelope)
        await self.step("text", server)
        return self.data


class _Scripted(SmtpServer):
    async def smtp_DATA(self, arg: str) -> None:
        script = self.event_handler
        await script.step("data", self)
        if script.drop_at != "data":
            await super().smtp_DATA(arg)


class _Controller(Controller):
    def factory(self) -> SmtpServer:
        return _Scripted(self.handler, **self.SMTP_kwargs)


@contextmanager
def scripted(**options: Any) -> Iterator[Any]:
    """(script, server)"""
    script = Script()
    controller = _Controller(script, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield script, controller
    finally:
        controller.loop.call_soon_threadsafe(script.release.set)
        controller.stop()


async def outcome(sender: MailSender, answer: Reply) -> ChannelError:
    with pytest.raises(ChannelError) as error:
        await sender.send(answer)
    return error.value


async def test_sent_as_written() -> None:
    with scripted() as (script, server):
        sender = MailSender(mail_settings(server))
        receipt = await sender.send(reply())
        await sender.close()
    [envelope] = script.received
    assert text_of(read(envelope.original_content)) == "您好\n.\n..dots\n"
    assert (envelope.mail_from, envelope.rcpt_tos) == ("service@insurer.test", ["ada@customer.test"])
    assert receipt.provider_id == "OK"
    assert not receipt.delivered


async def test_null_return_path_is_taken() -> None:
    with scripted() as (script, server):
        sender = MailSender(mail_settings(server, automatic_null_sender=True))
        await sender.send(reply(automatic=True))
        await sender.close()
    assert script.received[0].mail_from == "<>"


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
@pytest.mark.parametrize(
    ("code", "permanent"), [("450 4.2.1 later", False), ("550 5.1.1 no", True), ("551 5.7 no", True)]
)
async def test_an_answer_is_final_or_not(step: str, code: str, permanent: bool) -> None:
    with scripted() as (script, server):
        setattr(script, step, code)
        sender = MailSender(mail_settings(server))
        error = await outcome(sender, reply())
        assert (error.permanent, error.retry_after is None, error.unknown) == (permanent, permanent, False)
        assert code[:3] in str(error)
        setattr(script, step, "250 OK")
        await sender.send(reply())  # on the same connection
        await sender.close()
    assert len(script.received) == 1
    assert len(script.sessions) == 1


async def test_one_refused_recipient_stops_the_mail_for_all() -> None:
    with scripted() as (script, server):
        script.refused = ("b@customer.test",)
        sender = MailSender(mail_settings(server))
        error = await outcome(sender, reply(to="a@customer.test, b@customer.test"))
        await sender.close()
    assert error.permanent
    assert script.received == []


@pytest.mark.parametrize(("step", "unknown"), [("mail", False), ("rcpt", False), ("data", False), ("text", True)])
@pytest.mark.parametrize("way", ["drop_at", "hang_at"])
async def test_unknown_only_after_the_text_was_handed_over(way: str, step: str, unknown: bool) -> None:
    with scripted() as (script, server):
        setattr(script, way, step)
        sender = MailSender(mail_settings(server, timeout=0.5 if way == "hang_at" else 20.0))
        error = await outcome(sender, reply())
        assert (error.unknown, error.permanent, error.retry_after is not None) == (unknown, False, not unknown)
        assert len(script.received) == int(unknown)  # it did take it: never call that a failure
        setattr(script, way, "")
        await sender.send(reply())  # the sender is not stuck
        await sender.close()


async def test_cancelled_in_the_middle_leaves_a_clean_sender() -> None:
    with scripted() as (script, server):
        script.hang_at = "text"
        sender = MailSender(mail_settings(server, connections=1))
        sending = asyncio.create_task(sender.send(reply()))
        while not script.received:
            await asyncio.sleep(0.01)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        script.hang_at = ""
        await sender.send(reply(text="second"))
        await sender.close()
    assert text_of(read(script.received[-1].original_content)) == "second\n"


async def test_connections_are_kept_and_replaced() -> None:
    with scripted() as (script, server):
        sender = MailSender(mail_settings(server, connections=1))
        for _ in range(5):
            await sender.send(reply())
        assert len(script.sessions) == 1
        port = server.port
    with pytest.raises(ChannelError) as gone:
        await sender.send(reply())
    assert gone.value.retry_after
    with scripted() as (script, server):
        sender._settings.smtp.port = server.port  # type: ignore[union-attr]
        await sender.send(reply())
        await sender.close()
    assert port


async def test_a_connection_that_the_server_closed_is_replaced_without_a_word() -> None:
    with scripted() as (script, server):
        sender = MailSender(mail_settings(server, connections=1))
        await sender.send(reply())
        line = sender._lines.get_nowait()
        sender._lines.put_nowait(line)
        client = line.client
        assert client is not None
        script.drop_at = "mail"
        client.mail = _undrop(script, client.mail)  # type: ignore[method-assign]
        await sender.send(reply())
        await sender.close()
    assert len(script.received) == 2


def _undrop(script: Script, mail: Callable[..., Any]) -> Callable[..., Any]:
    """The kept connection is dropped at MAIL; the new one is not."""

    async def once(*args: Any, **options: Any) -> Any:
        try:
            return await mail(*args, **options)
        finally:
            script.drop_at = ""

    return once


async def test_no_server() -> None:
    sender = MailSender(mail_settings(NoServer))
    error = await outcome(sender, reply())
    assert error.retry_after
    assert not error.permanent
    assert not error.unknown
    health = await sender.check()
    assert not health.ok


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=data.login == b"service" and data.password == b"right", handled=False)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_login() -> None:
    with scripted(authenticator=authenticate, auth_required=True, auth_require_tls=False) as (script, server):
        wrong = MailSender(mail_settings(server, user="service", password="wrong"))
        error = await outcome(wrong, reply())
        assert error.retry_after is not None
        assert error.retry_after >= 60  # nobody hammers a login
        health = await wrong.check()
        assert not health.ok
        assert "login refused" in health.detail
        right = MailSender(mail_settings(server, user="service", password="right"))
        assert (await right.check()).ok
        await right.send(reply())
        await right.close()
    assert len(script.received) == 1


async def test_an_address_beyond_ascii_needs_smtputf8() -> None:
    with scripted(enable_SMTPUTF8=False) as (script, server):
        sender = MailSender(mail_settings(server))
        assert (await outcome(sender, reply(to="张@customer.test"))).permanent
        await sender.close()
    with scripted(enable_SMTPUTF8=True) as (script, server):
        sender = MailSender(mail_settings(server))
        await sender.send(reply(to="张@customer.test"))
        await sender.close()
    assert script.received[0].rcpt_tos == ["张@customer.test"]


async def test_starttls_with_an_own_authority(postfix: Postfix | MailDrop) -> None:
    if isinstance(postfix, MailDrop):
        pytest.skip("the stand-in for Postfix has no TLS")
    untrusting = MailSender(mail_settings(postfix, tls="starttls"))
    assert "certificate" in (await untrusting.check()).detail.lower()
    trusting = MailSender(mail_settings(postfix, tls="starttls", ca_file=postfix.dir / "etc" / "cert.pem"))
    health = await trusting.check()
    assert health.ok, health.detail


async def test_through_postfix_into_the_mailbox(dovecot: Dovecot, postfix: Postfix | MailDrop) -> None:
    sender = MailSender(mail_settings(postfix))
    await sender.send(reply(to="smtp+tag@customer.test", key="through@insurer.test"))
    await sender.close()
    [raw] = await asyncio.to_thread(dovecot.wait_for_mail, "smtp@customer.test")
    mail = read(raw)
    assert mail["Message-ID"] == "<through@insurer.test>"
    assert mail["Delivered-To"] == "smtp+tag@customer.test"
    assert text_of(mail) == "您好\n.\n..dots\n"


def test_postfix_bounces(dovecot: Dovecot, postfix: Postfix | MailDrop) -> None:
    if isinstance(postfix, MailDrop):
        pytest.skip("the stand-in for Postfix refuses at once")
    with smtplib.SMTP(postfix.host, postfix.port) as client:
        client.sendmail(
            "bounced@insurer.test", ["nosuch@customer.test"], b"Message-ID: <out@insurer.test>\r\n\r\nhello\r\n"
        )
    [raw] = dovecot.wait_for_mail("bounced@insurer.test")
    bounce = read(raw)
    assert bounce.get_content_type() == "multipart/report"
    assert b"5.1.1" in bounce.as_bytes()
    assert b"<out@insurer.test>" in bounce.as_bytes()


@pytest.mark.parametrize(("step", "unknown"), [("mail", False), ("data", False), ("text", True)])
async def test_the_callers_deadline_is_unknown_only_after_the_text_was_handed_over(step: str, unknown: bool) -> None:
    """A server that hangs must make answers late, not lost: delivery never repeats an automatic `unknown`."""
    with scripted() as (script, server):
        script.hang_at = step
        sender = MailSender(mail_settings(server, connections=1))
        expected: type[Exception] = TimeoutError if unknown else ChannelError
        with pytest.raises(expected) as caught:
            async with asyncio.timeout(0.5):
                await sender.send(reply())
        if isinstance(caught.value, ChannelError):
            assert (caught.value.unknown, caught.value.retry_after is not None) == (False, True)
        script.hang_at = ""
        await sender.send(reply())
        await sender.close()
