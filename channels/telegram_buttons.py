"""The buttons under our automatic answers in Telegram: their words, and what Telegram hands back when one is pressed.

What comes back is not proof of anything: a customer's program can send any data. So a ticket's number in it is believed
of a party to that ticket alone, and whatever we did not write is answered as an old button.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

from domain import ticket_id_of

Tongue = Literal["zh", "en"]

#: stands before the data, so that a later form of it is told from this one
_VERSION = "1"


class Action(StrEnum):
    STATUS = "status"
    PERSON = "person"
    RATE = "rate"


#: what a button says is what the customer says by pressing it, so the words are such as the tagger knows
_LABELS: dict[Action, dict[Tongue, str]] = {
    Action.STATUS: {"zh": "查询我的工单进度", "en": "Status of my ticket"},
    Action.PERSON: {"zh": "转人工", "en": "Talk to a person"},
}
_STAR = "⭐"
_TAKEN: dict[Tongue, str] = {"zh": "已收到", "en": "Received"}
_THANKS: dict[Tongue, str] = {"zh": "感谢您的评价", "en": "Thank you for your rating"}
_OLD: dict[Tongue, str] = {
    "zh": "这个按钮已失效，请直接发送消息。",
    "en": "This button is no longer in use. Please write to us instead.",
}


def tongue(language: str) -> Tongue:
    """Which of our two a customer's language is shown in; `zh-hans` of a Telegram account is read too."""
    return "zh" if language.lower().startswith("zh") else "en"


def old(language: str) -> str:
    """What is shown to who pressed a button that means nothing any more."""
    return _OLD[tongue(language)]


@dataclass(frozen=True, slots=True)
class Button:
    """One of ours. `score`: of a rating alone, 1 to 5."""

    action: Action
    number: str
    tongue: Tongue
    score: int = 0

    @property
    def label(self) -> str:
        return f"{self.score}{_STAR}" if self.score else _LABELS[self.action][self.tongue]

    @property
    def data(self) -> str:
        """At most 64 bytes (Bot API, InlineKeyboardButton)."""
        return f"{_VERSION}|{self.action}{self.score or ''}|{self.number}|{self.tongue}"

    @property
    def shown(self) -> str:
        """What the customer sees at once after pressing it."""
        return (_THANKS if self.score else _TAKEN)[self.tongue]


def pressed(data: str) -> Button | None:
    """The button behind what came back; None: none of ours, or of another time."""
    version, *rest = data.split("|")
    if version != _VERSION or len(rest) != 3 or ticket_id_of(rest[1]) is None:
        return None
    found = [each for each in _under(rest[1], tongue(rest[2]), list(Action)) if each.data == data]
    return found[0] if found else None


def _under(number: str, language: Tongue, actions: list[Action]) -> list[Button]:
    buttons = [Button(each, number, language) for each in actions if each is not Action.RATE]
    if Action.RATE in actions:
        buttons += [Button(Action.RATE, number, language, score) for score in range(1, 6)]
    return buttons


#: by what an automatic answer is for. Who is in need of care is offered a person and nothing else; who asked how far
#: the ticket is sees it in the text, and may say how they find that
_OFFERED = {
    "care": [Action.PERSON],
    "status": [Action.PERSON, Action.RATE],
}
_USUAL = [Action.STATUS, Action.PERSON]


def keyboard(kind: str, number: str, language: str) -> InlineKeyboardMarkup:
    """What is shown under an automatic answer of that kind about a ticket. Stars stand in one row."""
    buttons = _under(number, tongue(language), _OFFERED.get(kind, _USUAL))
    shown = [InlineKeyboardButton(text=each.label, callback_data=each.data) for each in buttons]
    rows = [[each] for each, button in zip(shown, buttons, strict=True) if not button.score]
    stars = [each for each, button in zip(shown, buttons, strict=True) if button.score]
    return InlineKeyboardMarkup(inline_keyboard=[*rows, stars] if stars else rows)
