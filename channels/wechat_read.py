"""A WeChat message or event, once it is open -> the words of `domain`. Pure, and takes every content.

https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.ElementTree import fromstring

from channels import Parsed
from domain import Automatic, AutomaticKind, Message, Part, PartKind, Standing

#: what XML cannot hold and customers' keyboards all the same send
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
#: what WeChat says in place of a sticker, a card and whatever else it does not hand on: not the customer's words
_NOT_HANDED_ON = re.compile(r"[\[【]收到不支持的消息类型[，,]\s*暂(?:时)?无法显示[\]】]")
#: a menu key that people wrote for people, and not a name for programs such as V1001_CLAIM
_WORDS = re.compile(r"[\u3400-\u9fff]|[^\W\d_]+ [^\W\d_]+")
#: a time that is further off is a mistake: WeChat delivers within seconds, or not at all
_OLDEST, _AHEAD = timedelta(days=2), timedelta(minutes=10)

_MEDIA = {
    "image": (PartKind.IMAGE, "image/jpeg"),
    "voice": (PartKind.AUDIO, "audio/amr"),
    "video": (PartKind.VIDEO, "video/mp4"),
    "shortvideo": (PartKind.VIDEO, "video/mp4"),
}

#: events by their names in lower case, as WeChat writes them both ways -> what happened, in words.
#: None of them is a customer's message: they are kept as automatic, where people see them, and never answered.
_EVENTS = {
    "subscribe": "began to follow the account",
    "unsubscribe": "stopped following the account",
    "scan": "scanned a QR code of the account",
    "location": "the phone reported its place",
    "click": "tapped a menu button that has no words in wechat.menu",
    "view": "opened a page from the menu",
    "view_miniprogram": "opened a mini program from the menu",
    "scancode_push": "scanned a code from the menu",
    "scancode_waitmsg": "scanned a code from the menu",
    "pic_sysphoto": "takes a picture from the menu; it comes as a message of its own",
    "pic_photo_or_album": "chooses a picture from the menu; it comes as a message of its own",
    "pic_weixin": "chooses a picture from the menu; it comes as a message of its own",
    "location_select": "chooses a place from the menu; it comes as a message of its own",
    "templatesendjobfinish": "a template message was delivered, or not",
    "masssendjobfinish": "a mass message was delivered",
    "subscribe_msg_popup_event": "allowed or refused subscription messages",
    "subscribe_msg_change_event": "changed which subscription messages are allowed",
    "subscribe_msg_sent_event": "a subscription message was delivered, or not",
    "kf_create_session": "a session of WeChat's own customer service began",
    "kf_close_session": "a session of WeChat's own customer service ended",
    "kf_switch_session": "a session of WeChat's own customer service changed hands",
    "user_info_modified": "WeChat cleared parts of the profile",
    "user_authorization_revoke": "took back the permission to use parts of the profile",
    "user_authorization_cancellation": "closed the WeChat account: what is kept of the person is to be erased",
}

Fields = Mapping[str, str]


class NoMessage(Exception):
    """The content is no message of WeChat; why, in words."""


def fields_of(body: bytes) -> Fields:
    """The values that stand directly in a body, XML or JSON as the account has chosen. Raises `NoMessage`."""
    text = _CONTROL.sub("", body.decode("utf-8", "replace"))
    if text.lstrip().startswith("{"):
        return _of_json(text)
    try:
        # A document type is where entities are declared, and WeChat never sends one.
        root = fromstring(text, forbid_dtd=True)
    except (ParseError, ValueError, RecursionError):
        raise NoMessage("The content is no XML.") from None
    return {each.tag: (each.text or "").strip() for each in root}


def _of_json(text: str) -> Fields:
    try:
        found: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise NoMessage("The content is no JSON.") from None
    return {name.strip(): str(value).strip() for name, value in found.items() if isinstance(value, str | int)}


def read(channel: str, raw: bytes, now: datetime, menu: Mapping[str, str]) -> Parsed:
    """What one message or event says. `menu`: a button's key -> its words. Raises `NoMessage`."""
    fields = fields_of(raw)
    kind = fields.get("MsgType", "").lower()
    sender, account = fields.get("FromUserName", ""), fields.get("ToUserName", "")
    if not (kind and sender and account):
        raise NoMessage("MsgType, FromUserName or ToUserName is missing.")
    if len(sender) > 128 or len(account) > 128:
        raise NoMessage("FromUserName or ToUserName is too long to be an id.")
    at = _time(fields.get("CreateTime", ""), now)
    if kind == "event":
        return _event(channel, account, sender, fields, raw, at, menu)
    text, parts = _content(kind, fields)
    message = Message(
        channel=channel,
        account=account,
        external_id=fields.get("MsgId") or f"sha256:{hashlib.sha256(raw).hexdigest()}",
        sender=sender,
        received_at=at,
        text=text,
        thread=sender,
        parts=parts,
        raw=raw,
    )
    # Only who follows can write. This also helps where the event of following again was lost.
    return Parsed((message,), (_standing(channel, sender, at, None),))


def _time(stamp: str, now: datetime) -> datetime:
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 11):
        return now
    at = datetime.fromtimestamp(int(stamp), UTC)
    return at if now - _OLDEST <= at <= now + _AHEAD else now


def _standing(channel: str, address: str, at: datetime, refused: str | None) -> Standing:
    return Standing(channel=channel, address=address, at=at, refused=refused)


# --- messages ---------------------------------------------------------------------------------------------------------


def _content(kind: str, fields: Fields) -> tuple[str, tuple[Part, ...]]:
    """(the customer's own words, the typed parts)."""
    if kind == "text":
        return _words(fields)
    if kind in _MEDIA:
        # WeChat ends what it heard with a full stop that nobody said.
        heard = fields.get("Recognition", "").removesuffix("。") if kind == "voice" else ""
        return heard, (_medium(kind, fields),)
    if kind == "location":
        return "", (Part(kind=PartKind.LOCATION, text=_place(fields)),)
    if kind == "link":
        said = [fields.get(name, "") for name in ("Title", "Description", "Url")]
        return "", (Part(kind=PartKind.LINK, text="\n".join(each for each in said if each)),)
    if kind == "file":
        # WeChat tells of files, but has no address where an account could fetch them.
        return "", (Part(kind=PartKind.FILE, name=fields.get("Title", "")),)
    return "", (Part(kind=PartKind.UNKNOWN, text=kind),)


def _words(fields: Fields) -> tuple[str, tuple[Part, ...]]:
    text = fields.get("Content", "")
    if not text or _NOT_HANDED_ON.fullmatch(text):
        return "", (Part(kind=PartKind.UNKNOWN, text="not handed on by WeChat"),)
    if choice := fields.get("bizmsgmenuid"):
        return text, (Part(kind=PartKind.BUTTON, text=text, name=choice),)
    return text, ()


def _medium(kind: str, fields: Fields) -> Part:
    part, media_type = _MEDIA[kind]
    given = fields.get("Format", "").lower()
    if kind == "voice" and given.isascii() and given.isalnum():
        media_type = f"audio/{given}"
    found = fields.get("MediaId")
    return Part(kind=part, media_type=media_type, reference={"media_id": found} if found else None)


def _place(fields: Fields) -> str:
    where = ", ".join(each for name in ("Location_X", "Location_Y") if (each := fields.get(name)))
    label = fields.get("Label", "")
    return f"{label} ({where})" if label and where else label or where


# --- events -----------------------------------------------------------------------------------------------------------


def _event(
    channel: str, account: str, sender: str, fields: Fields, raw: bytes, at: datetime, menu: Mapping[str, str]
) -> Parsed:
    name, key = fields.get("Event", ""), fields.get("EventKey", "")
    event = name.lower()
    marks = (fields.get("CreateTime", ""), name, key, fields.get("MsgID", ""))
    given: dict[str, Any] = {
        "channel": channel,
        "account": account,
        "external_id": ":".join([sender, *(each for each in marks if each)]),
        # Some events come from the platform, and name the person they are about.
        "sender": fields.get("OpenID") or sender,
        "received_at": at,
        "thread": sender,
        "raw": raw,
    }
    said = menu.get(key, key if _WORDS.search(key) else "") if event == "click" else ""
    if said:
        return Parsed((Message(text=said, parts=(Part(kind=PartKind.BUTTON, text=said, name=key),), **given),))
    known = _EVENTS.get(event)
    why = f"event {name}: {known}" if known else f"event {name}, which is not known here"
    parts = () if known else (Part(kind=PartKind.UNKNOWN, text=f"event {name}"),)
    automatic = Automatic(kind=AutomaticKind.REPORT, why=why[:500])
    message = Message(text="", parts=parts, automatic=automatic, answerable=False, **given)
    if event in ("subscribe", "unsubscribe"):
        refused = "unsubscribed" if event == "unsubscribe" else None
        return Parsed((message,), (_standing(channel, sender, at, refused),))
    return Parsed((message,))
