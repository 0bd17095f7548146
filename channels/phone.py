"""Phone by Twilio voice: a call becomes a ticket from its first webhook, and what the caller says is put on it.

/hooks/phone is where Twilio asks what to do with a call; what it asks next, and what it tells of the call, comes to
addresses below it:

    (none)      a call comes in                      language    a key for the language
    words       what the caller said, or a key       recorded    a message was recorded
    dialled     what became of putting through       recording   a recording is ready, or there is none
    transcript  a recording as text                  status      the call ended

All that concerns one call has its CallSid as thread. That a call ended, or that nobody answered, is added to the
message of its first webhook, so that it wakes no ticket up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from channels import Answer, Channel, Parsed, Request, Surroundings
from channels.phone_account import DeletedRecordings, PhoneProbe, Recordings
from channels.phone_digits import masked
from channels.phone_voice import Turn, Voice, trouble
from channels.phone_words import WORDS, in_danger, wants_person
from channels.settings import PhoneSettings, open_secrets
from channels.twilio import NOTHING, form, verify
from domain import Forbidden, Incoming, Message, Part, PartKind, Unreadable

_SID = re.compile(r"[A-Za-z0-9]{2,36}")
_NUMBER = re.compile(r"\+[1-9][0-9]{4,14}")
_KEYPAD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "22233344455566677778889999")
#: callers who hide their number call from one of these words, as typed on a keypad (Twilio's article "Why am I getting
#: calls from these strange numbers?")
_HIDDEN = {
    f"+{word.translate(_KEYPAD)}"
    for word in ("RESTRICTED", "BLOCKED", "UNKNOWN", "ANONYMOUS", "UNAVAILABLE", "PRIVATE", "NOTPROVIDED")
}
#: below, what a recogniser understood is marked, and the caller is asked once to say it again
_CONFIDENT = 0.5
#: what became of a call, in words for people
_ENDED = {
    "completed": "The call ended",
    "busy": "The line was busy",
    "no-answer": "The call was not answered",
    "failed": "The call could not be connected",
    "canceled": "The caller hung up before the call was answered",
}
_NOT_PUT_THROUGH = {
    "busy": "the line was busy",
    "no-answer": "nobody answered",
    "failed": "the number could not be reached",
    "canceled": "the caller hung up while it rang",
}


@dataclass(frozen=True, slots=True)
class _Call:
    """A verified request about a call."""

    request: Request
    fields: Mapping[str, str]
    sid: str
    #: E.164, a SIP address, or `anonymous:<CallSid>`
    caller: str
    #: our number
    called: str
    turn: Turn

    def field(self, name: str) -> str:
        return self.fields.get(name, "").strip()


#: what a turn brings, and what Twilio is to do next
_Turn = tuple[tuple[Incoming, ...], Answer]


class PhoneHook:
    """What Twilio calls."""

    #: Twilio gives up after 15 s, but a caller hears the silence
    patience: float | None = 3.0

    def __init__(self, name: str, settings: PhoneSettings, public_url: str) -> None:
        self.name = name
        self._settings = settings
        self._tokens = open_secrets(settings.auth_tokens)
        self._seal = _Seal(self._tokens)
        self._voice = Voice(settings, f"{public_url}/hooks/{name}")
        self._steps: Mapping[str, Callable[[_Call], _Turn]] = {
            "": self._begun,
            "language": self._language,
            "words": self._words,
            "recorded": self._recorded,
            "dialled": self._dialled,
            "recording": self._recording,
            "transcript": self._transcript,
            "status": self._status,
        }

    def challenge(self, request: Request) -> Answer:
        raise Forbidden("Twilio calls this address by POST: set HTTP POST there.")

    def verify(self, request: Request) -> None:
        verify(request, self._tokens)

    def parse(self, request: Request) -> Parsed:
        fields = {name: masked(value) if _spoken(name) else value for name, value in form(request.body).items()}
        keep = urlencode(fields).encode() if fields else masked(request.body.decode("utf-8", "replace")).encode()
        call = self._read(request, fields)
        if call is None:
            return Parsed((self._unreadable(request, keep),), answer=_twiml(trouble()), keep=keep)
        items, answer = self._steps.get(request.rest.strip("/"), self._unknown)(call)
        return Parsed(items, answer=answer, keep=keep)

    def spooled(self, request: Request) -> Answer | None:
        """The same as ever: the caller goes on while the request waits on this machine's disk."""
        return self.parse(request).answer

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, request: Request, fields: Mapping[str, str]) -> _Call | None:
        sid = fields.get("CallSid", "")
        if not _SID.fullmatch(sid):
            return None
        caller, called = fields.get("From", ""), fields.get("To", "")
        if not (caller and called):  # what Twilio tells of recordings names neither
            sealed = self._seal.open(request.query.get("who", ""))
            caller, called = caller or sealed[0], called or sealed[1]
        caller = _caller(caller, sid)
        turn = Turn.read(
            request.query,
            list(self._settings.languages),
            anonymous=caller.startswith("anonymous:"),
            who=self._seal.close(caller, called),
        )
        return _Call(request, fields, sid, caller, called.strip()[:128], turn)

    def _unreadable(self, request: Request, keep: bytes) -> Unreadable:
        return Unreadable(
            channel=self.name,
            account=self._settings.account_sid,
            external_id=f"sha256:{hashlib.sha256(request.body).hexdigest()}",
            received_at=request.received_at,
            reason="A request of Twilio that names no call.",
            raw=keep,
        )

    # --- turns: what comes in, and what the caller hears --------------------------------------------------------------

    def _begun(self, call: _Call) -> _Turn:
        if call.field("CallStatus") in _ENDED:
            return self._status(call)
        message = self._message(call, call.sid, parts=(_note("A call came in"),))
        return (message,), _twiml(self._voice.greet(call.turn))

    def _language(self, call: _Call) -> _Turn:
        key = call.field("Digits")
        if key == "0":
            return self._pressed_0(call)
        turn = Turn(
            language=self._voice.language_of(key, call.turn),
            number=call.turn.number,
            anonymous=call.turn.anonymous,
            who=call.turn.who,
        )
        return (), _twiml(self._voice.ask(turn))

    def _words(self, call: _Call) -> _Turn:
        said, turn = call.field("SpeechResult"), call.turn
        if said:
            return self._said(call, said)
        if call.field("Digits") == "0":
            return self._pressed_0(call)
        if turn.told:
            return (), _twiml(self._voice.goodbye(turn))
        if turn.misses < self._settings.reprompts:
            return (), _twiml(self._voice.ask(_with(turn, misses=turn.misses + 1), "again"))
        return (), _twiml(self._voice.record(turn, "again"))

    def _said(self, call: _Call, said: str) -> _Turn:
        confidence = _confidence(call.field("Confidence"))
        unsure = confidence is not None and confidence < _CONFIDENT
        parts = (_note(f"Understood with low confidence ({confidence:.2f})"),) if unsure else ()
        message = self._message(call, f"{call.sid}:{call.turn.number}", text=said, parts=parts)
        if wants_person(said) or call.field("Digits") == "0":
            return (message,), self._person(call, danger=in_danger(said))
        turn = _with(call.turn, misses=0, told=True)
        return (message,), _twiml(self._voice.ask(turn, "unclear" if unsure and not call.turn.told else "noted"))

    def _pressed_0(self, call: _Call) -> _Turn:
        label = WORDS[call.turn.language].wants_person
        parts = (Part(kind=PartKind.BUTTON, text=label, name="0"),)
        message = self._message(call, f"{call.sid}:{call.turn.number}", text=label, parts=parts)
        return (message,), self._person(call)

    def _person(self, call: _Call, *, danger: bool = False) -> Answer:
        twiml = self._voice.person(call.turn, call.request.received_at, our_number=call.called, danger=danger)
        return _twiml(twiml)

    def _recorded(self, call: _Call) -> _Turn:
        items = self._audio(call)
        if call.field("Digits") == "0":
            return items, self._person(call)
        return items, _twiml(self._voice.goodbye(call.turn))

    def _dialled(self, call: _Call) -> _Turn:
        status = call.field("DialCallStatus")
        mark = f"{call.sid}:dialled:{call.turn.number}"
        if status in ("completed", "answered"):
            length = _seconds(call.field("DialCallDuration"))
            return (self._event(call, mark, f"Put through to a person{length}"),), _twiml(self._voice.hang_up())
        why = _NOT_PUT_THROUGH.get(status, status[:40] or "nobody says why")
        item = self._event(call, mark, f"Could not be put through to a person: {why}")
        return (item,), _twiml(self._voice.record(call.turn, "nobody"))

    def _unknown(self, call: _Call) -> _Turn:
        step = call.request.rest[:100]
        digest = hashlib.sha256(call.request.body).hexdigest()[:24]
        part = Part(kind=PartKind.UNKNOWN, text=f"Twilio told something that is not known here: {step}")
        return (self._message(call, f"{call.sid}:unknown:{digest}", parts=(part,)),), _twiml(self._voice.ask(call.turn))

    # --- what Twilio tells of a call: late, twice, in any order or never ----------------------------------------------

    def _recording(self, call: _Call) -> _Turn:
        status, sid = call.field("RecordingStatus"), call.field("RecordingSid")
        if status in ("absent", "failed"):
            why = "nothing was to be heard, or too little" if status == "absent" else "Twilio could not keep it"
            return (self._event(call, f"{sid[:36] or call.sid}:{status}", f"There is no recording: {why}"),), NOTHING
        if status == "in-progress":
            return (), NOTHING
        return self._audio(call), NOTHING

    def _audio(self, call: _Call) -> tuple[Message, ...]:
        """Told twice: when the caller is done, and when the recording can be had."""
        url, sid = call.field("RecordingUrl"), call.field("RecordingSid")
        sid = sid or url.rpartition("/")[2]
        if not url or not _SID.fullmatch(sid):
            return ()
        part = Part(
            kind=PartKind.AUDIO,
            text=f"Recorded message{_seconds(call.field('RecordingDuration'))}",
            media_type="audio/mpeg",
            reference={"url": f"{url.removesuffix('.wav').removesuffix('.mp3')}.mp3"},
        )
        return (self._message(call, f"{call.sid}:recording:{sid}", parts=(part,)),)

    def _transcript(self, call: _Call) -> _Turn:
        text, sid = call.field("TranscriptionText"), call.field("TranscriptionSid")
        if not text or not _SID.fullmatch(sid):
            return (), NOTHING  # it failed, or is empty: the recording itself is with the ticket
        part = _note("Written down from the recording by a machine")
        return (self._message(call, f"{call.sid}:transcript:{sid}", text=text, parts=(part,)),), NOTHING

    def _status(self, call: _Call) -> _Turn:
        status = call.field("CallStatus")
        if status not in _ENDED:
            return (), NOTHING
        length = _seconds(call.field("CallDuration")) if status == "completed" else ""
        return (self._event(call, f"{call.sid}:status:{status}", f"{_ENDED[status]}{length}"),), NOTHING

    # --- messages -----------------------------------------------------------------------------------------------------

    def _event(self, call: _Call, mark: str, text: str) -> Message:
        """Something about the call: added to its first message, or that message itself where it comes first."""
        place = call.called or self._settings.account_sid
        return self._message(call, call.sid, parts=(_note(text),), merges=True, seen_at=(place, mark))

    def _message(self, call: _Call, external_id: str, **values: Any) -> Message:
        # The digest leaves out what differs between two tellings of the same.
        content = f"{external_id}\n{values.get('text', '')}"
        return Message(
            **{
                "channel": self.name,
                "account": call.called or self._settings.account_sid,
                "external_id": external_id,
                "sender": call.caller,
                "sender_name": call.field("CallerName")[:200],
                "received_at": call.request.received_at,
                "text": "",
                "thread": call.sid,
                "recipient": call.called,
                "answerable": False,
                "raw": urlencode(call.fields).encode(),
                "fingerprint": hashlib.sha256(content.encode("utf-8", "replace")).hexdigest(),
                **values,
            }
        )


def _with(turn: Turn, *, misses: int, told: bool = False) -> Turn:
    return Turn(turn.language, turn.number, misses, told or turn.told, turn.anonymous, turn.who)


def _twiml(text: str) -> Answer:
    return Answer(text.encode(), NOTHING.media_type)


def _note(text: str) -> Part:
    return Part(kind=PartKind.CALL, text=text)


def _spoken(field: str) -> bool:
    """Whether a field may hold what a caller said or typed: any but the addresses, also such as are not known yet."""
    return not (field.endswith(("Sid", "Url")) or field in ("From", "To", "Caller", "Called", "ForwardedFrom"))


def _caller(given: str, sid: str) -> str:
    given = given.strip()
    if given.startswith("anonymous:"):  # sealed by us
        return given
    if _NUMBER.fullmatch(given) and given not in _HIDDEN:
        return given
    if given.startswith(("sip:", "sips:", "client:")) and "anonymous" not in given.lower():
        return given[:500]
    return f"anonymous:{sid}"


def _confidence(given: str) -> float | None:
    with suppress(ValueError):
        found = float(given)
        return found if math.isfinite(found) else None
    return None


def _seconds(given: str) -> str:
    return f" ({int(given)} s)" if given.isascii() and given.isdigit() and len(given) < 8 else ""


class _Seal:
    """Caller and number called in an address, so that no proxy's log holds them. The same in gives the same out."""

    def __init__(self, tokens: list[str]) -> None:
        self._keys = [AESSIV(hashlib.sha512(b"who calls\0" + each.encode()).digest()) for each in tokens]

    def close(self, caller: str, called: str) -> str:
        content = f"{caller[:500]}\n{called[:128]}".encode("utf-8", "replace")
        return base64.urlsafe_b64encode(self._keys[0].encrypt(content, None)).decode()

    def open(self, sealed: str) -> tuple[str, str]:
        """Two empty texts for what was not sealed with one of the tokens."""
        try:
            content = base64.urlsafe_b64decode(sealed.encode("ascii"))
        except (ValueError, binascii.Error):
            return "", ""
        for key in self._keys:
            with suppress(InvalidTag, ValueError):
                caller, _line, called = key.decrypt(content, None).decode().partition("\n")
                return caller, called
        return "", ""


def channel(name: str, settings: PhoneSettings, around: Surroundings) -> Channel:
    """Calls by Twilio. There is no way out: people call back."""
    recordings = DeletedRecordings(settings) if settings.delete_recordings else Recordings(settings)
    return Channel(
        name=name,
        hook=PhoneHook(name, settings, around.public_url),
        fetcher=recordings,
        probe=PhoneProbe(name, settings, around.public_url),
    )
