"""Facebook Messenger: a page's conversations. Instagram's have the same form; see `channels.instagram`.

A customer is a PSID, which one page alone knows, so that nobody is taken for somebody else across pages.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from channels import Channel, Limits, Surroundings
from channels.meta import (
    OWN_MARK,
    Found,
    Json,
    MetaHook,
    account_of,
    ident,
    listed,
    mapping,
    place,
    raw_of,
    told_part,
    words,
)
from channels.meta_graph import Graph, MetaFetcher, MetaProbe, MetaSender, pages_of, unheard, utf16
from channels.settings import MessengerSettings
from domain import ChannelError, OutState, Part, PartKind, Reply

_WEEK = timedelta(days=7)
#: times that a customer can edit a message (message_edits)
_EDITS = 5
_FILES = {
    "image": PartKind.IMAGE,
    "animated_image": PartKind.IMAGE,
    "audio": PartKind.AUDIO,
    "video": PartKind.VIDEO,
    "file": PartKind.FILE,
    "sticker": PartKind.STICKER,
    "story_mention": PartKind.STORY,
}
#: what customers show us of what others posted: it is named, and not fetched
_SHARES = frozenset({"share", "post", "ig_post", "reel", "ig_reel", "ig_story", "fallback", "template"})
#: events about the conversation that say nothing of the customer's
_SILENT = frozenset({
    "read", "delivery", "pass_thread_control", "take_thread_control", "request_thread_control", "app_roles",
})  # fmt: skip


class PageHook(MetaHook):
    """Notifications whose entries hold `messaging` events."""

    object = "page"

    def read(self, entry: Json, found: Found) -> None:
        account = account_of(entry.get("id"))
        for event in listed(entry.get("messaging")):
            self._event(event, account, found)
        # Another app has the conversation in hand: what the customer says is kept, and we stay silent by ourselves.
        for event in listed(entry.get("standby")):
            self._event(event, account, found, answerable=False)
        for change in listed(entry.get("changes")):
            value = mapping(change.get("value"))
            if "sender" in value and "recipient" in value:
                self._event(value, account, found)
            else:
                self.unread_field(change, account, found)

    def _event(self, event: Json, account: str, found: Found, *, answerable: bool = True) -> None:
        sender, recipient = (ident(mapping(event.get(each)).get("id")) for each in ("sender", "recipient"))
        account = account or account_of(recipient)
        if not account:
            found.unreadable("Meta does not say which account of ours it is for", raw_of(event), sender=sender)
            return
        given: dict[str, Any] = {"account": account, "sender": sender, "at": event.get("timestamp")}
        given["answerable"] = answerable
        if "message" in event:
            message = mapping(event.get("message"))
            if message.get("is_echo") is True or sender == account:
                given |= {"sender": recipient, "own": True}
            self._message(event, message, given, found)
        elif "message_edit" in event:
            self._edit(event, mapping(event.get("message_edit")), given, found)
        elif "postback" in event:
            self._postback(event, mapping(event.get("postback")), given, found)
        elif "reaction" in event:
            self._reaction(event, mapping(event.get("reaction")), given, found)
        elif "policy_enforcement" in event:
            reason = words(mapping(event.get("policy_enforcement")).get("reason"), 300)
            found.unreadable(f"Meta restricts this account: {reason or 'no reason given'}", raw_of(event), account)
        elif known := _SILENT & event.keys():
            self._delivered(event, known, given, found)
        elif "referral" in event:
            found.message(event, external_id="", parts=_referral(event.get("referral")), **given)
        else:
            kind = next((each for each in event if each not in ("sender", "recipient", "timestamp")), "")
            found.message(event, external_id="", parts=(told_part(PartKind.UNKNOWN, kind),), **given)

    def _message(self, event: Json, message: Json, given: dict[str, Any], found: Found) -> None:
        mid = ident(message.get("mid"))
        if given.get("own") and self.is_ours(message.get("app_id"), message.get("metadata")):
            found.ignored += 1
            return
        if message.get("is_deleted") is True:
            for each in (mid, *(_edited(mid, number) for number in range(1, _EDITS + 1))):
                found.withdrawal(given["account"], each, given["at"])
            return
        text = words(message.get("text"))
        parts = [*_attachments(listed(message.get("attachments")))]
        if "quick_reply" in message:
            payload = words(mapping(message.get("quick_reply")).get("payload"), 500)
            parts.append(told_part(PartKind.BUTTON, text, name=payload))
        reply_to = mapping(message.get("reply_to"))
        if story := mapping(reply_to.get("story")):
            parts.append(_file(PartKind.STORY, story))
        parts.extend(_referral(message.get("referral")))
        if message.get("is_unsupported") is True:
            parts.append(Part(kind=PartKind.UNKNOWN))
        answers = ident(reply_to.get("mid"))
        keys = (answers,) if answers else ()
        found.message(event, external_id=mid, text=text, parts=tuple(parts), thread_keys=keys, **given)

    def _edit(self, event: Json, edit: Json, given: dict[str, Any], found: Found) -> None:
        mid = ident(edit.get("mid"))
        name = _edited(mid, edit.get("num_edit"))
        found.message(event, external_id=name, text=words(edit.get("text")), revises=mid, **given)

    def _postback(self, event: Json, postback: Json, given: dict[str, Any], found: Found) -> None:
        title = words(postback.get("title"))
        button = told_part(PartKind.BUTTON, title, name=words(postback.get("payload"), 500))
        parts = (button, *_referral(postback.get("referral")))
        found.message(event, external_id=ident(postback.get("mid")), text=title, parts=parts, **given)

    def _reaction(self, event: Json, reaction: Json, given: dict[str, Any], found: Found) -> None:
        """It has no id of its own: a customer may take it back and give it again, so that its digest names it."""
        taken_back = reaction.get("action") == "unreact"
        shown = "" if taken_back else words(reaction.get("emoji") or reaction.get("reaction"), 60)
        target = ident(reaction.get("mid"))
        part = Part(kind=PartKind.REACTION, text=shown)
        given["answerable"] = False
        found.message(event, external_id="", parts=(part,), thread_keys=(target,) if target else (), **given)

    def _delivered(self, event: Json, known: frozenset[str], given: dict[str, Any], found: Found) -> None:
        """What was delivered or read is told by id, or by a time alone, which names no message and is passed over."""
        found.ignored += 1
        for name in known & {"delivery", "read"}:
            told = mapping(event.get(name))
            mids = told.get("mids")
            for mid in mids if isinstance(mids, list) else [told.get("mid")]:
                found.status(given["account"], ident(mid), OutState.DELIVERED, given["at"])


def _edited(mid: str, number: Any) -> str:
    """The name of a message's edited form, which has none with Meta."""
    return f"{mid}:edit:{words(number, 12)}" if mid else ""


def _attachments(attachments: list[Json]) -> list[Part]:
    # A sticker may be shown a second time, as a picture, for programs that know no stickers yet.
    stickers = any(each.get("type") == "sticker" for each in attachments)
    return [
        _attachment(each)
        for each in attachments
        if not (stickers and each.get("type") == "image" and "sticker_id" in mapping(each.get("payload")))
    ]


def _attachment(attachment: Json) -> Part:
    kind, payload = words(attachment.get("type"), 60), mapping(attachment.get("payload"))
    if kind == "location":
        where = mapping(payload.get("coordinates"))
        return place(where.get("lat"), where.get("long"), attachment.get("title"))
    if kind in _SHARES:
        shown = (attachment.get("title"), payload.get("title"), attachment.get("url"), payload.get("url"))
        return told_part(PartKind.LINK, *shown)
    found = _FILES.get(kind)
    if found is None:
        return told_part(PartKind.UNKNOWN, kind, attachment.get("title"), payload.get("url"))
    return _file(PartKind.STICKER if "sticker_id" in payload else found, payload)


def _file(kind: PartKind, payload: Json) -> Part:
    url = words(payload.get("url"), 4000)
    return Part(kind=kind, reference={"url": url} if url else None)


def _referral(value: Any) -> tuple[Part, ...]:
    """What brought the customer: an advertisement, a link, a product."""
    referral = mapping(value)
    if not referral:
        return ()
    shown = mapping(referral.get("ads_context_data"))
    product = mapping(referral.get("product"))
    said = (shown.get("ad_title"), referral.get("ref"), referral.get("source"), product.get("id"))
    return (told_part(PartKind.LINK, *said),)


class PageSender(MetaSender):
    """Messages by the Send API. Past a day a person's answer is marked as one, where Meta allows that to the app."""

    def __init__(self, name: str, graph: Graph, limits: Limits, *, marks: bool = True) -> None:
        super().__init__(name, graph, limits)
        #: whether what is sent may carry our own mark, which its echo then has
        self._marks = marks

    def body(self, reply: Reply) -> dict[str, Any]:
        if not account_of(reply.to):
            raise ChannelError("This is nobody's address here.", permanent=True)
        message = {"text": reply.text}
        if self._marks:
            message["metadata"] = f"{OWN_MARK}{reply.key}"[:1000]
        body = {"recipient": {"id": reply.to}, "messaging_type": "RESPONSE", "message": message}
        if self.limits.window == _WEEK and not reply.automatic and unheard(reply):
            body |= {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}
        return body


def limits_of(settings: MessengerSettings, text: int, measure: Callable[[str], int], unit: str) -> Limits:
    """One day for everything, or with Meta's permission seven for what people write."""
    day = timedelta(days=1)
    return Limits(
        text=text,
        measure=measure,
        unit=unit,
        parts=5,
        window=_WEEK if settings.human_agent else day,
        automatic_window=day,
        ordered=True,
        receipts=True,
        deadline=settings.timeout + 10,
    )


def channel(name: str, settings: MessengerSettings, _around: Surroundings) -> Channel:
    graph = Graph(settings, pages_of(settings))
    return Channel(
        name,
        sender=PageSender(name, graph, limits_of(settings, 2000, utf16, "characters")),
        hook=PageHook(name, settings),
        fetcher=MetaFetcher(graph),
        probe=MetaProbe(name, graph, "name"),
    )
