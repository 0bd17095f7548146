"""WeChat's requests, signed and sealed by wechatpy, which others wrote."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from wechatpy.crypto import PrpCrypto, WeChatCrypto  # type: ignore[import-untyped]
from wechatpy.utils import WeChatSigner  # type: ignore[import-untyped]

from channels import Channel, Surroundings
from channels.settings import WechatSettings
from channels.wechat import channel
from channels.wechat_crypto import key_of
from domain import PartKind, Reply
from tests.samples import Call, Example, NoLeases, Samples

APP_ID = "wx5823bf96d3bd56c7"
ACCOUNT = "gh_680bdefc8c5d"
OPENID = "oIDrpjqASyTPnxRmpS9O_ruZGsfk"
TOKENS = ("the-new-token", "the-old-token")
KEYS = ("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG")
NONCE = "1792106704"
JSON = {"Content-Type": "application/json; encoding=utf-8"}


def settings(**changes: Any) -> WechatSettings:
    given: dict[str, Any] = {
        "enabled": True,
        "app_id": APP_ID,
        "app_secret": "the-secret-of-the-app",
        "tokens": list(TOKENS),
        "aes_keys": list(KEYS),
        "api_url": "http://wechat.invalid",
        "timeout": 5,
    }
    return WechatSettings(**(given | changes))


def make(**changes: Any) -> Channel:
    return channel("wechat", settings(**changes), Surroundings("http://sluice.test", NoLeases()))


# --- what WeChat sends ------------------------------------------------------------------------------------------------


def xml(kind: str = "text", **values: Any) -> bytes:
    """A message as WeChat writes it: numbers bare, everything else as CDATA."""
    now = int(time.time())
    fields = {"ToUserName": ACCOUNT, "FromUserName": OPENID, "CreateTime": now, "MsgType": kind} | values
    if kind != "event":
        fields.setdefault("MsgId", 23456789012345678)
    lines = [f"<{name}>{_value(value)}</{name}>" for name, value in fields.items() if value is not None]
    return "\n".join(["<xml>", *lines, "</xml>"]).encode()


def _value(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    return "<![CDATA[" + str(value).replace("]]>", "]]]]><![CDATA[>") + "]]>"


def signed_by_wechatpy(*parts: str) -> str:
    signer = WeChatSigner()
    signer.add_data(*parts)
    return str(signer.signature)


def plain(body: bytes, token: str = TOKENS[0], at: float | None = None, **more: str) -> Call:
    """A request of the plain mode."""
    stamp = str(int(time.time() if at is None else at))
    query = {"signature": signed_by_wechatpy(token, stamp, NONCE), "timestamp": stamp, "nonce": NONCE, "openid": OPENID}
    return Call(body, {"Content-Type": "text/xml"}, urlencode(query | more))


def sealed(
    body: bytes,
    token: str = TOKENS[0],
    key: str = KEYS[0],
    app_id: str = APP_ID,
    at: float | None = None,
    beside: bytes = b"",
) -> Call:
    """A request of the safe mode. `beside`: what stands next to the sealed part, as in the compatible mode."""
    secret = PrpCrypto(key_of(key)).encrypt(body, app_id).decode()
    return enveloped(secret, token, at, beside)


def enveloped(secret: str, token: str = TOKENS[0], at: float | None = None, beside: bytes = b"") -> Call:
    """Whatever stands for the sealed part, signed."""
    stamp = str(int(time.time() if at is None else at))
    call = plain(b"", token, at)
    marks = {"encrypt_type": "aes", "msg_signature": signed_by_wechatpy(token, stamp, NONCE, secret)}
    envelope = b"<xml><ToUserName><![CDATA[%b]]></ToUserName><Encrypt><![CDATA[%b]]></Encrypt></xml>"
    outside = envelope % (ACCOUNT.encode(), secret.encode())
    if beside:
        outside = beside.replace(b"</xml>", b"<Encrypt><![CDATA[%b]]></Encrypt></xml>" % secret.encode())
    return Call(outside, call.headers, f"{call.query}&{urlencode(marks)}")


def opened_by_wechatpy(call: Call, token: str, key: str, query: Mapping[str, str]) -> str:
    """What wechatpy reads of a request, once it found the signature good."""
    crypto = WeChatCrypto(token, key, APP_ID)
    found = crypto.decrypt_message(call.body.decode(), query["msg_signature"], query["timestamp"], query["nonce"])
    return str(found)


def challenge(token: str = TOKENS[0], at: float | None = None, **changes: str) -> Call:
    call = plain(b"", token, at, echostr="5838479218127813673", **changes)
    return Call(b"", {}, call.query, method="GET")


def _without(call: Call, name: str, value: str | None = None) -> Call:
    kept = [each for each in call.query.split("&") if not each.startswith(f"{name}=")]
    if value is not None:
        kept.append(f"{name}={value}")
    return Call(call.body, call.headers, "&".join(kept))


def samples() -> Samples:
    text = sealed(xml(Content="我的理赔什么时候到账", MsgId=1))
    stamp = "msg_signature"
    given = next(each.partition("=")[2] for each in text.query.split("&") if each.startswith(stamp))
    return Samples(
        make=make,
        examples=[
            Example("zh", text, ["我的理赔什么时候到账"]),
            Example("en", sealed(xml(Content="Where is my claim?", MsgId=2)), ["Where is my claim?"]),
            Example("emoji", sealed(xml(Content="理赔太慢了😡👨‍👩‍👧", MsgId=3)), ["理赔太慢了😡👨‍👩‍👧"]),
            Example(
                "media",
                sealed(xml("image", PicUrl="http://mmbiz.qpic.cn/a", MediaId="media-1", MsgId=4)),
                [""],
                [PartKind.IMAGE],
            ),
            Example(
                "voice",
                sealed(xml("voice", MediaId="media-2", Format="amr", Recognition="我要报案。", MsgId=5)),
                ["我要报案"],
                [PartKind.AUDIO],
            ),
            Example("empty", sealed(xml("voice", MediaId="media-3", Format="amr", MsgId=6)), [""], [PartKind.AUDIO]),
            Example("unknown", sealed(xml("hologram", MsgId=7)), [""], [PartKind.UNKNOWN]),
            Example(
                "compatible",
                sealed(xml(Content="inside", MsgId=8), beside=xml(Content="outside", MsgId=9)),
                ["inside"],
            ),
            Example("old key", sealed(xml(Content="old", MsgId=10), key=KEYS[1]), ["old"]),
        ],
        rotated=sealed(xml(Content="我的理赔什么时候到账", MsgId=1), token=TOKENS[1], key=KEYS[1]),
        unsigned={
            "missing": _without(text, stamp),
            "empty": _without(text, stamp, ""),
            "wrong": _without(text, stamp, "0" * 40),
            "no ascii": _without(text, stamp, "%C3%BC" * 20),
            "truncated": _without(text, stamp, given[:-1]),
            "by another token": sealed(xml(Content="no"), token="another"),
            "other body": Call(sealed(xml(Content="other")).body, text.headers, text.query),
            "not sealed": plain(xml(Content="no")),
            "not sealed, as if": Call(xml(Content="no"), text.headers, text.query),
            "old": sealed(xml(Content="no"), at=time.time() - 700),
            "of tomorrow": sealed(xml(Content="no"), at=time.time() + 86400),
        },
        garbage=enveloped("bm8gY2lwaGVydGV4dA=="),
        challenge=(challenge(), b"5838479218127813673"),
        bad_challenge=challenge("another"),
        when_down=200,
        too_long="理" * (4 * 2048),
        sign=sealed,
        errors=[
            ("busy", 200, JSON, b'{"errcode":-1,"errmsg":"system error"}', {"retry": True}),
            ("window closed", 200, JSON, b'{"errcode":45015,"errmsg":"out of time limit"}', {"permanent": True}),
            ("five sent", 200, JSON, b'{"errcode":45047,"errmsg":"out of count limit"}', {"permanent": True}),
            (
                "unfollowed",
                200,
                JSON,
                b'{"errcode":43004,"errmsg":"require subscribe"}',
                {"permanent": True, "refused": "unsubscribed"},
            ),
            ("quota", 200, JSON, b'{"errcode":45009,"errmsg":"daily quota"}', {"retry": True, "pause": True}),
            ("no right", 200, JSON, b'{"errcode":48001,"errmsg":"unauthorized"}', {"broken": True, "pause": True}),
            ("token refused", 200, JSON, b'{"errcode":40001,"errmsg":"invalid"}', {"broken": True, "pause": True}),
            ("a proxy's page", 502, {"Content-Type": "text/html"}, b"<html>no</html>", {"unknown": True}),
            ("overloaded", 503, {"Content-Type": "text/html"}, b"<html>no</html>", {"retry": True}),
            ("half an answer", 200, JSON, b'{"errcode":', {"unknown": True}),
        ],
        at=lambda url: make(api_url=url),
        taken=(200, JSON, b'{"errcode":0,"errmsg":"ok"}'),
        beside={"/cgi-bin/stable_token": b'{"access_token":"the-access-token","expires_in":7200}'},
        reply=Reply(to=OPENID, text="您的理赔已到账", key="k1", account=ACCOUNT, thread=OPENID),
    )
