"""Samples of SMS by Twilio: forms as it posts them, signed by the library's own validator."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from pydantic import SecretStr
from twilio.request_validator import RequestValidator

from channels import Channel, Surroundings
from channels.settings import SmsSettings
from channels.sms import channel
from domain import OutState, PartKind, Reply
from tests.samples import Call, Example, NoLeases, Samples

NAME = "sms"
URL = "http://sluice.test"
ACCOUNT = "AC" + "5" * 32
NEW, OLD = "the new token", "the old token"
OURS, CUSTOMER = "+12025550123", "+8613800138000"
FORM = "application/x-www-form-urlencoded"


def settings(**changes: Any) -> SmsSettings:
    given: dict[str, Any] = {
        "enabled": True,
        "account_sid": ACCOUNT,
        "auth_tokens": [SecretStr(NEW), SecretStr(OLD)],
        "numbers": [OURS],
        "timeout": 2.0,
    }
    return SmsSettings(**(given | changes))


def make(**changes: Any) -> Channel:
    return channel(NAME, settings(**changes), Surroundings(URL, NoLeases()))


def incoming(sid: str, body: str = "", **more: str) -> dict[str, str]:
    """What Twilio posts for a message."""
    given = {
        "ToCountry": "US",
        "SmsMessageSid": sid,
        "NumMedia": "0",
        "SmsSid": sid,
        "SmsStatus": "received",
        "Body": body,
        "To": OURS,
        "NumSegments": "1",
        "MessageSid": sid,
        "AccountSid": ACCOUNT,
        "From": CUSTOMER,
        "ApiVersion": "2010-04-01",
    }
    return given | more


def status(sid: str, state: str, **more: str) -> dict[str, str]:
    """What Twilio posts when a message of ours comes along."""
    given = {
        "SmsSid": sid, "SmsStatus": state, "MessageStatus": state, "To": CUSTOMER, "MessageSid": sid,
        "AccountSid": ACCOUNT, "From": OURS, "ApiVersion": "2010-04-01",
    }  # fmt: skip
    return given | more


def signature(url: str, form: Mapping[str, str], token: str = NEW, algorithm: str | None = None) -> str:
    return str(RequestValidator(token).compute_signature(url, form, algorithm))


def signed(form: Mapping[str, str], token: str = NEW, *, rest: str = "", query: str = "") -> Call:
    url = f"{URL}/hooks/{NAME}" + (f"/{rest}" if rest else "") + (f"?{query}" if query else "")
    headers = {"Content-Type": FORM, "X-Twilio-Signature": signature(url, form, token)}
    return Call(urlencode(form).encode(), headers, query, rest)


def signed_form(body: bytes, like: Call) -> Call:
    """Any body as a form, signed as one at the address of another call."""
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ValueError("Twilio names no field twice")
    return Call(body, signed(given, rest=like.rest, query=like.query).headers, like.query, like.rest)


def signed_body(body: bytes, token: str = NEW) -> Call:
    """Anything that is no form is signed by its digest, in the address."""
    query = f"bodySHA256={hashlib.sha256(body).hexdigest()}"
    given = signature(f"{URL}/hooks/{NAME}?{query}", {}, token)
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": given}
    return Call(body, headers, query)


def told(sid: str, state: str, **more: str) -> Call:
    return signed(status(sid, state, **more), rest="status", query=f"account={quote(OURS, safe='')}")


def media(number: int, media_type: str = "image/jpeg") -> dict[str, str]:
    url = f"https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Messages/MM{number}/Media/ME{number}"
    return {"NumMedia": "1", "MediaUrl0": url, "MediaContentType0": media_type}


def error(number: int, http: int = 400) -> bytes:
    return json.dumps({"code": number, "message": "no", "more_info": "", "status": http}).encode()


def record(sid: str, **more: Any) -> dict[str, Any]:
    """A message as the REST API tells of it."""
    now = format_datetime(datetime.now(UTC))
    given: dict[str, Any] = {
        "sid": sid, "account_sid": ACCOUNT, "to": CUSTOMER, "from": OURS, "body": "您好", "direction": "outbound-api",
        "status": "queued", "num_media": "0", "num_segments": "1", "date_created": now, "date_updated": now,
        "date_sent": None, "error_code": None, "error_message": None, "messaging_service_sid": None, "price": None,
        "price_unit": "USD", "api_version": "2010-04-01", "uri": "", "subresource_uris": {},
    }  # fmt: skip
    return given | more


def listed(sendings: Sequence[bytes]) -> bytes:
    """Twilio's list of messages, when it took these."""
    forms = [dict(parse_qsl(each.decode())) for each in sendings]
    found = [record(f"SM{number:032}", body=each["Body"]) for number, each in enumerate(forms)]
    return json.dumps({"messages": found[::-1], "next_page_uri": None}).encode()


def samples() -> Samples:
    good = signed(incoming("SM1", "where is my money & 1+1"))
    whole = good.headers["X-Twilio-Signature"]
    json_headers = {"Content-Type": "application/json"}
    path = f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"

    def with_signature(value: str) -> Call:
        return Call(good.body, {**good.headers, "X-Twilio-Signature": value})

    return Samples(
        make=make,
        examples=[
            Example("zh", signed(incoming("SM11", "理赔太慢 & 退款+1")), ["理赔太慢 & 退款+1"]),
            Example("en", signed(incoming("SM12", "My claim takes too long")), ["My claim takes too long"]),
            Example("emoji", signed(incoming("SM13", "😡👨‍👩‍👧 no answer")), ["😡👨‍👩‍👧 no answer"]),
            Example("media", signed(incoming("MM14", "我的车", **media(14))), ["我的车"], [PartKind.IMAGE]),
            Example("empty", signed(incoming("MM15", "", **media(15, "audio/amr"))), [""], [PartKind.AUDIO]),
            Example("nothing", signed(incoming("SM16")), [""]),
            Example("unknown", signed(incoming("SM17", MessageType="hologram")), [""], [PartKind.UNKNOWN]),
            Example("short code", signed(incoming("SM18", "本月账单", From="10086")), ["本月账单"]),
            Example("stop", signed(incoming("SM19", "退订")), ["退订"]),
        ],
        rotated=signed(incoming("SM2", "signed by the older token"), OLD),
        unsigned={
            "missing": Call(good.body, {"Content-Type": FORM}),
            "empty": with_signature(""),
            "wrong": with_signature("0" * 27 + "="),
            "truncated": with_signature(whole[:-2]),
            "not ascii": with_signature("ü" * 28),
            "other secret": signed(incoming("SM1", "where is my money"), "another token"),
            "other body": Call(good.body.replace(b"money", b"Money"), good.headers),
            "a field more": Call(good.body + b"&OptOutType=STOP", good.headers),
            "other address": Call(good.body, good.headers, rest="status"),
            "no form": Call(good.body, {"X-Twilio-Signature": whole}),
            "json without its digest": Call(
                b"{}", {**json_headers, "X-Twilio-Signature": signature(f"{URL}/hooks/{NAME}", {})}
            ),
            "json of another digest": Call(b"{ }", signed_body(b"{}").headers, signed_body(b"{}").query),
        },
        garbage=signed({"Hello": "world"}),
        statuses=[
            (told("SM31", "sent"), "SM31", OutState.SENT),
            (told("SM31", "delivered"), "SM31", OutState.DELIVERED),
            (told("SM32", "undelivered", ErrorCode="30003"), "SM32", OutState.FAILED),
            (told("SM33", "failed"), "SM33", OutState.FAILED),
        ],
        too_long="请" * 4801,
        sign=signed_body,
        sign_at=signed_form,
        errors=[
            ("no number", 400, json_headers, error(21211), {"permanent": True}),
            ("opted out", 400, json_headers, error(21610), {"permanent": True, "refused": "opted_out"}),
            ("not our number", 400, json_headers, error(21606), {"broken": True, "pause": True}),
            ("new number of an error", 400, json_headers, error(21999), {"permanent": True}),
            ("limit", 429, {**json_headers, "Retry-After": "7"}, error(20429, 429), {"retry": True, "pause": True}),
            ("queue full", 400, json_headers, error(21611), {"retry": True, "pause": True}),
            ("token refused", 401, json_headers, error(20003, 401), {"broken": True, "pause": True}),
            ("account unknown", 404, json_headers, error(20404, 404), {"broken": True, "pause": True}),
            ("down", 503, {"Content-Type": "text/html"}, b"<html>503</html>", {"retry": True}),
            ("gate", 403, {"Content-Type": "text/html"}, b"<html>sign in</html>", {"retry": True}),
            ("html", 200, {"Content-Type": "text/html"}, b"<html>sign in</html>", {"unknown": True}),
            ("no sid", 201, json_headers, b"{}", {"unknown": True}),
            ("a list", 201, json_headers, b"[]", {"unknown": True}),
        ],
        at=lambda url: make(api_url=url),
        taken=(201, json_headers, json.dumps(record("SM" + "4" * 32)).encode()),
        beside={f"{path}?": listed},
        reply=Reply(to=CUSTOMER, text="您好", key="k1", account=OURS),
    )
