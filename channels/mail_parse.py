"""One mail's bytes -> `Message`. The standard library takes the MIME apart (policy compat32: the fast one that never
raises for broken headers); names, charsets and bodies are decoded here, since senders' labels are often wrong.
"""

from __future__ import annotations

import binascii
import email
import email.utils
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.errors import MissingHeaderBodySeparatorDefect

import domain
from channels import mail_automatic, mail_quotes
from channels.mail_body import Body, Limits, Mime
from channels.mail_text import decode_header, tidy_line

MAX_ATTACHMENT_TOTAL = 25 * 1024 * 1024
#: thread keys of one mail; the oldest and the nearest are kept
MAX_KEYS = 50
MAX_KEY_LENGTH = 300
MAX_SUBJECT = 1_000
#: (lines) x (multiparts inside) that the MIME parser is let loose on: it looks at every open boundary for every line
_WORK = 4_000_000
#: an address header up to here is taken apart by one pattern
_USUAL = 1_000
MAX_NAME = 200
#: the headers end here at the latest
_HEAD = 1_000_000
NO_SENDER = "unknown@invalid"

_CUT_NOTE = "[邮件太大，未全部解析；原件完整保留。 / This mail was too large to be read whole; the original is kept.]"

_HEADER_END = re.compile(rb"\r?\n\r?\n|\r\r")
_TRANSPORT = re.compile(
    rb"^(?:received|return-path|delivered-to|x-original-to|dkim-signature|domainkey-signature|arc-[\w-]+|authentication-results"
    rb"|x-spam[\w-]*|received-spf|envelope-to|delivery-date|x-sluice[\w-]*|status|x-status|x-uid|x-uidl|x-keywords"
    rb"|x-received|x-google-[\w-]+|x-gm-[\w-]+|x-virus-[\w-]+|x-ms-exchange-[\w-]+|x-forefront-[\w-]+|x-microsoft-antispam[\w-]*"
    rb"|x-mozilla-[\w-]+|content-length|lines)[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*",
    re.I | re.M,
)
_FIELD = re.compile(rb"[!-9;-~]+:")
_FIELD_GAP = re.compile(rb"^([!-9;-~]+)[ \t]+:")
_MBOX_LINE = re.compile(rb"\A(?:\r?\n)*>?From [^\n]*\n")

_ONE_ADDRESS = re.compile(r"\s*(?:\"([^\"\\]*)\"|([^\"<>@,;:\\()]*?))\s*<([^<>\s]+)>\s*")
_ADDRESS = re.compile(r"[^\s<>@,;:\"'()\[\]\\]{1,128}@[^\s<>@,;:\"'()\[\]\\/?&]{1,253}")
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_ADDR_SPEC = re.compile(rf"(?!\.)[^\s<>@,;:\"()\[\]\\]{{1,128}}@(?:{_LABEL}\.)*{_LABEL}")
_COMMENT = re.compile(r"\((?:[^()\\]|\\.)*\)")
_KEY = re.compile(r"<([^<>]{1,2000}?)>")
_TICKET_SUBJECT = re.compile(r"[\[【(]\s*s\s*-\s*(\d{6,12})\s*[\]】)]", re.I)
_TICKET_ADDRESS = re.compile(r"\+s-(\d{6,12})@", re.I)
_PLUS = re.compile(r"\+[^@]*@")


@dataclass(frozen=True, slots=True)
class Original:
    """A mail as people are shown it: nothing stripped. `html` is as sent: sanitise it before it meets a browser."""

    subject: str
    sender: str
    sender_name: str
    to: str
    date: datetime | None
    text: str
    html: str = ""
    attachments: tuple[str, ...] = ()


@dataclass(slots=True)
class _Head:
    """Headers of one mail: the first of each name, and all of the few that may come twice."""

    first: dict[str, str] = field(default_factory=dict)
    froms: list[str] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)

    def get(self, name: str) -> str:
        raw = self.first.get(name)
        return decode_header(raw) if raw else ""


def parse(
    raw: bytes,
    *,
    received_at: datetime,
    account: str = "mail",
    recipient: str = "",
    own_domains: Collection[str] = (),
    max_attachment_total: int = MAX_ATTACHMENT_TOTAL,
    seen_at: tuple[str, str] | None = None,
) -> domain.Message:
    """A mail as it came -> `Message`. What is missing or broken gets an empty value, not an error."""
    mime, cut = _load(raw)
    head = _head(mime)
    body = Body(Limits(total=max_attachment_total))
    body.read(mime)
    text = body.text()
    if cut:
        text = f"{text}\n\n{_CUT_NOTE}".strip()
    sender, sender_name = _sender(head)
    subject = head.get("subject")[:MAX_SUBJECT]
    keys = _keys(head.first.get("message-id", ""), loose=True)
    key = keys[0] if keys else ""
    thread_keys = _thread_keys(head, key)
    automatic, answerable = mail_automatic.detect(
        mail_automatic.Signs(
            headers={name: head.get(name) for name in mail_automatic.HEADERS & head.first.keys()},
            media_type=body.media_type,
            report_type=body.report_type,
            sender=sender,
            sender_name=sender_name or head.get("from")[:MAX_NAME],
            subject=subject,
            key=key,
            thread_keys=thread_keys,
            text=text,
            parts=body.media_types,
            report_fields=body.report_fields,
            inner_keys=lambda: map(_key, body.inner_keys()),
        ),
        own_domains,
    )
    if sender == NO_SENDER:
        # Nobody knows who wrote it: each is a customer of its own, so that strangers never share a ticket.
        sender, answerable = f"unknown.{content_digest(raw)[:16]}@invalid", False
    reply_to = _reply_to(head, sender, recipient)
    if mail_automatic.is_no_reply(reply_to):
        reply_to, answerable = "", False
    digest = content_digest(raw)
    clean = mail_quotes.own_words(text)
    return domain.Message(
        channel="mail",
        account=account,
        external_id=f"{key}:{digest}",
        sender=sender,
        sender_name=sender_name,
        received_at=received_at,
        subject=subject,
        text=text,
        clean=clean if clean and clean != text else None,
        key=key,
        thread_keys=thread_keys,
        ticket_hint=_ticket_hint(head, subject, recipient),
        reply_to=reply_to,
        recipient=recipient,
        automatic=automatic,
        answerable=answerable,
        attachments=tuple(body.attachments),
        raw=raw,
        fingerprint=digest,
        seen_at=seen_at,
    )


def full_text(raw: bytes) -> Original:
    """The whole mail for a person's eyes: nothing stripped, headers decoded."""
    mime, cut = _load(raw)
    head = _head(mime)
    body = Body(Limits(total=MAX_ATTACHMENT_TOTAL))
    body.read(mime)
    sender, name = _sender(head)
    text = body.text()
    return Original(
        subject=head.get("subject"),
        sender=sender,
        sender_name=name,
        to=head.get("to")[:10_000],
        date=_date(head.get("date")),
        text=f"{text}\n\n{_CUT_NOTE}".strip() if cut else text,
        html=body.html(),
        attachments=tuple(item.name for item in body.attachments),
    )


def content_digest(raw: bytes) -> str:
    """SHA-256 of what the sender wrote: the same for copies that came by different ways."""
    data = _MBOX_LINE.sub(b"", raw, count=1).replace(b"\r\n", b"\n")
    end = data.find(b"\n\n", 0, _HEAD)
    end = min(len(data), _HEAD) if end < 0 else end
    head = _TRANSPORT.sub(b"", data[:end] + b"\n")
    return hashlib.sha256(head + data[end:].rstrip(b"\n")).hexdigest()


_RECEIVERS = frozenset({"to", "cc", "delivered-to", "x-original-to", "envelope-to"})


def _load(raw: bytes) -> tuple[Mime, bool]:
    """The MIME tree, and whether only a part of the mail was read: nesting without end costs time by its depth."""
    raw = _MBOX_LINE.sub(b"", raw, count=1)
    cut = False
    if len(raw) > _HEAD and raw.find(b"\n\n", 0, _HEAD) < 0 and raw.find(b"\n\r\n", 0, _HEAD) < 0:
        end = _HEADER_END.search(raw, _HEAD)
        raw, cut = raw[:_HEAD].rpartition(b"\n")[0] + b"\n\n" + (raw[end.end() :] if end else b""), True
    lines = max(raw.count(b"\n"), raw.count(b"\r"))
    if lines * lines > _WORK:
        lower = raw.lower()
        inner = max(3, lower.count(b"boundary") + lower.count(b"message/rfc822"))
        if lines * inner > _WORK:
            raw, cut = raw[: max(100_000, len(raw) * _WORK // (lines * inner))], True
    try:
        mime = email.message_from_bytes(raw, Mime)
        if mime.defects and any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in mime.defects):
            mime = email.message_from_bytes(_mended(raw), Mime)
        return mime, cut
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError, AssertionError):
        # headers and a plain body are always to be had
        end = _HEADER_END.search(raw)
        head = raw[: end.start()] if end else raw[:100_000]
        head = re.sub(rb"^content-[\w-]+[ \t]*:[^\n]*\n?(?:[ \t][^\n]*\n?)*", b"", head, flags=re.I | re.M)
        rest = raw[end.end() :][:100_000] if end else b""
        return email.message_from_bytes(head.rstrip() + b"\n\n" + rest, Mime), True


def _mended(raw: bytes) -> bytes:
    """Headers with a broken line between them: the parser would take all that follows for the body."""
    end = _HEADER_END.search(raw)
    block = raw[: end.start()] if end else b""
    lines = block.splitlines()
    lines = [_FIELD_GAP.sub(rb"\1:", line) for line in lines]
    good = [line for line in lines if line[:1] in b" \t" or _FIELD.match(line)]
    if end is None or len(good) < 3 or len(good) * 2 < len(lines):
        return raw  # no headers at all: the whole is text
    return b"\n".join(good).lstrip() + b"\n\n" + raw[end.end() :]


def _head(mime: Mime) -> _Head:
    head = _Head()
    for name, value in mime.raw_items():
        name = name.lower()
        if name == "from":
            head.froms.append(value)
        elif name in _RECEIVERS:
            head.receivers.append(value)
        if name not in head.first or not head.first[name].strip():
            head.first[name] = value
    return head


def _sender(head: _Head) -> tuple[str, str]:
    """Address and name of the writer: From, else Sender, else Return-Path."""
    name = ""
    for raw in (*head.froms, head.first.get("sender", ""), head.first.get("return-path", "")):
        address, found = _address(raw)
        name = name or found[:MAX_NAME]
        if address:
            return address, name
    return NO_SENDER, name


def _address(raw: str) -> tuple[str, str]:
    """The first valid address of a header and the name beside it; ("", name) where there is none."""
    if not raw.strip():
        return "", ""
    if len(raw) <= _USUAL and (match := _ONE_ADDRESS.fullmatch(raw)):
        # the usual form; taken apart before decoding, since a decoded name may contain anything
        address = _valid(match[3])
        if address:
            return address, decode_header(match[1] or match[2] or "").strip("\"' ")
    if "(" in raw and (address := _valid(email.utils.parseaddr(raw[:2_000])[1])):
        return address, decode_header(_COMMENT.sub("", raw[:2_000]).partition("<")[0]).strip(" \"'")
    decoded = decode_header(raw[:20_000])
    for match in _KEY.finditer(decoded):
        if address := _valid(match[1].strip()):
            return address, decoded[: match.start()].rsplit(">", 1)[-1].strip(" \"',;")
    for match in _ADDRESS.finditer(decoded):
        if address := _valid(match[0].strip(".")):
            return address, (decoded[: match.start()] or decoded[match.end() :]).strip(" \"',;()<>")
    return "", decoded.strip(" \"',;()<>")[:200]


def _valid(address: str) -> str:
    if not address.isascii():
        address = decode_header(address)
    return address.lower() if len(address) <= 254 and _ADDR_SPEC.fullmatch(address) else ""


def _reply_to(head: _Head, sender: str, recipient: str) -> str:
    """Where the writer wants answers; never ourselves, that would be a loop."""
    address = _address(head.first.get("reply-to", ""))[0]
    ours = {_PLUS.sub("@", recipient.lower()), ""}
    return "" if address == sender or _PLUS.sub("@", address) in ours else address


def _key(text: str) -> str:
    return tidy_line(text).replace(" ", "")[:MAX_KEY_LENGTH]


def _keys(raw: str, *, loose: bool = False) -> list[str]:
    """Message-IDs in a header; `loose` takes a bare one too."""
    if not raw:
        return []
    text = raw if raw.isascii() and "=?" not in raw else decode_header(raw)
    found = [_key(match) for match in _KEY.findall(text)]
    if not found:
        found = [_key(word.strip("<>,;")) for word in text.split() if "@" in word or loose]
    return [key for key in found if key]


def _thread_keys(head: _Head, own: str) -> tuple[str, ...]:
    keys = _keys(head.first.get("references", "")) + _keys(head.first.get("in-reply-to", ""))
    # nearest last: what is named twice stands where it was named last
    unique = list(dict.fromkeys(key for key in reversed(keys) if key != own))[::-1]
    if len(unique) > MAX_KEYS:
        unique = [*unique[: MAX_KEYS // 2], *unique[-MAX_KEYS // 2 :]]
    return tuple(unique)


def _ticket_hint(head: _Head, subject: str, recipient: str) -> str:
    """The ticket named in a plus address of ours, else in the subject."""
    for match in (
        *_TICKET_ADDRESS.finditer(recipient),
        *(m for raw in head.receivers for m in _TICKET_ADDRESS.finditer(raw[:50_000])),
        *_TICKET_SUBJECT.finditer(subject),
    ):
        if domain.ticket_id_of(match[1]) is not None:
            return f"S-{match[1]}"
    return ""


def _date(text: str) -> datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError, binascii.Error):
        return None
