"""Bytes of a mail -> `Message`: the usual mail, odd headers, the digest, and what people are shown."""

from __future__ import annotations

import base64
import re
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage

import pytest

import domain
from channels.mail_parse import MAX_KEYS, NO_SENDER, content_digest, full_text
from tests.mail_samples import NOW, PLAIN, TEXT, mail, multipart, read

# --- the usual --------------------------------------------------------------------------------------------------------


def test_a_usual_mail() -> None:
    written = EmailMessage()
    written["From"] = "张三 <Zhang@Example.com>"
    written["To"] = "support@insurer.example"
    written["Subject"] = "理赔"
    written["Message-ID"] = "<one@example.com>"
    written["References"] = "<first@insurer.example> <second@insurer.example>"
    written["In-Reply-To"] = "<second@insurer.example>"
    written.set_content(f"{TEXT}\n\n> 您好\n")
    raw = written.as_bytes()
    message = read(raw, account="mail", recipient="support@insurer.example", seen_at=("INBOX", "7:1"))
    assert (message.channel, message.account, message.recipient) == ("mail", "mail", "support@insurer.example")
    assert (message.sender, message.sender_name) == ("zhang@example.com", "张三")
    assert message.subject == "理赔"
    assert message.text == f"{TEXT}\n\n> 您好"
    assert message.clean == TEXT
    assert message.key == "one@example.com"
    assert message.thread_keys == ("first@insurer.example", "second@insurer.example")
    assert message.external_id == f"one@example.com:{content_digest(raw)}"
    assert message.fingerprint == content_digest(raw)
    assert message.received_at == NOW
    assert message.raw == raw
    assert message.seen_at == ("INBOX", "7:1")
    assert message.answerable
    assert message.automatic is None


def test_clean_is_none_where_nothing_was_stripped() -> None:
    assert mail("From: a@b.example", TEXT).clean is None


def test_text_stays_where_nothing_but_a_quote_is_there() -> None:
    message = mail("From: a@b.example", "> Hello")
    assert (message.text, message.clean) == ("> Hello", None)


# --- digest -----------------------------------------------------------------------------------------------------------


def test_the_digest_is_of_what_the_sender_wrote() -> None:
    written = "From: a@b.example\nSubject: s\n\nHello\n"
    way = (
        "Return-Path: <a@b.example>\nDelivered-To: x@insurer.example\nReceived: from a\n\tby b;\n Tue\n"
        "DKIM-Signature: v=1;\n b=x\nARC-Seal: i=1\nAuthentication-Results: mx; spf=pass\nX-Spam-Score: 1\n"
        "X-Spam-Flag: NO\nX-Sluice-Seen: 1\nStatus: RO\n"
    )
    digest = content_digest(written.encode())
    assert content_digest((way + written).encode()) == digest
    assert content_digest((way + written).replace("\n", "\r\n").encode()) == digest
    assert content_digest(b"From a@b.example Tue Mar  5 10:22:11 2024\n" + written.encode() + b"\n\n") == digest
    assert content_digest(written.replace("Hello", "Hallo").encode()) != digest
    assert content_digest(written.replace("Subject: s", "Subject: t").encode()) != digest
    assert content_digest((written + "\nReceived: in the body\n").encode()) != digest


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "address", "name"),
    [
        ("From: zhang@example.com", "zhang@example.com", ""),
        ("From: <Zhang@Example.COM>", "zhang@example.com", ""),
        ('From: "Zhang, San" <zhang@example.com>', "zhang@example.com", "Zhang, San"),
        ("From: zhang@example.com (Zhang San)", "zhang@example.com", ""),
        ('From: "boss@bank.example" <zhang@example.com>', "zhang@example.com", "boss@bank.example"),
        ("From: =?gb2312?B?1cXI/Q==?= <zhang@example.com>", "zhang@example.com", "张三"),
        ("From: =?gb2312?B?1cXI/Q==?= zhang@example.com", "zhang@example.com", "张三"),
        (
            "From: =?utf-8?B?5byg5LiJPHhAeS5leGFtcGxlPg==?= <zhang@example.com>",
            "zhang@example.com",
            "张三<x@y.example>",
        ),
        ("From: A <broken>, B <zhang@example.com>", "zhang@example.com", ""),
        ("From: Team: A <zhang@example.com>, B <b@example.com>;", "zhang@example.com", "Team: A"),
        ("From: A\nFrom: B <zhang@example.com>", "zhang@example.com", "A"),
        ("From: =?utf-8?Q?a=0D=0ABcc:_x?= <zhang@example.com>", "zhang@example.com", "a Bcc: x"),
        ("From:\nSender: zhang@example.com", "zhang@example.com", ""),
        ("Return-Path: <zhang@example.com>", "zhang@example.com", ""),
        ('From: "" (Mail Delivery System)', NO_SENDER, ""),
        ("From: nobody at all", NO_SENDER, "nobody at all"),
        ("Subject: none", NO_SENDER, ""),
        ("From: jörg@mächine.example", "jörg@mächine.example", ""),
        ("From: a@b..example", NO_SENDER, ""),
    ],
)
def test_senders(header: str, address: str, name: str) -> None:
    message = mail(header)
    assert named(message) == address
    assert name in message.sender_name


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Reply-To: Other <Other@example.com>", "other@example.com"),
        ("Reply-To: zhang@example.com", ""),
        ('Reply-To: <"">', ""),
        ("Reply-To: support@insurer.example", ""),
        ("Reply-To: support+s-123456@insurer.example", ""),
    ],
)
def test_reply_to(header: str, expected: str) -> None:
    raw = f"From: zhang@example.com\n{header}\n\nHello\n"
    assert read(raw, recipient="support@insurer.example").reply_to == expected


def test_thread_keys_are_bounded_and_the_nearest_is_last() -> None:
    names = [f"k{n}@example.com" for n in range(300)]
    references = " ".join(f"<{name}>" for name in names)
    keys = mail(f"From: a@b.example\nReferences: {references}\nIn-Reply-To: <near@example.com>").thread_keys
    assert len(keys) == MAX_KEYS
    assert keys[0] == names[0]
    assert keys[-2:] == (names[-1], "near@example.com")


@pytest.mark.parametrize(
    ("headers", "keys"),
    [
        ("References: <a@x> <b@x>\nIn-Reply-To: <a@x>", ("b@x", "a@x")),
        ("References: <a@x>,<b@x>", ("a@x", "b@x")),
        ("References: <a@x> broken> <b@x>", ("a@x", "b@x")),
        ("References: a@x b@x", ("a@x", "b@x")),
        ("In-Reply-To: ", ()),
        ("In-Reply-To: your message of Tuesday", ()),
        ("In-Reply-To: <a\n @x>", ("a@x",)),
        ("Message-ID: <me@x>\nReferences: <me@x> <a@x>", ("a@x",)),
    ],
)
def test_thread_keys(headers: str, keys: tuple[str, ...]) -> None:
    assert mail(f"From: a@b.example\n{headers}").thread_keys == keys


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Message-ID: <a@x>", "a@x"),
        ("Message-Id: a@x", "a@x"),
        ("Message-ID: <>", ""),
        ("Message-ID:\n <a@x>", "a@x"),
        ("X: y", ""),
    ],
)
def test_keys(header: str, key: str) -> None:
    message = mail(f"From: a@b.example\n{header}")
    assert message.key == key
    assert message.external_id == f"{key}:{message.fingerprint}"


def test_ticket_hints() -> None:
    number = domain.public_number(42)
    plus = number.lower()
    assert mail(f"Subject: Re: [{number}] claim").ticket_hint == number
    assert (
        mail(f"Subject: =?utf-8?B?{base64.b64encode(f'回复：【{number}】理赔'.encode()).decode()}?=").ticket_hint
        == number
    )
    assert mail(f"To: support+{plus}@insurer.example").ticket_hint == number
    assert mail(f"Delivered-To: support+{plus}@insurer.example\nTo: x@y.example").ticket_hint == number
    assert read("From: a@b.example\n\nx", recipient=f"support+{plus}@insurer.example").ticket_hint == number
    assert mail("Subject: [S-12345]").ticket_hint == ""
    assert mail(f"Subject: about {number} I want to say").ticket_hint == ""


def test_broken_header_lines_hide_nothing() -> None:
    message = mail("From: a@b.example\nX-Y: z\nthis is no header\nSubject : kept\nMessage-ID: <k@x>", "Hello")
    assert (message.sender, message.subject, message.key, message.text) == ("a@b.example", "kept", "k@x", "Hello")


def named(message: domain.Message) -> str:
    """The sender; where nobody knows who wrote, each mail has one of its own and is never answered by the bot."""
    name, _at, place = message.sender.partition("@")
    if place != "invalid":
        return message.sender
    assert re.fullmatch(r"unknown\.[0-9a-f]{16}", name)
    assert not message.answerable
    return NO_SENDER


def test_two_mails_of_nobody_are_of_two_customers() -> None:
    assert read("Just some words\n").sender != read("Other words\n").sender


def test_no_headers_at_all() -> None:
    message = read("Just some words\nand more of them.\n")
    assert named(message) == NO_SENDER
    assert "Just some words" in message.text


def test_ten_thousand_recipients() -> None:
    to = ",\n ".join(f"Person {n} <p{n}@example.com>" for n in range(10_000))
    assert mail(f"From: a@b.example\nTo: {to}\nSubject: s").subject == "s"


# --- what people are shown --------------------------------------------------------------------------------------------


def test_the_original_is_shown_whole() -> None:
    zone = timezone(timedelta(hours=8))
    raw = multipart(
        f"{PLAIN}没有到账\n\n> 您好",
        "Content-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\nx",
    ).replace(
        b"Subject: s",
        b"Subject: s\nTo: =?utf-8?B?5a6i5pyN?= <support@insurer.example>\nDate: Tue, 05 Mar 2024 10:22:11 +0800",
    )
    shown = full_text(raw)
    assert shown.text == "没有到账\n\n> 您好"
    assert shown.to == "客服 <support@insurer.example>"
    assert shown.date == datetime(2024, 3, 5, 10, 22, 11, tzinfo=zone)
    assert (shown.sender, shown.subject, shown.html, shown.attachments) == ("a@b.example", "s", "", ("a.pdf",))


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Tue, 32 Foo 99999 99:99:99 +9999", "Wed, 15 Dec 2010    59:10 -0500"]
)
def test_a_bad_date_is_none(date: str) -> None:
    assert full_text(f"From: a@b.example\nDate: {date}\n\nx".encode()).date is None
