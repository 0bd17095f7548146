"""Samples of calls by Twilio: forms as it posts them, signed by the library's own validator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from pydantic import SecretStr
from twilio.request_validator import RequestValidator

from channels import Channel, Surroundings
from channels.phone import channel
from channels.settings import PhoneSettings
from domain import PartKind
from tests.samples import Call, Example, NoLeases, Samples

NAME = "phone"
URL = "http://sluice.test"
ACCOUNT = "AC" + "5" * 32
NEW, OLD = "the new token", "the old token"
OURS, CUSTOMER = "+12025550123", "+8613800138000"
FORM = "application/x-www-form-urlencoded"


def settings(**changes: Any) -> PhoneSettings:
    given: dict[str, Any] = {
        "enabled": True,
        "account_sid": ACCOUNT,
        "auth_tokens": [SecretStr(NEW), SecretStr(OLD)],
        "numbers": [OURS],
        "timeout": 2.0,
    }
    return PhoneSettings(**(given | changes))


def make(**changes: Any) -> Channel:
    return channel(NAME, settings(**changes), Surroundings(URL, NoLeases()))


def sid_of(number: int) -> str:
    return f"CA{number:032x}"


def fields(number: int, **more: str) -> dict[str, str]:
    """What Twilio posts with every turn of a call."""
    given = {
        "AccountSid": ACCOUNT,
        "ApiVersion": "2010-04-01",
        "CallSid": sid_of(number),
        "CallStatus": "in-progress",
        "Called": OURS,
        "Caller": CUSTOMER,
        "Direction": "inbound",
        "From": CUSTOMER,
        "FromCountry": "CN",
        "To": OURS,
    }
    return given | more


def recording(number: int, **more: str) -> dict[str, str]:
    """What Twilio posts when a recording is ready: neither From nor To."""
    sid = f"RE{number:032x}"
    given = {
        "AccountSid": ACCOUNT,
        "CallSid": sid_of(number),
        "RecordingSid": sid,
        "RecordingUrl": f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Recordings/{sid}",
        "RecordingStatus": "completed",
        "RecordingDuration": "7",
        "RecordingChannels": "1",
        "RecordingSource": "RecordVerb",
        "ErrorCode": "0",
    }
    return given | more


def signature(url: str, form: Mapping[str, str], token: str = NEW) -> str:
    return str(RequestValidator(token).compute_signature(url, form))


def signed(form: Mapping[str, str], token: str = NEW, *, rest: str = "", query: str = "", base: str = URL) -> Call:
    url = f"{base}/hooks/{NAME}" + (f"/{rest}" if rest else "") + (f"?{query}" if query else "")
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature(url, form, token)}
    return Call(urlencode(form).encode(), headers, query, rest)


def spoken(number: int, text: str, *, turn: int = 1, lang: str = "zh", confidence: str = "0.93") -> Call:
    """A sentence, as `<Gather>` posts it."""
    form = fields(number, SpeechResult=text, Confidence=confidence, Language="cmn-Hans-CN")
    return signed(form, rest="words", query=f"lang={lang}&turn={turn}&miss=0")


def signed_body(body: bytes, like: Call | None = None) -> Call:
    """Any body as a form, signed as one; at the address of another call where one is given."""
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ValueError("Twilio names no field twice")
    rest, query = (like.rest, like.query) if like is not None else ("", "")
    return Call(body, signed(given, rest=rest, query=query).headers, query, rest)


def samples() -> Samples:
    content = fields(1)
    good = signed(content)
    whole = good.headers["X-Twilio-Signature"]

    def with_signature(value: str) -> Call:
        return Call(good.body, {"Content-Type": FORM, "X-Twilio-Signature": value})

    return Samples(
        make=make,
        examples=[
            Example("empty", signed(fields(11)), [""], [PartKind.CALL]),
            Example("zh", spoken(12, "理赔三周没有消息 & 退款"), ["理赔三周没有消息 & 退款"]),
            Example("en", spoken(13, "where is my money", lang="en"), ["where is my money"]),
            Example("emoji", spoken(14, "I'm furious 😡"), ["I'm furious 😡"]),
            Example("unsure", spoken(15, "嗯那个", confidence="0.31"), ["嗯那个"], [PartKind.CALL]),
            Example("media", signed(recording(16), rest="recording"), [""], [PartKind.AUDIO]),
            Example("key", signed(fields(17, Digits="0"), rest="words", query="lang=en&turn=1"),
                    ["Talk to a person"], [PartKind.BUTTON]),
            Example("ended", signed(fields(18, CallStatus="completed", CallDuration="4"), rest="status"),
                    [""], [PartKind.CALL]),
            Example("transcript", signed(fields(19, TranscriptionSid="TR" + "1" * 32, TranscriptionStatus="completed",
                                                TranscriptionText="I want to cancel"), rest="transcript"),
                    ["I want to cancel"], [PartKind.CALL]),
            Example("unknown", signed(fields(20, Wonder="yes"), rest="somewhere/else"), [""], [PartKind.UNKNOWN]),
        ],
        rotated=signed(content, OLD),
        unsigned={
            "missing": Call(good.body, {"Content-Type": FORM}),
            "empty": with_signature(""),
            "wrong": with_signature("RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            "truncated": with_signature(whole[:-2]),
            "not ascii": with_signature("ü" * 28),
            "other secret": signed(content, "another token"),
            "other body": Call(urlencode(fields(2)).encode(), good.headers),
            "other address": Call(good.body, good.headers, rest="words"),
            "other query": Call(good.body, good.headers, query="lang=en"),
        },
        garbage=signed({"Hello": "nobody calls"}),
        when_down=200,
        sign=signed_body,
        sign_at=signed_body,
    )  # fmt: skip
