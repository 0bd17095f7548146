"""Mail that no person wrote: every kind, and what only looks like it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from channels.mail_parse import parse
from domain import Automatic, AutomaticKind, Message

NOW = datetime(2024, 3, 5, 10, 22, tzinfo=UTC)
OURS = "sluice.17.abc@insurer.example"


def mail(headers: str, body: str = "我的理赔还没有到账。") -> Message:
    """A mail with these headers; From, To and Subject are given where missing."""
    lower = headers.lower()
    for name, value in (
        ("From", "Zhang <zhang@example.com>"),
        ("To", "support@insurer.example"),
        ("Subject", "理赔"),
        ("Content-Type", "text/plain; charset=utf-8"),
    ):
        if f"{name.lower()}:" not in lower:
            headers += f"\n{name}: {value}"
    return parse(f"{headers.strip()}\n\n{body}\n".encode(), received_at=NOW, own_domains=("insurer.example",))


def automatic(message: Message) -> Automatic:
    assert message.automatic is not None
    assert not message.answerable
    return message.automatic


REPORT = f"""\
Return-Path: <>
From: MAILER-DAEMON@mx.example.com (Mail Delivery System)
To: support@insurer.example
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b1"
Message-Id: <dsn1@mx.example.com>

--b1
Content-Type: text/plain; charset=us-ascii

I'm sorry to have to inform you that your message could not be delivered.

--b1
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com
Arrival-Date: Tue, 5 Mar 2024 10:22:11 +0800 (CST)

Final-Recipient: rfc822; Nobody@Example.com
Original-Recipient: rfc822;nobody@example.com
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.com
Diagnostic-Code: smtp; 550 5.1.1 User unknown

--b1
Content-Type: message/rfc822

Return-Path: <support@insurer.example>
Message-ID: <{OURS}>
From: support@insurer.example
To: nobody@example.com
Subject: Re: claim

Hello
--b1--
"""


def bounce(text: str) -> Message:
    return parse(text.encode(), received_at=NOW, own_domains=("insurer.example",))


def test_a_delivery_report_names_what_failed() -> None:
    message = bounce(REPORT)
    found = automatic(message)
    assert found.kind is AutomaticKind.BOUNCE
    assert found.permanent
    assert found.recipients == ("nobody@example.com",)
    assert found.concerns == (OURS,)
    assert message.sender == "mailer-daemon@mx.example.com"
    assert "could not be delivered" in message.text


def test_headers_alone_in_the_report_are_enough() -> None:
    text = REPORT.replace("Content-Type: message/rfc822", "Content-Type: text/rfc822-headers")
    assert automatic(bounce(text)).concerns == (OURS,)


def test_a_report_that_threads_names_it_too() -> None:
    text = REPORT.replace("Message-Id: <dsn1", f"In-Reply-To: <{OURS}>\nMessage-Id: <dsn1").replace(
        f"Message-ID: <{OURS}>\n", ""
    )
    assert automatic(bounce(text)).concerns == (OURS,)


def test_a_delay_is_no_permanent_failure() -> None:
    text = REPORT.replace("Action: failed", "Action: delayed").replace("5.1.1", "4.4.1")
    found = automatic(bounce(text))
    assert found.kind is AutomaticKind.REPORT  # it is still on its way
    assert not found.permanent


def test_of_several_recipients_the_lasting_failures_are_named() -> None:
    second = (
        "Final-Recipient: rfc822; full@example.com\nAction: failed\nStatus: 4.2.2\n\n--b1\nContent-Type: message/rfc822"
    )
    found = automatic(bounce(REPORT.replace("--b1\nContent-Type: message/rfc822", second)))
    assert found.permanent
    assert found.recipients == ("nobody@example.com",)


def test_success_is_a_report_and_no_bounce() -> None:
    found = automatic(bounce(REPORT.replace("Action: failed", "Action: delivered").replace("5.1.1", "2.0.0")))
    assert found.kind is AutomaticKind.REPORT
    assert not found.permanent
    assert found.concerns == (OURS,)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("From: Mail Delivery Subsystem <MAILER-DAEMON@mx.example.com>\nSubject: Returned mail", "550 5.1.1 unknown"),
        ("From: <>\nReturn-Path: <>\nSender: Mail Delivery System <x@mx.example>\nSubject: failure notice", "(#5.1.1)"),
        ("From: MAILER-DAEMON\nReturn-Path: <>", "550 5.1.1 no such user"),
        ("From: exim@mx.example\nX-Failed-Recipients: nobody@example.com", "all relevant MX records: 5.1.1"),
        ("From: PostMaster@qq.com\nSubject: 来自qq.com的退信", "收件人不存在。 550 5.1.1"),
        (
            "From: Postmaster@163.com\nReturn-Path: <>\nSubject: 系统退信/Systems bounce",
            "SMTP error, RCPT TO: 550 User not found",
        ),
    ],
)
def test_bounces_without_a_standard_report(headers: str, body: str) -> None:
    found = automatic(mail(headers, f"{body}\n\n------ the message ------\n\nMessage-ID: <{OURS}>\nSubject: x"))
    assert found.kind is AutomaticKind.BOUNCE
    assert found.permanent
    assert OURS in found.concerns


def test_failed_recipients_header() -> None:
    found = automatic(mail("From: exim@mx.example\nX-Failed-Recipients: Nobody@example.com, b@example.com"))
    assert found.recipients == ("nobody@example.com", "b@example.com")


@pytest.mark.parametrize("kind", ["feedback-report", "disposition-notification"])
def test_reports(kind: str) -> None:
    text = (
        REPORT.replace("delivery-status", kind)
        .replace("MAILER-DAEMON@mx", "fbl@mx")
        .replace(" (Mail Delivery System)", "")
    )
    found = automatic(
        bounce(
            text.replace("Undelivered Mail Returned to Sender", "Abuse report").replace("Return-Path: <>\nFrom", "From")
        )
    )
    assert found.kind is AutomaticKind.REPORT
    assert OURS in found.concerns


@pytest.mark.parametrize(
    "headers",
    [
        "Auto-Submitted: auto-replied",
        'Auto-Submitted: auto-replied; owner-email="x@example.com"',
        "X-Autoreply: yes",
        "X-Autorespond: out",
        "Precedence: auto_reply",
        "Subject: Automatic reply: your claim",
        "Subject: Out of Office: back on Monday",
        "Subject: 自动回复: 理赔",
        "Subject: 自动回复：理赔",
        "Subject: 自動回覆：理賠",
        "Subject: 外出\nX-Auto-Response-Suppress: All",
        "Subject: 休假中，四月回来\nPrecedence: bulk",
        "Subject: Out of the office until Monday\nAuto-Submitted: auto-generated",
    ],
)
def test_automatic_replies(headers: str) -> None:
    found = automatic(mail(f"{headers}\nIn-Reply-To: <{OURS}>"))
    assert found.kind is AutomaticKind.AUTO_REPLY
    assert found.concerns == (OURS,)
    assert found.why


@pytest.mark.parametrize(
    "sender",
    [
        "no-reply@shop.example",
        "noreply@shop.example",
        "No_Reply@shop.example",
        "donotreply@shop.example",
        "do-not-reply@shop.example",
        "noreply-claims@shop.example",
        "accounts-noreply@shop.example",
        "postmaster@shop.example",
    ],
)
def test_no_reply_senders(sender: str) -> None:
    assert automatic(mail(f"From: Shop <{sender}>")).kind is AutomaticKind.NO_REPLY


@pytest.mark.parametrize("headers", ["X-Sluice: 1", f"Message-ID: <{OURS}>", "Message-ID: <sluice.9@INSURER.example>"])
def test_our_own_mail_come_round_again(headers: str) -> None:
    assert automatic(mail(headers)).kind is AutomaticKind.OWN


def test_an_own_bounce_is_not_taken_for_own_mail() -> None:
    assert automatic(bounce(REPORT)).kind is AutomaticKind.BOUNCE


@pytest.mark.parametrize("headers", ["Message-ID: <sluice.1@else.example>", "Message-ID: <other.1@insurer.example>"])
def test_others_mail_is_not_ours(headers: str) -> None:
    assert mail(headers).automatic is None


@pytest.mark.parametrize(
    "headers",
    [
        "List-Id: <news.example.com>",
        "List-Unsubscribe: <https://example.com/u>",
        "Precedence: bulk",
        "Precedence: list",
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "X-Loop: a",
        "Return-Path: <>",
        "Reply-To: noreply@example.com",
    ],
)
def test_suppressed_but_a_person_s(headers: str) -> None:
    message = mail(headers)
    assert message.automatic is None
    assert not message.answerable
    assert message.reply_to == ""


@pytest.mark.parametrize(
    "headers",
    [
        "Auto-Submitted: no",
        "Precedence: first-class",
        "X-Autoreply: no",
        "Subject: 休假期间出险怎么办",
        "Subject: 外出旅游保险咨询",
        "Subject: Re: Automatic reply: your claim",
        "Subject: Re: 自动回复：理赔",
        "Subject: 回复：自动回复：理赔",
        "Subject: 自动回复是什么意思",
        "Subject: Out of office hours nobody answers",
        "Subject: Undelivered policy documents",
        "Subject: 保单一直未送达",
        "From: Norepli <noreplica@example.com>",
        "From: Postman <postman@example.com>",
        "Return-Path: <zhang@example.com>",
    ],
)
def test_a_person_s_mail(headers: str) -> None:
    message = mail(headers)
    assert message.automatic is None
    assert message.answerable
