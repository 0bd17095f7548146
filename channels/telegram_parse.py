"""One update of the Bot API -> what it means here. Pure, and the same for polling and for the webhook.

The form is checked by aiogram's types. A field in a form that they do not know yet is left out rather than the whole
update, since it is hardly ever the customer's words.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aiogram.types import CallbackQuery, ChatMemberUpdated, Update
from aiogram.types import Message as Note
from aiogram.types.update import UpdateTypeLookupError
from pydantic import ValidationError

from channels import telegram_buttons as buttons
from channels.telegram_parts import is_service, parts_of, words_of
from domain import (
    Automatic,
    AutomaticKind,
    Incoming,
    Message,
    Notice,
    Part,
    PartKind,
    Rating,
    Standing,
    Unreadable,
    ticket_id_of,
)

CHANNEL = "telegram"
#: what we ask Telegram for; everything else is not for us
WANTED = ("message", "edited_message", "callback_query", "my_chat_member")

#: rounds of leaving out what aiogram does not take
_ROUNDS = 5
#: Telegram keeps updates for 24 hours: times further off are a fault of somebody's clock
_BACK, _AHEAD = timedelta(days=2), timedelta(minutes=5)
#: `/start <payload>` of a link (Bot API, deep linking), `/stop`
_COMMAND = re.compile(r"/(start|stop)(?:@\w+)?(?:\s+(.*))?", re.I | re.S)
_PAYLOAD = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Pressed:
    """A button was pressed. Until this is sent back, Telegram shows the customer that we work on it."""

    query: str
    #: what the customer sees at once
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """What an update brought; nothing where it is not for us."""

    items: tuple[Incoming, ...] = ()
    notices: tuple[Notice, ...] = ()
    pressed: Pressed | None = None


def read(update: Any, raw: bytes, *, bot: str, groups: Collection[int], now: datetime) -> Found:
    """`raw`: the update alone as JSON. `bot`: its id, the account. `groups`: those that are served. Never raises."""
    try:
        return _Reader(bot, groups, now, raw).read(update)
    except Exception as error:  # one strange update must not hold up those behind it
        return Found((parked(raw, bot, f"The update cannot be read ({type(error).__name__}).", now),))


def parked(raw: bytes, bot: str, reason: str, now: datetime) -> Unreadable:
    """An update that cannot be a message, kept whole."""
    digest = hashlib.sha256(raw).hexdigest()
    return Unreadable(
        channel=CHANNEL, account=bot, external_id=f"sha256:{digest}", received_at=now, reason=reason, raw=raw
    )


def sane(at: datetime, now: datetime) -> datetime:
    """The provider's time, or ours where its own cannot be right."""
    return at.astimezone(UTC) if now - _BACK <= at <= now + _AHEAD else now


class _Reader:
    """Of one update."""

    def __init__(self, bot: str, groups: Collection[int], now: datetime, raw: bytes) -> None:
        self._bot, self._groups, self._now, self._raw = bot, groups, now, raw
        self._left_out = False

    def read(self, update: Any) -> Found:
        known = self._checked(update)
        if known.message is not None:
            return self._message(known.message)
        if known.edited_message is not None:
            return self._edited(known.edited_message)
        if known.callback_query is not None:
            return self._pressed(known.callback_query)
        if known.my_chat_member is not None:
            return self._member(known.my_chat_member)
        try:
            _ = known.event_type
        except UpdateTypeLookupError:
            return Found((parked(self._raw, self._bot, "An update of a kind that is not known yet.", self._now),))
        return Found()

    def _checked(self, update: Any) -> Update:
        """Raises `ValidationError` where nothing can be left out to make it fit."""
        left = copy.deepcopy(update)
        for _ in range(_ROUNDS):
            try:
                return Update.model_validate(left)
            except ValidationError as error:
                found = [_leave_out(left, each["loc"]) for each in reversed(error.errors(include_url=False))]
                if not any(found):
                    raise
                self._left_out = True
        return Update.model_validate(left)

    # --- messages -------------------------------------------------------------------------------------------------

    def _serves(self, note: Note) -> bool:
        return note.chat.type == "private" or (note.chat.id in self._groups and not note.is_automatic_forward)

    def _message(self, note: Note) -> Found:
        if not self._serves(note) or is_service(note):
            return Found()
        command = _COMMAND.fullmatch(note.text or "") if note.chat.type == "private" else None
        if command is not None:
            return self._command(note, command[1].lower(), (command[2] or "").strip())
        if note.media_group_id:
            mark = (f"{self._bot}:{note.chat.id}", str(note.message_id))
            return Found((self._made(note, _key(note), merges=True, seen_at=mark),))
        return Found((self._made(note, _key(note)),))

    def _command(self, note: Note, name: str, rest: str) -> Found:
        """START and STOP change whether we may write. What stands behind them is a link's payload, or words."""
        at = sane(note.date, self._now)
        refused = "opted_out" if name == "stop" else None
        notice = Standing(channel=CHANNEL, address=_sender(note), at=at, refused=refused)
        if not rest:
            return Found(notices=(notice,))
        if name == "stop" or not _PAYLOAD.fullmatch(rest):
            return Found((self._made(note, _key(note), text=rest),), (notice,))
        link = Part(kind=PartKind.LINK, text=rest)
        hint = rest if rest[:2].upper() == "S-" and ticket_id_of(rest) is not None else ""
        return Found((self._made(note, _key(note), text="", parts=(link,), ticket_hint=hint),), (notice,))

    def _edited(self, note: Note) -> Found:
        if not self._serves(note) or is_service(note):
            return Found()
        if note.location is not None and note.venue is None:
            return Found()  # the next point of a place that is shared live; the first one is the message
        # Two edits may fall into one second, and the second has the last word.
        digest = hashlib.sha256(words_of(note).encode("utf-8", "replace")).hexdigest()[:8]
        own = f"{note.chat.id}:{note.message_id}:{note.edit_date or 0}:{digest}"
        at = datetime.fromtimestamp(note.edit_date, UTC) if note.edit_date else note.date
        # In a group an edit is nothing that asks for an answer.
        return Found((self._made(note, own, revises=_key(note), at=at, answerable=note.chat.type == "private"),))

    def _made(self, note: Note, external_id: str, *, at: datetime | None = None, **values: Any) -> Message:
        user = note.from_user
        machine = user is not None and user.is_bot and note.sender_chat is None
        given: dict[str, Any] = {
            "text": words_of(note),
            "parts": parts_of(note, left_out=self._left_out),
            "automatic": Automatic(kind=AutomaticKind.NO_REPLY, why="another bot wrote it") if machine else None,
        }
        return Message(
            channel=CHANNEL,
            account=self._bot,
            external_id=external_id,
            sender=_sender(note),
            sender_name=_name(note),
            received_at=sane(at or note.date, self._now),
            thread=_thread(note),
            raw=self._raw,
            **(given | values),
        )

    # --- buttons and standing -------------------------------------------------------------------------------------

    def _pressed(self, query: CallbackQuery) -> Found:
        user, chat = query.from_user, query.message.chat if query.message is not None else None
        button = buttons.pressed(query.data or "")
        foreign = chat is not None and chat.type != "private" and chat.id not in self._groups
        if button is None or foreign:
            return Found(pressed=Pressed(query.id, buttons.old(user.language_code or "")))
        shown = Pressed(query.id, button.shown)
        if button.score:
            rating = Rating(
                channel=CHANNEL,
                address=str(user.id),
                ticket_number=button.number,
                score=button.score,
                at=self._now,
            )
            return Found(notices=(rating,), pressed=shown)
        topic = _thread(query.message) if isinstance(query.message, Note) else str(chat.id if chat else user.id)
        message = Message(
            channel=CHANNEL,
            account=self._bot,
            external_id=f"callback:{query.id}",
            sender=str(user.id),
            sender_name=user.full_name,
            received_at=self._now,
            text=button.label,
            thread=topic,
            ticket_hint=button.number,
            parts=(Part(kind=PartKind.BUTTON, text=button.label, name=button.data),),
            raw=self._raw,
        )
        return Found((message,), pressed=shown)

    def _member(self, change: ChatMemberUpdated) -> Found:
        """The customer blocked the bot, or took that back."""
        if change.chat.type != "private":
            return Found()
        refused = "blocked" if change.new_chat_member.status in ("kicked", "left") else None
        at = sane(change.date, self._now)
        return Found(notices=(Standing(channel=CHANNEL, address=str(change.chat.id), at=at, refused=refused),))


def _key(note: Note) -> str:
    if note.media_group_id:
        return f"{note.chat.id}:album:{note.media_group_id}"
    return f"{note.chat.id}:{note.message_id}"


def _thread(note: Note) -> str:
    """The chat, and the topic in it where it has topics: answers go there."""
    if note.is_topic_message and note.message_thread_id:
        return f"{note.chat.id}/{note.message_thread_id}"
    return str(note.chat.id)


def _sender(note: Note) -> str:
    """Who writes for a group or a channel (an anonymous admin) is that chat."""
    if note.sender_chat is not None:
        return str(note.sender_chat.id)
    return str(note.from_user.id if note.from_user is not None else note.chat.id)


def _name(note: Note) -> str:
    if note.sender_chat is not None:
        return note.sender_chat.title or ""
    return note.from_user.full_name if note.from_user is not None else ""


def _leave_out(tree: Any, place: Sequence[int | str]) -> bool:
    """Take out what stands at a place that pydantic named, where names of types in a union stand too."""
    here, last = tree, None
    for step in place:
        keys = range(len(here)) if isinstance(here, list) else here if isinstance(here, dict) else ()
        if step in keys:
            here, last = here[step], (here, step)
    if last is None:
        return False
    holder, key = last
    del holder[key]
    return True
