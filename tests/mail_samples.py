"""Mails for the tests of parsing."""

from __future__ import annotations

from datetime import UTC, datetime

import domain
from channels.mail_parse import parse

NOW = datetime(2024, 3, 5, 2, 22, tzinfo=UTC)
TEXT = "您好，我的车险理赔進度怎么样了？保单号是PA2024。"
HTML = "Content-Type: text/html; charset=utf-8\n\n"
PLAIN = "Content-Type: text/plain; charset=utf-8\n\n"


def read(raw: bytes | str, **settings: object) -> domain.Message:
    return parse(raw.encode() if isinstance(raw, str) else raw, received_at=NOW, **settings)  # type: ignore[arg-type]


def mail(headers: str, body: str = "Hello") -> domain.Message:
    return read(f"{headers}\n\n{body}\n")


def multipart(*parts: str | bytes, kind: str = "mixed", boundary: str = "bb") -> bytes:
    head = f'From: a@b.example\nSubject: s\nMIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary="{boundary}"\n'
    line = f"--{boundary}".encode()
    out = [line + b"\n" + (part.encode() if isinstance(part, str) else part) for part in parts]
    return b"\n".join([head.encode(), *out, line + b"--\n"])


def check(message: domain.Message) -> None:
    """Whatever came in, what goes on can be stored by any database."""
    words = [
        message.text,
        message.analysed,
        message.subject,
        message.sender,
        message.sender_name,
        message.key,
        message.external_id,
    ]
    words += [message.reply_to, message.ticket_hint, *message.thread_keys, *(a.name for a in message.attachments)]
    words += [a.media_type for a in message.attachments] + [a.content_id for a in message.attachments]
    if message.automatic is not None:
        words += [message.automatic.why, *message.automatic.concerns, *message.automatic.recipients]
    for word in words:
        word.encode()
        assert "\x00" not in word
    assert not any({"/", "\\", "\n"} & set(a.name) or a.name in {"", ".", ".."} for a in message.attachments)
    assert message.sender.count("@") == 1
