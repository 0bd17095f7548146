"""WhatsApp by Meta's Cloud API: messages and statuses of our numbers.

A customer is a phone number (`wa_id`), or a business-scoped user id where they hide it behind a user name. Neither is
ever taken for the other, nor a new number for an old one: that is for people to decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from channels import Channel, Limits, Surroundings
from channels.meta import Found, Json, MetaHook, account_of, ident, listed, mapping, place, raw_of, told_part, words
from channels.meta_errors import failure_of
from channels.meta_graph import Graph, MetaFetcher, MetaProbe, MetaSender, pages_of, said_by, unheard, utf16
from channels.settings import WhatsAppSettings
from domain import ChannelError, OutState, Part, PartKind, Reply

_FILES = {
    "image": PartKind.IMAGE,
    "audio": PartKind.AUDIO,
    "video": PartKind.VIDEO,
    "document": PartKind.FILE,
    "sticker": PartKind.STICKER,
}
_STATES = {
    "sent": OutState.SENT,
    "delivered": OutState.DELIVERED,
    "read": OutState.DELIVERED,
    "played": OutState.DELIVERED,
    "failed": OutState.FAILED,
}
_PHONE = re.compile(r"\+?[0-9]{5,20}")
#: a business-scoped user id, or that of a group of businesses
_USER_ID = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
#: what a template's hole takes (Cloud API, template components)
_MOST_IN_TEMPLATE = 1024
_NOT_IN_TEMPLATE = re.compile(r"[\n\r\t\v\f\x85\u2028\u2029]| {5,}")


class WhatsAppHook(MetaHook):
    object = "whatsapp_business_account"

    def read(self, entry: Json, found: Found) -> None:
        for change in listed(entry.get("changes")):
            value = mapping(change.get("value"))
            account = account_of(mapping(value.get("metadata")).get("phone_number_id"))
            if change.get("field") not in ("messages", "smb_message_echoes"):
                self.unread_field(change, account, found)
            elif not account:
                found.unreadable("WhatsApp does not say which number of ours it is for", raw_of(change))
            else:
                self._value(value, account, found)

    def _value(self, value: Json, account: str, found: Found) -> None:
        people = listed(value.get("contacts"))
        for message in listed(value.get("messages")):
            self._message(value, message, people, account, found)
        # Somebody of ours wrote from the WhatsApp Business app on a phone.
        for message in listed(value.get("message_echoes")):
            self._message(value, message, people, account, found, own=True)
        for status in listed(value.get("statuses")):
            self._status(status, account, found)
        for error in listed(value.get("errors")):
            found.unreadable(f"WhatsApp tells of a fault: {failure_of([error])}", raw_of(error), account)

    def _message(
        self, value: Json, message: Json, people: list[Json], account: str, found: Found, *, own: bool = False
    ) -> None:
        names = ("to", "to_user_id") if own else ("from", "from_user_id")
        sender = next((each for name in names if (each := ident(message.get(name)))), "")
        known = [each for each in people if sender and sender in (each.get("wa_id"), each.get("user_id"))]
        kind = words(message.get("type"), 60)
        if kind == "revoke":
            found.withdrawal(account, _original(message, kind), message.get("timestamp"))
            return
        if kind == "request_welcome":  # the chat was opened, and nothing said yet
            found.ignored += 1
            return
        inner = mapping(mapping(message.get("edit")).get("message")) if kind == "edit" else message
        text, parts = _content(inner)
        answers = ident(mapping(message.get("context")).get("id"))
        event = {"metadata": value.get("metadata"), "contacts": known, "messages": [message]}
        found.message(
            event,
            account=account,
            sender=sender,
            external_id=ident(message.get("id")),
            at=message.get("timestamp"),
            text=text,
            parts=(*parts, *_beside(message)),
            own=own,
            sender_name=next((words(mapping(each.get("profile")).get("name"), 200) for each in known), ""),
            thread_keys=(answers,) if answers else (),
            revises=_original(message, kind) if kind == "edit" else "",
            # A reaction and a changed number want no answer, and what is said in a group is not said to us alone.
            answerable=kind not in ("reaction", "system") and "group_id" not in message,
        )

    def _status(self, status: Json, account: str, found: Found) -> None:
        state = _STATES.get(words(status.get("status"), 60))
        if state is None:
            found.ignored += 1
            return
        reason = failure_of(listed(status.get("errors"))) if state is OutState.FAILED else ""
        found.status(account, ident(status.get("id")), state, status.get("timestamp"), reason)


def _original(message: Json, kind: str) -> str:
    return ident(mapping(message.get(kind)).get("original_message_id"))


def _content(message: Json) -> tuple[str, list[Part]]:
    """A message's own words, and what it has beside them."""
    kind = words(message.get("type"), 60)
    given = mapping(message.get(kind))
    if kind == "text":
        return words(given.get("body")), []
    if kind in _FILES:
        return words(given.get("caption")), [_file(_FILES[kind], given)]
    if kind == "location":
        names = (given.get("name"), given.get("address"), given.get("url"))
        return "", [place(given.get("latitude"), given.get("longitude"), *names)]
    if kind == "contacts":
        return "", [_contact(each) for each in listed(message.get("contacts"))]
    if kind == "button":
        text = words(given.get("text"))
        return text, [told_part(PartKind.BUTTON, text, name=words(given.get("payload"), 500))]
    if kind == "interactive":
        return _pressed(given)
    if kind == "reaction":  # without an emoji it was taken back
        return "", [Part(kind=PartKind.REACTION, text=words(given.get("emoji"), 60))]
    if kind == "order":
        items = [f"{words(each.get('product_retailer_id'), 100)} × {words(each.get('quantity'), 20)}"
                 for each in listed(given.get("product_items"))]  # fmt: skip
        return words(given.get("text")), [told_part(PartKind.UNKNOWN, *items, name="order")]
    if kind == "system":  # a changed number: the new one is named, and nobody is merged
        return "", [told_part(PartKind.CONTACT, given.get("body"), given.get("wa_id") or given.get("new_wa_id"))]
    errors = listed(message.get("errors"))
    title = errors[0].get("title") if errors else ""
    return "", [told_part(PartKind.UNKNOWN, title, mapping(message.get("unsupported")).get("type") or kind)]


def _file(kind: PartKind, given: Json) -> Part:
    media_id, name = ident(given.get("id")), words(given.get("filename"), 200)
    media_type = words(given.get("mime_type"), 128)
    known = {"id": media_id, "name": name, "media_type": media_type}
    reference = {key: value for key, value in known.items() if value} if media_id else None
    return Part(kind=kind, name=name, media_type=media_type, reference=reference)


def _contact(contact: Json) -> Part:
    name = mapping(contact.get("name"))
    numbers = [each.get("phone") or each.get("wa_id") for each in listed(contact.get("phones"))]
    mails = [each.get("email") for each in listed(contact.get("emails"))]
    return told_part(PartKind.CONTACT, name.get("formatted_name") or name.get("first_name"), *numbers, *mails)


def _pressed(given: Json) -> tuple[str, list[Part]]:
    kind = words(given.get("type"), 60)
    reply = mapping(given.get(kind))
    if kind in ("button_reply", "list_reply"):
        title = words(reply.get("title"))
        part = told_part(PartKind.BUTTON, title, reply.get("description"), name=words(reply.get("id"), 500))
        return title, [part]
    # A form of WhatsApp's own (a flow), a permission to call: what was filled in is JSON, not the customer's words.
    return "", [told_part(PartKind.BUTTON, reply.get("response_json"), reply.get("response"), name=kind)]


def _beside(message: Json) -> list[Part]:
    """What brought the customer, and the product that they ask about."""
    referral = mapping(message.get("referral"))
    product = mapping(mapping(message.get("context")).get("referred_product"))
    parts = []
    if referral:
        parts.append(told_part(PartKind.LINK, referral.get("headline"), referral.get("source_url")))
    if product:
        parts.append(told_part(PartKind.LINK, product.get("product_retailer_id"), name="product"))
    return parts


class WhatsAppSender(MetaSender):
    """Free text within a day of the customer's last message, and after it people's answers in the template."""

    def __init__(self, name: str, graph: Graph, settings: WhatsAppSettings) -> None:
        day = timedelta(days=1)
        limits = Limits(
            text=4096,
            measure=utf16,
            unit="characters",
            parts=5,
            window=None if settings.template else day,
            automatic_window=day,
            ordered=True,
            receipts=True,
            deadline=settings.timeout + 10,
        )
        super().__init__(name, graph, limits)
        self._template = settings.template
        self._languages = settings.template_languages

    def body(self, reply: Reply) -> dict[str, Any]:
        body: dict[str, Any] = {"messaging_product": "whatsapp", "recipient_type": "individual"}
        if _PHONE.fullmatch(reply.to):
            body["to"] = reply.to
        elif _USER_ID.fullmatch(reply.to):
            body["recipient"] = reply.to
        else:
            raise ChannelError("This is no address of WhatsApp's.", permanent=True)
        if self._template and not reply.automatic and unheard(reply):
            return body | {"type": "template", "template": self._filled(reply)}
        return body | {"type": "text", "text": {"body": reply.text, "preview_url": False}}

    def _filled(self, reply: Reply) -> dict[str, Any]:
        """The template with the answer in its hole. Raises `ChannelError` where the hole cannot take it."""
        text = reply.text.strip()
        if reply.parts > 1 or utf16(text) > _MOST_IN_TEMPLATE or _NOT_IN_TEMPLATE.search(text):
            raise ChannelError(
                "More than 24 hours after the customer's last message WhatsApp takes an answer in a template alone: one"
                f" line of at most {_MOST_IN_TEMPLATE:,} characters, without tabs and long runs of blanks. Write it so,"
                " or use another channel.",
                permanent=True,
            )
        chinese = reply.language.startswith("zh")
        code = self._languages.get("zh" if chinese else "en") or next(iter(self._languages.values()))
        hole = {"type": "body", "parameters": [{"type": "text", "text": text}]}
        return {"name": self._template, "language": {"code": code}, "components": [hole]}

    def provider_id(self, answer: Mapping[str, Any]) -> str:
        return next((words(each.get("id"), 512) for each in said_by(answer, "messages")), "")


def channel(name: str, settings: WhatsAppSettings, _around: Surroundings) -> Channel:
    graph = Graph(settings, pages_of(settings))
    return Channel(
        name,
        sender=WhatsAppSender(name, graph, settings),
        hook=WhatsAppHook(name, settings),
        fetcher=MetaFetcher(graph),
        probe=MetaProbe(name, graph, "display_phone_number,verified_name"),
    )
