"""The parts of a mail: its text, its HTML, its attachments, and what reports carry."""

from __future__ import annotations

import binascii
import importlib
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import MessageError
from email.generator import BytesGenerator
from email.message import Message
from io import BytesIO
from typing import Any

from channels import mail_automatic
from channels.mail_html import MAX_HTML, html_to_text
from channels.mail_text import decode_base64, decode_bytes, decode_header, raw_bytes, tidy, tidy_line, unflow
from domain import Attachment

MAX_PARTS = 500
MAX_DEPTH = 30
#: longest text that is kept for reading and search; the raw mail has the rest
MAX_TEXT = 200_000
#: bytes of a text part that are decoded: four to a character at most
_MAX_TEXT_BYTES = 4 * MAX_TEXT + 100_000
_MAX_HTML_BYTES = 4 * MAX_HTML
#: characters of a body that is kept from the parser's own patterns
_LARGE = 1_000_000
MAX_NAME = 150
_BODY_TYPES = frozenset({"text/plain", "text/html", "text/enriched", "text/x-plain"})
_REPORT_TYPES = frozenset(
    {
        "message/delivery-status",
        "message/disposition-notification",
        "message/feedback-report",
        "message/global-delivery-status",
    }
)
_ENDINGS = {"plain": "txt", "jpeg": "jpg", "octetstream": "bin", "calendar": "ics", "": "bin"}

_PARAMETER = re.compile(r";\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"?|([^;]*))")
_MEDIA_TYPE = re.compile(r"\s*([\w.+-]{1,80}/[\w.+-]{1,80})")
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([\w.:-]{2,40})", re.I)
_HTML_START = re.compile(r"\s*(?:<!doctype html|<html[\s>]|<head[\s>]|<body[\s>])", re.I)
#: what mailers put into the text part when they mean "look at the HTML"
_STUB = re.compile(
    r"(?:your|this|the) (?:e-?mail|mail)?.{0,40}(?:client|reader|program|software|viewer).{0,60}(?:html|support)"
    r"|view (?:this|it) (?:e-?mail|message)?.{0,20}(?:in|as) html|this is an? html (?:e-?mail|message)"
    r"|不支持\s*html|支持\s*html\s*(?:格式)?的?邮件|请使用.{0,20}html",
    re.I,
)
_SUBJECT = re.compile(r"^subject[ \t]*:[ \t]*(.*(?:\n[ \t].*)*)", re.I | re.M)
_FORBIDDEN_IN_NAMES = re.compile(r"[\x00-\x1f\x7f<>:\"|?*/\\]")


class Mime(Message):
    """A part as the parser makes it.

    A large body is kept aside: the parser runs a pattern over each body it sees, and holds up every other thread.
    """

    _large: str | None = None

    def set_payload(self, payload: Any, charset: Any = None) -> None:
        if isinstance(payload, str) and len(payload) > _LARGE:
            self._large, payload = payload, ""
        super().set_payload(payload, charset)

    def as_read(self) -> Any:
        """The body untouched: text (8-bit bytes as surrogates) or the parts. `get_payload` decodes by the label."""
        if self._large is None:
            return self.__dict__["_payload"]
        return self._large.removesuffix("\n").removesuffix("\r")

    def put_back(self) -> None:
        """Large bodies in their places again, for writing it out."""
        for part in self.walk():
            if isinstance(part, Mime) and part._large is not None:
                Message.set_payload(part, part.as_read())


@dataclass(frozen=True, slots=True)
class Limits:
    #: bytes of all attachments together
    total: int


class Body:
    """Collects what one mail is made of. Call `read` once, then ask."""

    def __init__(self, limits: Limits) -> None:
        self.attachments: list[Attachment] = []
        self.media_type = "text/plain"
        self.report_type = ""
        self.media_types: set[str] = set()
        self.report_fields: list[list[tuple[str, str]]] = []
        self._left = limits.total
        self._parts = 0
        self._texts: list[str] = []
        self._notes: list[str] = []
        self._html: list[tuple[Mime, _Info]] = []
        self._stubs: list[tuple[Mime, _Info]] = []  # "look at the HTML": the text, where there is no other
        self._inline: list[tuple[Mime, _Info]] = []  # text parts with a file name: the same
        self._inner: list[str] = []
        self._inner_texts: list[str] = []
        self._report_texts: list[str] = []  # words where only fields should be
        self._tnef_text = ""

    def read(self, mime: Mime) -> None:
        info = _Info(mime)
        self.media_type = info.media_type
        self.report_type = info.parameters.get("report-type", "").lower()
        self._walk(mime, 0, wanted=True, info=info)

    def text(self) -> str:
        """The best text of the body, with a note for what was left out."""
        text = "\n\n".join(part for part in (t.strip("\n") for t in self._texts) if part.strip())
        if not text:
            text = self._tnef_text.strip() or "\n\n".join(self._report_texts).strip()
        if not text and (spare := self._stubs or self._inline):
            text = "\n\n".join(self._decoded(part, info) for part, info in spare).strip("\n")
        if len(text) > MAX_TEXT:
            text = text[:MAX_TEXT]
            self._note("[正文过长，此处截断；原件完整保留。 / The text goes on; the original is kept.]")
        return "\n\n".join(part for part in (text, *self._notes) if part)

    def html(self) -> str:
        """The HTML as sent, unsanitised."""
        return "\n".join(tidy(_decode_html(_payload(part, info), info.charset)) for part, info in self._html)

    def inner_keys(self) -> list[str]:
        """Message-IDs of the mails inside (a report carries what it is about)."""
        found = list(self._inner)
        for text in (*self._inner_texts, *self._texts):
            found += mail_automatic.keys_in(text)
        return list(dict.fromkeys(found))

    # --- walking ------------------------------------------------------------------------------------------------------

    def _walk(self, part: Mime, depth: int, *, wanted: bool, info: _Info | None = None) -> bool:
        """Take one part; `wanted` while its text may be the body's. Says whether it gave text."""
        self._parts += 1
        if self._parts > MAX_PARTS or depth > MAX_DEPTH:
            self._note("[部件过多，未全部解析；原件完整保留。 / Too many parts to be read; the original is kept.]")
            return False
        info = info or _Info(part)
        self.media_types.add(info.media_type)
        if info.media_type in _REPORT_TYPES:
            self._report(part, info)
            return False
        if info.media_type in {"message/rfc822", "message/global"}:
            self._inner_mail(part, info)
            return False
        if part.is_multipart():
            return self._multipart(part, info, depth, wanted=wanted)
        if info.media_type in {"text/rfc822-headers", "message/rfc822-headers"}:
            self._inner_texts.append(self._decoded(part, info))
            return False
        attached = info.disposition == "attachment"
        if info.media_type.startswith("multipart/") or (
            info.media_type in _BODY_TYPES and not attached and not info.name
        ):
            # a multipart without any boundary is text too
            return self._text(part, info, wanted=wanted)
        if info.media_type == "text/plain" and not attached:
            self._inline.append((part, info))
        self._attachment(part, info)
        return False

    def _multipart(self, part: Mime, info: _Info, depth: int, *, wanted: bool) -> bool:
        children = _children(part)
        if info.media_type != "multipart/alternative":
            results = [self._walk(child, depth + 1, wanted=wanted) for child in children]
            return any(results)
        # the plain ones first: where one is good, the HTML is never laid out
        described = sorted(((_Info(child), child) for child in children), key=lambda pair: not pair[0].is_plain)
        got = False
        for child_info, child in described:
            got = self._walk(child, depth + 1, wanted=wanted and not got, info=child_info) or got
        return got

    def _text(self, part: Mime, info: _Info, *, wanted: bool) -> bool:
        if info.media_type == "text/html":
            self._html.append((part, info))
            text = html_to_text(_decode_html(_payload(part, info), info.charset)) if wanted else ""
        elif wanted:
            text = self._decoded(part, info)
            if info.parameters.get("format", "").lower() == "flowed":
                text = unflow(text, info.parameters.get("delsp", "").lower() == "yes")
            if _HTML_START.match(text):
                text = html_to_text(text)
            elif len(text) < 400 and _STUB.search(text):
                self._stubs.append((part, info))
                return False
        else:
            return False
        if not text.strip():
            return False
        self._texts.append(text)
        return True

    def _decoded(self, part: Mime, info: _Info) -> str:
        return tidy(decode_bytes(_payload(part, info)[:_MAX_TEXT_BYTES], info.charset))

    def _report(self, part: Mime, info: _Info) -> None:
        blocks = _children(part)
        for block in blocks[:100]:
            if isinstance(rest := block.as_read(), str) and rest.strip():
                self._report_texts.append(tidy(decode_bytes(raw_bytes(rest))))
            fields = [(name.lower(), decode_header(str(value))) for name, value in block.raw_items()]
            if fields:
                self.report_fields.append(fields[:100])
        if not blocks:
            for text in re.split(r"\n\s*\n", self._decoded(part, info))[:100]:
                pairs = re.findall(r"^([\w-]{1,60})[ \t]*:[ \t]*(.*)$", text, re.M)
                if pairs:
                    self.report_fields.append([(name.lower(), value.strip()) for name, value in pairs[:100]])

    def _inner_mail(self, part: Mime, info: _Info) -> None:
        inside = _children(part)
        if inside:
            content = _as_bytes(inside[0])
            if info.encoding == "base64":
                content = decode_base64(content.strip())  # forbidden, and done
        else:
            content = _payload(part, info)
        head = tidy(decode_bytes(content[:20_000]).replace("\r\n", "\n").partition("\n\n")[0])
        subject = _SUBJECT.search(head)
        self._inner += mail_automatic.keys_in(head)[:1]
        name = info.name or f"{decode_header(subject[1]) if subject else 'message'}.eml"
        self._add(name, "message/rfc822", content, "")

    # --- attachments --------------------------------------------------------------------------------------------------

    def _attachment(self, part: Mime, info: _Info) -> None:
        content, name = _payload(part, info), info.name
        if info.media_type in {"application/ms-tnef", "application/vnd.ms-tnef"} or name.lower() == "winmail.dat":
            if self._unpack_tnef(content):
                return
            name = name or "winmail.dat"
        self._add(name, info.media_type, content, info.content_id)

    def _add(self, name: str, media_type: str, content: bytes, content_id: str) -> None:
        name = safe_name(name, media_type, len(self.attachments) + 1)
        if len(content) > self._left:
            self._note(f"[附件过大，未单独保存 / Attachment too large to be kept apart: {name}, {len(content)} B]")
            return
        self._left -= len(content)
        self.attachments.append(Attachment(name=name, media_type=media_type, content=content, content_id=content_id))

    def _unpack_tnef(self, content: bytes) -> bool:
        """Outlook's own wrapping: the files inside, and the text where the mail has no other."""
        try:
            tnef: Any = importlib.import_module("tnefparse").TNEF(content, do_checksum=False)
            inside = [(str(a.long_filename() or a.name or ""), bytes(a.data)) for a in tnef.attachments[:MAX_PARTS]]
            body, html = tnef.body, tnef.htmlbody
        except Exception:  # the library raises whatever its input makes it stumble over
            return False
        for name, data in inside:
            self._add(name, "application/octet-stream", data, "")
        if isinstance(html, bytes | str) and html and not body:
            body = html_to_text(_decode_html(html, "") if isinstance(html, bytes) else html)
        if isinstance(body, bytes):
            body = decode_bytes(body)
        self._tnef_text = tidy(body) if isinstance(body, str) else ""
        return bool(inside or self._tnef_text)

    def _note(self, note: str) -> None:
        if note not in self._notes and len(self._notes) < 20:
            self._notes.append(note)


def safe_name(name: str, media_type: str = "", number: int = 1) -> str:
    """A file name without any path, that no system misreads."""
    name = posixpath.basename(tidy_line(name).replace("\\", "/"))
    name = _FORBIDDEN_IN_NAMES.sub("_", name).strip(". ")
    if not name:
        subtype = re.sub(r"[^a-z0-9]", "", media_type.rpartition("/")[2].split("+")[0])[:8]
        return f"attachment-{number}.{_ENDINGS.get(subtype, subtype)}"
    if len(name) > MAX_NAME:
        stem, dot, ending = name.rpartition(".")
        name = f"{stem[: MAX_NAME - len(ending) - 1]}.{ending}" if dot and len(ending) <= 10 else name[:MAX_NAME]
    return name


def _decode_html(data: bytes, charset: str) -> str:
    if not charset and (match := _META_CHARSET.search(data[:4000])):
        charset = match[1].decode("ascii")
    return decode_bytes(data[:_MAX_HTML_BYTES], charset)


class _Info:
    """The content headers of one part, read in one pass."""

    __slots__ = ("charset", "content_id", "disposition", "encoding", "media_type", "name", "parameters")

    def __init__(self, part: Mime) -> None:
        found: dict[str, str] = {}
        for key, value in part.raw_items():
            if key[:8].lower() == "content-":
                found.setdefault(key.lower(), value)
        content_type = found.get("content-type", "")
        if content_type:
            match = _MEDIA_TYPE.match(content_type)
            self.media_type = match[1].lower() if match else "text/plain"
        else:
            self.media_type = part.get_default_type()
        self.parameters = dict(_parameters(content_type))
        self.charset = self.parameters.get("charset", "")
        disposition = found.get("content-disposition", "")
        self.disposition = disposition.partition(";")[0].strip().lower()
        self.name = dict(_parameters(disposition)).get("filename") or self.parameters.get("name", "")
        self.encoding = found.get("content-transfer-encoding", "").partition(";")[0].strip("\"' \t\r\n").lower()
        self.content_id = tidy_line(found.get("content-id", "")).strip("<> ")[:200]

    @property
    def is_plain(self) -> bool:
        return self.media_type == "text/plain"


def _children(part: Mime) -> list[Mime]:
    payload = part.as_read()
    return [child for child in payload if isinstance(child, Mime)] if isinstance(payload, list) else []


def _parameters(raw: str) -> Iterator[tuple[str, str]]:
    """Parameters of a header, RFC 2231 put together and RFC 2047 (which does not belong there) decoded."""
    if ";" not in raw:
        return
    pieces: dict[str, list[tuple[int, bool, str]]] = {}
    for match in _PARAMETER.finditer(raw[:20_000]):
        value = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3].strip()
        name, *section = match[1].lower().split("*")
        if not section:
            yield name, decode_header(value.replace("\n", "").replace("\r", ""))
            continue
        number = int(section[0]) if section[0].isdecimal() and len(section[0]) < 4 else 0
        pieces.setdefault(name, []).append((number, match[1].endswith("*"), value))
    for name, sections in pieces.items():
        charset, data = "", b""
        for place, (_, encoded, value) in enumerate(sorted(sections, key=lambda piece: piece[0])):
            if encoded and place == 0 and value.count("'") >= 2:
                charset, _, value = value.split("'", 2)
            data += _percent(raw_bytes(value)) if encoded else raw_bytes(value)
        text = decode_bytes(data, charset)
        yield name, decode_header(text) if "=?" in text else tidy_line(text)


def _percent(data: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), data)


def _payload(part: Mime, info: _Info) -> bytes:
    """The decoded bytes of a leaf."""
    payload = part.as_read()
    if not isinstance(payload, str):
        return b""
    data, encoding = raw_bytes(payload), info.encoding
    if encoding == "base64":
        return decode_base64(data)
    if encoding.startswith(("quoted", "qp")):
        return binascii.a2b_qp(data)
    if encoding in {"x-uuencode", "uuencode", "uue", "x-uue"}:
        return _uudecode(data)
    return data


def _uudecode(data: bytes) -> bytes:
    out, started = [], False
    for line in data.splitlines():
        if not started:
            started = line.startswith(b"begin ")
        elif line.strip() in {b"end", b""}:
            break
        else:
            try:
                out.append(binascii.a2b_uu(line))
            except binascii.Error:
                try:
                    out.append(binascii.a2b_uu(line[: (((line[0] - 32) & 63) * 4 + 5) // 3]))
                except binascii.Error:
                    continue
    return b"".join(out) if started else data


def _as_bytes(mime: Mime) -> bytes:
    out = BytesIO()
    try:
        mime.put_back()
        BytesGenerator(out, mangle_from_=False, maxheaderlen=0).flatten(mime)
    except (MessageError, ValueError, TypeError, LookupError, AttributeError, KeyError, RecursionError):
        return out.getvalue()
    return out.getvalue()
