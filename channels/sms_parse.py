"""SMS and MMS as they come from Twilio: signed forms -> messages, statuses, and who wants no more of them. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import phonenumbers

from channels import Answer, Parsed, Request
from channels.settings import SmsSettings, open_secrets
from channels.sms_text import OPTED_OUT, Keyword, keyword, reason
from channels.twilio import NOTHING, form, verify
from domain import (
    Automatic,
    AutomaticKind,
    Forbidden,
    Message,
    Notice,
    OutState,
    Part,
    PartKind,
    Standing,
    Status,
    Unreadable,
)

#: pictures and the like of one message
MEDIA_MOST = 10
#: seconds; Twilio waits for 15
PATIENCE = 10.0

#: a number that can be called back, also with the name of another network of Twilio's (whatsapp:+86...)
NUMBER = re.compile(r"(?:[a-z]+:)?\+[1-9][0-9]{4,14}")
SHORT_CODE = re.compile(r"[0-9]{3,8}")
_DIALLED = re.compile(r"[+0-9][0-9 ().-]{5,24}")


def address(given: str, region: str) -> str:
    """A sender as we keep it: E.164 where it is a number, and short codes and names as they are."""
    plain = given.strip()
    if NUMBER.fullmatch(plain) or SHORT_CODE.fullmatch(plain) or not _DIALLED.fullmatch(plain):
        return plain
    try:
        number = phonenumbers.parse(plain, region)
    except phonenumbers.NumberParseException:
        return plain
    if not phonenumbers.is_valid_number(number):
        return plain
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@dataclass(frozen=True, slots=True)
class Text:
    """An incoming message, as a webhook or the REST API tells of it."""

    sid: str
    sender: str
    to: str
    body: str
    #: (address, type) of its pictures and the like
    media: Sequence[tuple[str, str]]
    at: datetime
    raw: bytes
    parts: Sequence[Part] = ()
    opt_out: str = ""


_KINDS = {"image": PartKind.IMAGE, "audio": PartKind.AUDIO, "video": PartKind.VIDEO}
_CARDS = ("text/vcard", "text/x-vcard", "text/directory")

_STATES = {
    "sent": OutState.SENT,
    "delivered": OutState.DELIVERED,
    "read": OutState.DELIVERED,
    "failed": OutState.FAILED,
    "undelivered": OutState.FAILED,
    "canceled": OutState.FAILED,
}
#: what comes in has one of these, which is no news of a message of ours
_INCOMING = ("received", "receiving")


class SmsHook:
    """/hooks/sms for messages and /hooks/sms/status for what became of ours; either takes both."""

    patience: float | None = PATIENCE

    def __init__(self, name: str, settings: SmsSettings) -> None:
        self.name = name
        self._settings = settings
        self._tokens = open_secrets(settings.auth_tokens)

    def challenge(self, request: Request) -> Answer:
        """Twilio makes sure of nobody, and is told to POST."""
        raise Forbidden

    def verify(self, request: Request) -> None:
        verify(request, self._tokens)

    def spooled(self, request: Request) -> Answer | None:
        """None: Twilio hears 503 and goes to its fallback address; the comparison brings what was lost all the same."""
        return None

    def parse(self, request: Request) -> Parsed:
        fields = form(request.body)
        sid = fields.get("MessageSid") or fields.get("SmsSid") or fields.get("SmsMessageSid", "")
        if sid and (fields.get("MessageStatus") or _INCOMING[0]) not in _INCOMING:
            return Parsed((), tuple(self._status(sid, fields, request)), NOTHING)
        if not sid or not fields.get("From", "").strip():
            return Parsed((self._unreadable(request),), (), NOTHING)
        text = Text(
            sid=sid,
            sender=fields["From"],
            to=fields.get("To", ""),
            body=fields.get("Body", ""),
            media=_media(fields),
            at=request.received_at,
            raw=request.body,
            parts=_others(fields),
            opt_out=fields.get("OptOutType", ""),
        )
        return Parsed((self.message(text),), tuple(self.standing([text])), NOTHING)

    def _status(self, sid: str, fields: Mapping[str, str], request: Request) -> Iterable[Notice]:
        """The account is the one that the sender named in the callback's own address, which is signed with the rest."""
        state = _STATES.get(fields["MessageStatus"].strip().lower())
        if state is None:  # queued, sending and the like: less than what we know
            return
        given = fields.get("ErrorCode", "")
        code = int(given) if given.isascii() and given.isdigit() and len(given) < 10 and int(given) else None
        yield Status(
            channel=self.name,
            account=request.query.get("account", fields.get("From", "")),
            provider_id=sid,
            state=state,
            at=request.received_at,
            reason=reason(code) if state is OutState.FAILED else "",
        )
        if code == OPTED_OUT and fields.get("To"):
            to = address(fields["To"], self._settings.region)
            yield Standing(channel=self.name, address=to, at=request.received_at, refused="opted_out")

    def message(self, text: Text) -> Message:
        """The same for the same message, whichever way we heard of it."""
        sender, asks = address(text.sender, self._settings.region), keyword(text.body, text.opt_out)
        files = [_file(url, kind) for url, kind in text.media]
        content = json.dumps([sender, text.to, text.body, len(text.media)], ensure_ascii=True)
        own = sender in self._settings.numbers
        return Message(
            channel=self.name,
            account=text.to,
            external_id=text.sid,
            sender=sender,
            received_at=text.at,
            text=text.body,
            thread=sender,
            recipient=text.to,
            automatic=Automatic(kind=AutomaticKind.OWN, why="it comes from a number of ours") if own else None,
            # Short codes and names are machines, and who wants no more gets no word of ours about it either.
            answerable=asks is not Keyword.STOP and NUMBER.fullmatch(sender) is not None,
            parts=(*files, *text.parts),
            raw=text.raw,
            fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        )

    def standing(self, texts: Iterable[Text]) -> Iterable[Standing]:
        for text in texts:
            asks = keyword(text.body, text.opt_out)
            if asks in (Keyword.STOP, Keyword.START):
                refused = "opted_out" if asks is Keyword.STOP else None
                sender = address(text.sender, self._settings.region)
                yield Standing(channel=self.name, address=sender, at=text.at, refused=refused)

    def _unreadable(self, request: Request) -> Unreadable:
        return Unreadable(
            channel=self.name,
            account="",
            external_id=hashlib.sha256(request.body).hexdigest(),
            received_at=request.received_at,
            reason="signed by Twilio, and neither a message nor news of one",
            raw=request.body,
        )


def _media(fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """By the addresses themselves: what `NumMedia` says need not be true."""
    named = [(fields.get(f"MediaUrl{n}", ""), fields.get(f"MediaContentType{n}", "")) for n in range(MEDIA_MOST)]
    return [(url.strip(), media_type.strip().lower()) for url, media_type in named if url.strip()]


def _file(url: str, media_type: str) -> Part:
    kind = PartKind.CONTACT if media_type in _CARDS else _KINDS.get(media_type.partition("/")[0], PartKind.FILE)
    return Part(kind=kind, media_type=media_type, reference={"url": url})


def _others(fields: Mapping[str, str]) -> list[Part]:
    """A place, a pressed button, or a kind of message that we do not know and that has nothing else."""
    found = []
    place = [fields.get(name, "").strip() for name in ("Label", "Address", "Latitude", "Longitude")]
    if place[2] and place[3]:
        text = ", ".join(each for each in (*place[:2], f"{place[2]} {place[3]}") if each)
        found.append(Part(kind=PartKind.LOCATION, text=text))
    if fields.get("ButtonPayload"):
        found.append(Part(kind=PartKind.BUTTON, text=fields.get("ButtonText", ""), name=fields["ButtonPayload"]))
    kind = fields.get("MessageType", "").strip()
    if kind and not found and not fields.get("Body") and not _media(fields):
        found.append(Part(kind=PartKind.UNKNOWN, name=kind[:80]))
    return found
