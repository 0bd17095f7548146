"""WeChat in: signatures, the three modes, every kind of message and event, and what must not get in or break us.

wechatpy, which others wrote, signs and seals what comes in, and reads it as a second opinion.
"""

from __future__ import annotations

import json
import random
import string
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from wechatpy import parse_message  # type: ignore[import-untyped]
from wechatpy.exceptions import InvalidAppIdException, InvalidSignatureException  # type: ignore[import-untyped]
from wechatpy.utils import check_signature  # type: ignore[import-untyped]

from channels import Parsed
from channels.wechat import WechatHook
from channels.wechat_crypto import key_of, signature
from domain import AutomaticKind, Forbidden, Message, Part, PartKind, Standing, Unreadable
from tests.samples import Call, request_of
from tests.samples.wechat import (
    ACCOUNT,
    KEYS,
    OPENID,
    TOKENS,
    challenge,
    enveloped,
    opened_by_wechatpy,
    plain,
    samples,
    sealed,
    settings,
    signed_by_wechatpy,
    xml,
)

SAMPLES = samples()


def hook(**changes: Any) -> WechatHook:
    return WechatHook("wechat", settings(**changes))


def taken(call: Call, **changes: Any) -> Parsed:
    """What a call brings, once it is found to be WeChat's."""
    made = hook(**changes)
    request = request_of("wechat", call)
    made.verify(request)
    parsed = made.parse(request)
    assert parsed.answer.body == b"success"
    return parsed


def message(body: bytes, **changes: Any) -> Message:
    [item] = taken(sealed(body), **changes).items
    assert isinstance(item, Message)
    return item


def unreadable(call: Call, **changes: Any) -> Unreadable:
    [item] = taken(call, **changes).items
    assert isinstance(item, Unreadable)
    assert item.reason
    return item


def query(call: Call) -> dict[str, str]:
    return dict(parse_qsl(call.query))


# --- signatures -------------------------------------------------------------------------------------------------------


def test_wechatpy_and_we_sign_alike() -> None:
    chance = random.Random(7)
    for _ in range(200):
        parts = ["".join(chance.choices(string.ascii_letters + string.digits, k=chance.randint(1, 40))) for _ in "abc"]
        assert signature("a token", *parts) == signed_by_wechatpy("a token", *parts)


def test_wechatpy_and_we_open_alike() -> None:
    call = sealed(xml(Content="理赔😡 ]]> <b>"))
    theirs = opened_by_wechatpy(call, TOKENS[0], KEYS[0], query(call))
    found = message(xml(Content="理赔😡 ]]> <b>"))
    assert [each.raw.decode() for each in taken(call).items] == [theirs]
    assert found.text == parse_message(theirs).content == "理赔😡 ]]> <b>"


def test_every_key_that_the_account_page_can_show_is_understood() -> None:
    chance = random.Random(3)
    for _ in range(100):
        key = "".join(chance.choices(string.ascii_letters + string.digits, k=43))
        assert len(key_of(key)) == 32
        assert isinstance(taken(sealed(xml(), key=key), aes_keys=[key]).items[0], Message)


@pytest.mark.parametrize("name", SAMPLES.unsigned)
def test_what_is_not_signed_is_refused(name: str) -> None:
    with pytest.raises(Forbidden):
        hook().verify(request_of("wechat", SAMPLES.unsigned[name]))


@pytest.mark.parametrize("mode", ["plain", "compatible"])
def test_a_plain_request_is_signed_by_its_time_and_nonce(mode: str) -> None:
    call = plain(xml(Content="hello"))
    check_signature(TOKENS[0], *(query(call)[name] for name in ("signature", "timestamp", "nonce")))
    [item] = taken(call, mode=mode).items
    assert isinstance(item, Message)
    assert item.text == "hello"
    with pytest.raises(InvalidSignatureException):
        check_signature("another", *(query(call)[name] for name in ("signature", "timestamp", "nonce")))
    for wrong in (plain(xml(), token="another"), plain(xml(), at=time.time() - 700)):
        with pytest.raises(Forbidden):
            taken(wrong, mode=mode)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("key", KEYS)
def test_old_and_new_tokens_and_keys_are_taken_while_they_change(token: str, key: str) -> None:
    assert taken(sealed(xml(Content="hello"), token, key)).items
    assert taken(plain(xml(Content="hello"), token), mode="plain").items


@pytest.mark.parametrize("stamp", ["", "-5", "1e9", "９９９", "9" * 30])
def test_a_time_that_is_none_is_refused(stamp: str) -> None:
    call = plain(xml())
    parts = query(call) | {"timestamp": stamp, "signature": signed_by_wechatpy(TOKENS[0], stamp, query(call)["nonce"])}
    with pytest.raises(Forbidden):
        hook(mode="plain").verify(request_of("wechat", call, query=parts))


def test_wechat_makes_sure_of_us() -> None:
    made = hook()
    assert made.challenge(request_of("wechat", challenge())).body == b"5838479218127813673"
    assert made.challenge(request_of("wechat", challenge(TOKENS[1]))).body == b"5838479218127813673"
    for call in (challenge("another"), challenge(at=time.time() - 700), Call(b"", method="GET")):
        with pytest.raises(Forbidden):
            made.challenge(request_of("wechat", call))


# --- modes ------------------------------------------------------------------------------------------------------------


def test_in_the_compatible_mode_what_is_sealed_counts() -> None:
    call = sealed(xml(Content="inside", MsgId=1), beside=xml(Content="outside", MsgId=2))
    [item] = taken(call, mode="compatible").items
    assert isinstance(item, Message)
    assert (item.text, item.external_id) == ("inside", "1")
    forged = Call(call.body.replace(b"outside", b"changed"), call.headers, call.query)
    assert taken(forged, mode="compatible").items == (item,)
    # The signature of the plain mode does not vouch for a sealed part.
    with pytest.raises(Forbidden):
        taken(Call(call.body, call.headers, plain(b"").query), mode="compatible")


def test_in_the_plain_mode_what_is_sealed_is_kept_for_people_to_see() -> None:
    found = unreadable(sealed(xml(Content="inside")), mode="plain")
    assert "missing" in found.reason
    assert b"<Encrypt>" in found.raw


def test_what_no_key_opens_is_kept_with_its_reason() -> None:
    call = sealed(xml(Content="hello"), key="z" * 43)
    assert "wechat.aes_keys" in unreadable(call).reason
    assert unreadable(call).raw == call.body


def test_what_is_sealed_for_another_app_is_kept_apart() -> None:
    call = sealed(xml(Content="hello"), app_id="wxffffffffffffffff")
    with pytest.raises(InvalidAppIdException):
        opened_by_wechatpy(call, TOKENS[0], KEYS[0], query(call))
    assert "another app" in unreadable(call).reason


@pytest.mark.parametrize("secret", ["bm8gY2lwaGVydGV4dA==", "!!!", "AAAA", "A" * 64, "é" * 20])
def test_garbage_in_place_of_the_sealed_part_is_kept(secret: str) -> None:
    assert b"<Encrypt>" in unreadable(enveloped(secret)).raw


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", SAMPLES.examples, ids=lambda example: example.name)
def test_the_samples_say_what_they_say(example: Any) -> None:
    items = taken(example.call, mode="compatible").items
    assert [item.text for item in items if isinstance(item, Message)] == list(example.texts)
    kinds = [part.kind for item in items if isinstance(item, Message) for part in item.parts]
    assert kinds == list(example.kinds)


def test_a_message_is_named_as_wechat_names_it() -> None:
    at = int(time.time()) - 3
    found = message(xml(Content="hello", MsgId=6520106268131360945, CreateTime=at))
    assert (found.channel, found.account, found.sender, found.thread) == ("wechat", ACCOUNT, OPENID, OPENID)
    assert found.external_id == "6520106268131360945"
    assert found.received_at == datetime.fromtimestamp(at, UTC)
    assert b"<Content>" in found.raw


@pytest.mark.parametrize("created", [0, 1348831860, 4102444800, "soon", "", "-1", 10**30])
def test_a_time_that_cannot_be_is_not_believed(created: object) -> None:
    assert abs(time.time() - message(xml(Content="hello", CreateTime=created)).received_at.timestamp()) < 5


@pytest.mark.parametrize(("heard", "text"), [("我要报案。", "我要报案"), ("", ""), ("。", ""), ("真的？", "真的？")])
def test_what_wechat_heard_is_the_text_of_a_voice_message(heard: str, text: str) -> None:
    found = message(xml("voice", MediaId="m1", Format="amr", MediaId16K="m2", Recognition=heard))
    assert found.text == text
    assert found.parts == (Part(kind=PartKind.AUDIO, media_type="audio/amr", reference={"media_id": "m1"}),)


@pytest.mark.parametrize(
    ("kind", "values", "part"),
    [
        ("image", {"PicUrl": "http://x", "MediaId": "m"},
         Part(kind=PartKind.IMAGE, media_type="image/jpeg", reference={"media_id": "m"})),
        ("video", {"MediaId": "m", "ThumbMediaId": "t"},
         Part(kind=PartKind.VIDEO, media_type="video/mp4", reference={"media_id": "m"})),
        ("shortvideo", {"MediaId": "m", "ThumbMediaId": "t"},
         Part(kind=PartKind.VIDEO, media_type="video/mp4", reference={"media_id": "m"})),
        ("voice", {"MediaId": "m", "Format": "speex"},
         Part(kind=PartKind.AUDIO, media_type="audio/speex", reference={"media_id": "m"})),
        ("voice", {"Format": "../x"}, Part(kind=PartKind.AUDIO, media_type="audio/amr")),
        ("location", {"Location_X": "23.134521", "Location_Y": "113.358803", "Scale": "20", "Label": "广州市"},
         Part(kind=PartKind.LOCATION, text="广州市 (23.134521, 113.358803)")),
        ("location", {"Location_X": "1", "Location_Y": "2"}, Part(kind=PartKind.LOCATION, text="1, 2")),
        ("link", {"Title": "公告", "Description": "", "Url": "https://a.example"},
         Part(kind=PartKind.LINK, text="公告\nhttps://a.example")),
        ("file", {"Title": "保单.pdf", "FileKey": "k", "FileMd5": "5", "FileTotalLen": 10203788},
         Part(kind=PartKind.FILE, name="保单.pdf")),
        ("hologram", {"Anything": "1"}, Part(kind=PartKind.UNKNOWN, text="hologram")),
        ("text", {"Content": "【收到不支持的消息类型，暂无法显示】"},
         Part(kind=PartKind.UNKNOWN, text="not handed on by WeChat")),
        ("text", {"Content": "[收到不支持的消息类型,暂时无法显示]"},
         Part(kind=PartKind.UNKNOWN, text="not handed on by WeChat")),
    ],
)  # fmt: skip
def test_what_is_no_text_is_a_typed_part(kind: str, values: dict[str, Any], part: Part) -> None:
    found = message(xml(kind, **values))
    assert (found.text, found.parts) == ("", (part,))


def test_a_choice_of_a_question_of_ours_is_a_button_and_its_words() -> None:
    found = message(xml(Content="不满意", bizmsgmenuid="102"))
    assert (found.text, found.parts) == ("不满意", (Part(kind=PartKind.BUTTON, text="不满意", name="102"),))


def test_an_account_that_chose_json_is_read_too() -> None:
    body = {"ToUserName": ACCOUNT, "FromUserName": OPENID, "CreateTime": int(time.time()), "MsgType": "text"}
    inside = json.dumps(body | {"Content": "理赔😡", "MsgId": 5}, ensure_ascii=False).encode()
    found = message(inside)
    assert (found.text, found.external_id) == ("理赔😡", "5")
    envelope = sealed(inside)
    secret = envelope.body.partition(b"<Encrypt><![CDATA[")[2].partition(b"]]>")[0].decode()
    call = Call(json.dumps({"ToUserName": ACCOUNT, "Encrypt": secret}).encode(), {}, envelope.query)
    assert [item.raw for item in taken(call).items] == [inside]


def test_who_writes_may_be_answered_even_where_the_event_of_following_again_was_lost() -> None:
    [notice] = taken(sealed(xml(Content="hello"))).notices
    assert isinstance(notice, Standing)
    assert (notice.address, notice.refused) == (OPENID, None)


# --- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    ["subscribe", "unsubscribe", "SCAN", "VIEW", "LOCATION", "TEMPLATESENDJOBFINISH", "MASSSENDJOBFINISH",
     "view_miniprogram", "scancode_push", "pic_weixin", "location_select", "kf_create_session"],
)  # fmt: skip
def test_an_event_that_is_no_message_is_kept_and_never_answered(event: str) -> None:
    found = message(xml("event", Event=event, EventKey="qrscene_1", Latitude="23.1", MsgID=7))
    assert found.automatic is not None
    assert found.automatic.kind is AutomaticKind.REPORT
    assert found.automatic.why.startswith(f"event {event}: ")
    assert (found.text, found.parts, found.answerable) == ("", (), False)


def test_an_event_that_nobody_knows_is_typed_and_kept() -> None:
    found = message(xml("event", Event="teleported"))
    assert found.automatic is not None
    assert "not known" in found.automatic.why
    assert [part.kind for part in found.parts] == [PartKind.UNKNOWN]


@pytest.mark.parametrize(("event", "refused"), [("subscribe", None), ("unsubscribe", "unsubscribed")])
def test_following_and_leaving_say_whether_answers_may_go_out(event: str, refused: str | None) -> None:
    [notice] = taken(sealed(xml("event", Event=event))).notices
    assert isinstance(notice, Standing)
    assert (notice.channel, notice.address, notice.refused) == ("wechat", OPENID, refused)


def test_an_event_is_named_by_who_when_and_what() -> None:
    at = int(time.time())
    found = message(xml("event", Event="CLICK", EventKey="V1001", CreateTime=at))
    assert found.external_id == f"{OPENID}:{at}:CLICK:V1001"
    assert message(xml("event", Event="unsubscribe", CreateTime=at)).external_id == f"{OPENID}:{at}:unsubscribe"
    jobs = {message(xml("event", Event="TEMPLATESENDJOBFINISH", CreateTime=at, MsgID=n)).external_id for n in range(3)}
    assert len(jobs) == 3


@pytest.mark.parametrize(
    ("key", "text"),
    [("我要报案", "我要报案"), ("File a claim", "File a claim"), ("V1001", "我的理赔"), ("V1002_CLAIM", ""), ("", "")],
)
def test_a_tap_on_the_menu_is_a_message_where_it_has_words(key: str, text: str) -> None:
    found = message(xml("event", Event="CLICK", EventKey=key), menu={"V1001": "我的理赔"})
    assert found.text == text
    assert (found.automatic is None) == bool(text)
    if text:
        assert found.parts == (Part(kind=PartKind.BUTTON, text=text, name=key),)


def test_who_closed_their_account_is_named() -> None:
    found = message(xml("event", Event="user_authorization_cancellation", OpenID="o-of-the-person"))
    assert found.sender == "o-of-the-person"
    assert found.automatic is not None
    assert "erased" in found.automatic.why


# --- hostile content --------------------------------------------------------------------------------------------------

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%b">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><xml><MsgType>text</MsgType><ToUserName>a</ToUserName><FromUserName>b</FromUserName>"
    b"<Content>&j;</Content></xml>"
)
ENTITY = b'<!DOCTYPE x [<!ENTITY a "text">]>' + xml(MsgType=None).replace(b"</xml>", b"<MsgType>&a;</MsgType></xml>")


@pytest.mark.parametrize(
    "body",
    [b"", b"<xml></xml>", b"<xml/>", b"not xml", b"\xff\x00\xfe", BOMB, ENTITY, b"{", b"{}", b"[]", b"{" * 100_000,
     b"<x>" * 100_000, b"<x>" * 50_000 + b"</x>" * 50_000, b'<?xml version="1.0" encoding="klingon"?><xml/>',
     xml(FromUserName="x" * 5000), xml(MsgType=""), xml(ToUserName=None)],
    ids=range(17),
)  # fmt: skip
def test_what_is_sealed_but_no_message_is_kept_whole(body: bytes) -> None:
    for call, changes in ((sealed(body or b" "), {}), (plain(body), {"mode": "plain"})):
        started = time.perf_counter()
        found = unreadable(call, **changes)
        assert time.perf_counter() - started < 2
        assert found.raw.strip() == body.strip()


def test_an_entity_bomb_outside_of_the_seal_is_refused() -> None:
    call = Call(BOMB, {}, sealed(xml()).query)
    with pytest.raises(Forbidden):
        taken(call)


@pytest.mark.parametrize("text", ["a]]>b", "</Content><FromUserName>x", "]]><FromUserName>x</FromUserName><![CDATA["])
def test_text_cannot_become_a_field(text: str) -> None:
    found = message(xml(Content=text))
    assert (found.text, found.sender) == (text, OPENID)


def test_control_characters_of_keyboards_cost_no_message() -> None:
    assert message(xml(Content="理\x08赔\x00 \x1fnow")).text == "理赔 now"


@given(st.binary(max_size=300))
def test_no_sealed_content_breaks_us(body: bytes) -> None:
    made = hook()
    request = request_of("wechat", sealed(body))
    made.verify(request)
    assert made.parse(request).items


@given(st.dictionaries(st.sampled_from(["MsgType", "Event", "EventKey", "CreateTime", "Content", "MediaId", "MsgId"]),
                       st.text(max_size=40)))  # fmt: skip
def test_no_values_of_fields_break_us(values: dict[str, str]) -> None:
    body = json.dumps({"ToUserName": ACCOUNT, "FromUserName": OPENID, "MsgType": "event"} | values).encode()
    assert hook().parse(request_of("wechat", sealed(body))).items


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"app_id": ""}, "app_id"), ({"tokens": []}, "TOKENS"), ({"aes_keys": []}, "AES_KEYS"),
     ({"aes_keys": ["short"]}, "43 characters"), ({"aes_keys": ["!" * 43]}, "43 characters")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**changes)
