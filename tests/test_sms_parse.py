"""Twilio's forms: whose signature is believed, and what becomes of each kind."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels import Parsed
from channels.sms_parse import SmsHook, address
from channels.twilio import NOTHING, form, verify
from domain import AutomaticKind, Forbidden, Message, OutState, Part, PartKind, Standing, Status, Unreadable
from tests.samples import Call, request_of
from tests.samples.sms import CUSTOMER, FORM, NAME, NEW, OURS, URL, incoming, media, settings, signature, signed, status


def hook(**changes: Any) -> SmsHook:
    return SmsHook(NAME, settings(**changes))


def parsed(call: Call, **changes: Any) -> Parsed:
    made = hook(**changes)
    request = request_of(NAME, call)
    made.verify(request)
    return made.parse(request)


def message(fields: dict[str, str]) -> Message:
    [item] = parsed(signed(fields)).items
    assert isinstance(item, Message)
    return item


# --- signatures -------------------------------------------------------------------------------------------------------


def checked(call: Call, url: str, *tokens: str) -> bool:
    try:
        verify(request_of(NAME, call, url=url), tokens)
    except Forbidden:
        return False
    return True


def test_the_example_of_twilios_own_documentation_is_valid() -> None:
    """twilio.com/docs/usage/security: the token is 12345."""
    fields = {
        "CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309",
        "To": "+18005551212",
    }  # fmt: skip
    body = "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in fields.items()).encode()
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    call = Call(body, {"Content-Type": FORM, "X-Twilio-Signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8="})
    assert checked(call, url, "12345")
    assert checked(call, url, "another", "12345")
    assert not checked(call, url, "another")
    assert not checked(call, url)
    assert not checked(call, url.replace("https", "http"), "12345")  # what a proxy made of it was never signed


@pytest.mark.parametrize("signs", ["https://sms.example.com/hooks/sms", "https://sms.example.com:443/hooks/sms"])
def test_the_port_may_or_may_not_be_signed(signs: str) -> None:
    call = Call(b"a=1", {"Content-Type": FORM, "X-Twilio-Signature": signature(signs, {"a": "1"})})
    assert checked(call, "https://sms.example.com/hooks/sms", NEW)
    assert checked(call, "https://sms.example.com:443/hooks/sms", NEW)
    assert not checked(call, "https://sms.example.org/hooks/sms", NEW)


def test_the_newer_signature_is_checked_by_the_digest_that_it_names() -> None:
    url = f"{URL}/hooks/sms"
    newer = signature(url, {"a": "1"}, algorithm="HMAC_SHA256")

    def of(algorithm: str, signed_by: str) -> bool:
        headers = {"Content-Type": FORM, "X-Twilio-Signature": signed_by}
        headers["X-Twilio-Webhooks-Signature-Settings"] = f"key=webhooks_sharedkey_1,algorithm={algorithm}"
        return checked(Call(b"a=1", headers), url, "old", NEW)

    assert of("HMAC_SHA256", newer)
    assert not of("HMAC_SHA256", signature(url, {"a": "1"}))
    assert not of("HMAC_SHA1", newer)
    assert not of("NONE", newer)
    assert not of("HMAC_MD5", newer)


def test_a_name_that_stands_twice_is_signed_with_both_values() -> None:
    url = f"{URL}/hooks/sms"

    class Both(dict[str, str]):
        def getlist(self, name: str) -> list[str]:
            return ["2", "1"]

    call = Call(b"a=2&a=1", {"Content-Type": FORM, "X-Twilio-Signature": signature(url, Both(a=""))})
    assert checked(call, url, NEW)
    assert not checked(Call(b"a=1", call.headers), url, NEW)


def test_a_body_that_is_no_form_is_signed_by_its_digest() -> None:
    body = '{"x": "理赔"}'.encode()
    query = f"bodySHA256={hashlib.sha256(body).hexdigest()}"
    url = f"{URL}/hooks/sms?{query}"
    headers = {"Content-Type": "application/json", "X-Twilio-Signature": signature(url, {})}
    assert checked(Call(body, headers, query), url, NEW)
    assert not checked(Call(body + b" ", headers, query), url, NEW)
    assert not checked(Call(body, headers, ""), f"{URL}/hooks/sms", NEW)
    # A form is never believed for its address alone.
    assert not checked(Call(body, {**headers, "Content-Type": FORM}, query), url, NEW)


@pytest.mark.parametrize("body", [b"&".join(b"a=1" for _ in range(1001)), b"%ff=%fe", b"\xff\xfe=1", b""])
def test_strange_forms_are_refused_and_never_an_exception(body: bytes) -> None:
    assert not checked(Call(body, {"Content-Type": FORM, "X-Twilio-Signature": "x"}), f"{URL}/hooks/sms", NEW)
    assert isinstance(form(body), dict)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_is_read_and_nothing_is_answered() -> None:
    fields = incoming("SM1", "理赔太慢 & 退款+1 🙂", SomethingNew="never mind")
    call = signed(fields)
    found = parsed(call)
    assert found.answer == NOTHING
    assert NOTHING.media_type.startswith("text/xml")
    assert NOTHING.body.endswith(b"<Response/>")
    [item] = found.items
    assert isinstance(item, Message)
    assert (item.account, item.external_id, item.sender) == (OURS, "SM1", CUSTOMER)
    assert (item.thread, item.recipient) == (CUSTOMER, OURS)
    assert item.text == "理赔太慢 & 退款+1 🙂"
    assert item.raw == call.body
    assert item.answerable
    assert found.notices == ()


def test_pictures_and_the_like_are_parts_and_their_words_the_text() -> None:
    types = {
        "image/jpeg": PartKind.IMAGE, "audio/amr": PartKind.AUDIO, "video/3gpp": PartKind.VIDEO,
        "text/x-vcard": PartKind.CONTACT, "application/pdf": PartKind.FILE, "": PartKind.FILE,
    }  # fmt: skip
    fields = incoming("MM1", "", NumMedia="6")
    for number, kind in enumerate(types):
        fields |= {f"MediaUrl{number}": f"https://api.twilio.com/{number}", f"MediaContentType{number}": kind}
    item = message(fields)
    assert item.text == ""
    assert [each.kind for each in item.parts] == list(types.values())
    assert item.parts[0].reference == {"url": "https://api.twilio.com/0"}


def test_a_place_and_a_pressed_button_are_parts() -> None:
    item = message(incoming("SM1", Latitude="31.23", Longitude="121.47", Label="Depot", MessageType="location"))
    assert item.parts == (Part(kind=PartKind.LOCATION, text="Depot, 31.23 121.47"),)
    item = message(incoming("SM2", "Yes, please", ButtonText="Yes, please", ButtonPayload="yes", MessageType="button"))
    assert item.text == "Yes, please"
    assert item.parts == (Part(kind=PartKind.BUTTON, text="Yes, please", name="yes"),)


def test_the_number_of_pictures_is_not_believed() -> None:
    assert message(incoming("MM1", "car") | media(1) | {"NumMedia": "0"}).parts
    assert message(incoming("MM2", "car", NumMedia="99")).parts == ()
    assert message(incoming("MM3", "car", NumMedia="x")).parts == ()


def test_nul_is_left_out() -> None:
    assert message(incoming("SM1", "a\0b")).text == "ab"


@pytest.mark.parametrize("fields", [{"Hello": "world"}, {"MessageSid": "SM1"}, {"MessageSid": "SM1", "From": " "}, {}])
def test_what_is_neither_message_nor_news_is_kept(fields: dict[str, str]) -> None:
    [item] = parsed(signed(fields)).items
    assert isinstance(item, Unreadable)
    assert item.reason


@pytest.mark.parametrize(
    ("dialled", "kept"),
    [
        ("+8613800138000", "+8613800138000"), (" +1 (202) 555-0123 ", "+12025550123"),
        ("13800138000", "+8613800138000"),
        ("0086 138 0013 8000", "+8613800138000"), ("10086", "10086"), ("106575258192021", "106575258192021"),
        ("PINGAN", "PINGAN"), ("Ping An 95", "Ping An 95"), ("whatsapp:+8613800138000", "whatsapp:+8613800138000"),
        ("+", "+"), ("", ""),
    ],
)  # fmt: skip
def test_numbers_are_kept_as_one_dials_them_from_abroad_and_all_else_as_it_is(dialled: str, kept: str) -> None:
    assert address(dialled, "CN") == kept


@pytest.mark.parametrize(("sender", "answerable"), [("10086", False), ("PINGAN", False), (CUSTOMER, True)])
def test_machines_get_no_automatic_answer(sender: str, answerable: bool) -> None:
    assert message(incoming("SM1", "hello", From=sender)).answerable is answerable


def test_a_message_from_a_number_of_ours_is_our_own() -> None:
    automatic = message(incoming("SM1", "hello", From=OURS)).automatic
    assert automatic is not None
    assert automatic.kind is AutomaticKind.OWN


_NAMES = st.sampled_from(
    ["MessageSid", "SmsSid", "From", "To", "Body", "NumMedia", "MediaUrl0", "MediaContentType0", "OptOutType",
     "Latitude", "Longitude", "ButtonPayload", "MessageType", "MessageStatus", "ErrorCode"]
)  # fmt: skip


@given(st.dictionaries(_NAMES, st.text(max_size=40)), st.sampled_from(["", "status"]))
def test_whatever_is_signed_is_a_message_or_news_or_kept(fields: dict[str, str], rest: str) -> None:
    body = urlencode(fields, errors="replace").encode()
    found = hook().parse(request_of(NAME, Call(body, rest=rest)))
    assert found.answer == NOTHING
    told = fields.get("MessageStatus", "").replace("\0", "") not in ("", "received", "receiving")
    assert len(found.items) == 1 or (told and not found.items)


# --- stop, start, help ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said", "refused", "answerable"),
    [
        ("STOP", "", ["opted_out"], False),
        ("退订", "", ["opted_out"], False),
        ("basta", "STOP", ["opted_out"], False),
        ("START", "", [None], True),
        ("恢复", "", [None], True),
        ("HELP", "", [], True),
        ("帮助", "HELP", [], True),
        ("stop", "HELP", [], True),
        ("please stop", "", [], True),
    ],
)
def test_orders_change_the_standing_and_are_kept_as_messages(
    text: str, said: str, refused: list[str | None], answerable: bool
) -> None:
    found = parsed(signed(incoming("SM1", text) | ({"OptOutType": said} if said else {})))
    [item] = found.items
    assert isinstance(item, Message)
    assert (item.text, item.answerable) == (text, answerable)
    standings = [each for each in found.notices if isinstance(each, Standing)]
    assert [each.refused for each in standings] == refused
    assert {each.address for each in standings} <= {item.sender}


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("accepted", None), ("scheduled", None), ("queued", None), ("sending", None), ("something-new", None),
        ("sent", OutState.SENT), ("delivered", OutState.DELIVERED), ("read", OutState.DELIVERED),
        ("undelivered", OutState.FAILED), ("failed", OutState.FAILED), ("canceled", OutState.FAILED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rest", ["status", ""])
def test_statuses_become_ours(told: str, state: OutState | None, rest: str) -> None:
    found = parsed(signed(status("SM1", told), rest=rest, query="account=%2B1999"))
    assert found.items == ()
    assert [each.state for each in found.notices if isinstance(each, Status)] == ([state] if state else [])
    for each in found.notices:
        assert isinstance(each, Status)
        assert (each.account, each.provider_id) == ("+1999", "SM1")
        assert bool(each.reason) is (state is OutState.FAILED)


def test_the_reason_of_a_failure_is_in_words() -> None:
    [told] = parsed(signed(status("SM1", "undelivered", ErrorCode="30006"))).notices
    assert isinstance(told, Status)
    assert told.account == OURS
    assert "landline" in told.reason
    [told] = parsed(signed(status("SM1", "failed", ErrorCode="²"))).notices
    assert isinstance(told, Status)
    assert told.reason


def test_who_opted_out_meanwhile_is_noted_too() -> None:
    told, standing = parsed(signed(status("SM1", "failed", ErrorCode="21610"))).notices
    assert isinstance(told, Status)
    assert isinstance(standing, Standing)
    assert (standing.address, standing.refused) == (CUSTOMER, "opted_out")
