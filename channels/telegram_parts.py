"""What a Telegram message says, and what it has beside its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aiogram.enums import ContentType
from aiogram.types import Message as Note
from aiogram.types import PhotoSize

from domain import Part, PartKind

#: files: our kind, and what is said of them where the sender's program says nothing
_FILES: dict[str, tuple[PartKind, str, str]] = {
    "animation": (PartKind.VIDEO, "video/mp4", "animation.mp4"),
    "audio": (PartKind.AUDIO, "audio/mpeg", "audio.mp3"),
    "document": (PartKind.FILE, "application/octet-stream", "document"),
    "video": (PartKind.VIDEO, "video/mp4", "video.mp4"),
    "video_note": (PartKind.VIDEO, "video/mp4", "video.mp4"),
    "voice": (PartKind.AUDIO, "audio/ogg", "voice.ogg"),
    "live_photo": (PartKind.VIDEO, "video/mp4", "live.mp4"),
}
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)

#: what Telegram itself says in a chat: nobody's words
_SERVICE = frozenset(
    {
        ContentType.CHAT_BACKGROUND_SET,
        ContentType.CHAT_OWNER_CHANGED,
        ContentType.CHAT_OWNER_LEFT,
        ContentType.CHANNEL_CHAT_CREATED,
        ContentType.COMMUNITY_CHAT_ADDED,
        ContentType.COMMUNITY_CHAT_JOINED,
        ContentType.COMMUNITY_CHAT_REMOVED,
        ContentType.CONNECTED_WEBSITE,
        ContentType.BOOST_ADDED,
        ContentType.DELETE_CHAT_PHOTO,
        ContentType.DIRECT_MESSAGE_PRICE_CHANGED,
        ContentType.FORUM_TOPIC_CLOSED,
        ContentType.FORUM_TOPIC_CREATED,
        ContentType.FORUM_TOPIC_EDITED,
        ContentType.FORUM_TOPIC_REOPENED,
        ContentType.GENERAL_FORUM_TOPIC_HIDDEN,
        ContentType.GENERAL_FORUM_TOPIC_UNHIDDEN,
        ContentType.GIVEAWAY_COMPLETED,
        ContentType.GIVEAWAY_CREATED,
        ContentType.GROUP_CHAT_CREATED,
        ContentType.LEFT_CHAT_MEMBER,
        ContentType.MESSAGE_AUTO_DELETE_TIMER_CHANGED,
        ContentType.MIGRATE_FROM_CHAT_ID,
        ContentType.MIGRATE_TO_CHAT_ID,
        ContentType.NEW_CHAT_MEMBERS,
        ContentType.NEW_CHAT_PHOTO,
        ContentType.NEW_CHAT_TITLE,
        ContentType.PAID_MESSAGE_PRICE_CHANGED,
        ContentType.PINNED_MESSAGE,
        ContentType.PROXIMITY_ALERT_TRIGGERED,
        ContentType.SUPERGROUP_CHAT_CREATED,
        ContentType.VIDEO_CHAT_ENDED,
        ContentType.VIDEO_CHAT_PARTICIPANTS_INVITED,
        ContentType.VIDEO_CHAT_SCHEDULED,
        ContentType.VIDEO_CHAT_STARTED,
        ContentType.WRITE_ACCESS_ALLOWED,
    }
)


def is_service(note: Note) -> bool:
    return note.content_type in _SERVICE


def words_of(note: Note) -> str:
    """The customer's own words: a text, or a caption."""
    if note.text is not None:
        return note.text
    if note.rich_message is not None:
        blocks = note.rich_message.model_dump(exclude_none=True, warnings=False)["blocks"]
        return "\n".join(each for each in map(_rich, blocks) if each)
    return note.caption or ""


def _rich(text: Any) -> str:
    """A rich text is a string, a list of such texts, or an object with one (Bot API, RichText)."""
    if isinstance(text, str):
        return text
    if isinstance(text, list):
        return "".join(map(_rich, text))
    return _rich(text.get("text", "")) if isinstance(text, Mapping) else ""


def parts_of(note: Note, *, left_out: bool) -> tuple[Part, ...]:
    """`left_out`: something of the message has a form that is not known, which people shall see."""
    found: list[Part] = []
    still = note.photo or (note.live_photo.photo if note.live_photo is not None else None)
    if still:
        found.append(_photo(still))
    for name, (kind, media_type, called) in _FILES.items():
        file = getattr(note, name)
        # An animation comes as a document too, and a live photo has its still.
        doubled = (name == "document" and note.animation is not None) or (name == "live_photo" and still)
        if file is not None and not doubled:
            found.append(_file(file, kind, media_type, called))
    found += _others(note)
    if left_out or not (found or words_of(note)):
        found.append(Part(kind=PartKind.UNKNOWN, text=note.content_type.replace("_", " ")))
    return tuple(found)


def _photo(sizes: list[PhotoSize]) -> Part:
    largest = max(sizes, key=lambda each: each.width * each.height)
    return _file(largest, PartKind.IMAGE, "image/jpeg", "photo.jpg")


def _file(file: Any, kind: PartKind, media_type: str, called: str) -> Part:
    told = getattr(file, "mime_type", None) or ""
    if _MEDIA_TYPE.fullmatch(told):
        media_type = told.lower()
    if kind is PartKind.FILE and media_type.startswith("image/"):
        kind = PartKind.IMAGE
    name = (getattr(file, "file_name", None) or called)[:200]
    reference = {"file_id": file.file_id, "name": name, "media_type": media_type}
    if file.file_size:
        reference["size"] = str(file.file_size)
    return Part(kind=kind, name=name, media_type=media_type, reference=reference)


def _others(note: Note) -> list[Part]:
    """What is told in words. What has none of ours is named as Telegram names it."""
    if note.sticker is not None:
        return [Part(kind=PartKind.STICKER, text=note.sticker.emoji or "")]
    if note.venue is not None:
        place, where = note.venue, note.venue.location
        named = ", ".join(each for each in (place.title, place.address) if each)
        return [Part(kind=PartKind.LOCATION, text=f"{named} ({where.latitude}, {where.longitude})")]
    if note.location is not None:
        return [Part(kind=PartKind.LOCATION, text=f"{note.location.latitude}, {note.location.longitude}")]
    if note.contact is not None:
        who = note.contact
        name = " ".join(each for each in (who.first_name, who.last_name) if each)
        return [Part(kind=PartKind.CONTACT, text=f"{name}, {who.phone_number}", name=name)]
    if note.story is not None:
        return [Part(kind=PartKind.STORY)]
    return []
