"""What a text message costs, which words mean that somebody wants no more of them, and why one did not arrive. Pure.

Loads nothing of Twilio's, so that the console may ask it too.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum

# --- segments ---------------------------------------------------------------------------------------------------------

#: the default alphabet of GSM (3GPP TS 23.038, 6.2.1), each a septet
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: its extension table: an escape and a septet
_EXTENDED = frozenset("\f^{}\\[~]|€")


@dataclass(frozen=True, slots=True)
class Segments:
    """What the network makes of a text, and what it is paid by."""

    count: int
    #: GSM-7 or UCS-2: one character outside GSM's alphabet, such as ’ or any of Chinese, makes it UCS-2
    encoding: str
    #: septets of GSM-7, or UTF-16 units of UCS-2
    units: int


def segments(text: str) -> Segments:
    """How many segments a text takes: 160 septets or 70 units alone, 153 or 67 in each of several.

    What takes two (an escaped character, an emoji) is never torn between two segments.
    """
    if all(char in _BASIC or char in _EXTENDED for char in text):
        encoding, alone, joined = "GSM-7", 160, 153
        sizes = [2 if char in _EXTENDED else 1 for char in text]
    else:
        encoding, alone, joined = "UCS-2", 70, 67
        sizes = [2 if ord(char) > 0xFFFF else 1 for char in text]
    units = sum(sizes)
    if units <= alone:
        return Segments(min(units, 1), encoding, units)
    count, room = 1, joined
    for size in sizes:
        if size > room:
            count, room = count + 1, joined
        room -= size
    return Segments(count, encoding, units)


def utf16_units(text: str) -> int:
    """A text's length as the networks count it."""
    return len(text) + sum(char > "\uffff" for char in text)


# --- words ------------------------------------------------------------------------------------------------------------


class Keyword(StrEnum):
    """As Twilio names them (`OptOutType`)."""

    STOP = "STOP"
    START = "START"
    HELP = "HELP"


#: Twilio's own words, which it acts upon by itself (its article "Support for opt-out keywords"), and what people in
#: China answer to "回T退订" and the like, of which Twilio knows nothing
_WORDS = {
    Keyword.STOP: (
        "stop", "stopall", "unsubscribe", "end", "quit", "cancel", "revoke", "optout", "opt out",
        "t", "td", "退", "退订", "退訂", "停", "停止", "停发", "停發", "拒收", "取消订阅", "取消訂閱",
    ),
    Keyword.START: (
        "start", "unstop", "yes", "恢复", "恢復", "恢复接收", "恢復接收", "开始", "開始", "订阅", "訂閱", "重新订阅",
        "重新訂閱",
    ),
    Keyword.HELP: ("help", "info", "帮助", "幫助"),
}  # fmt: skip
_KEYWORDS = {word: keyword for keyword, words in _WORDS.items() for word in words}
_AROUND = " \t\r\n.。!！,，、;；\"'“”‘’「」()（）"
_LONGEST = 40


def keyword(text: str, said: str = "") -> Keyword | None:
    """What a message asks for that is one of the words and nothing else.

    `said`: Twilio's `OptOutType`, which wins: the words of a messaging service may be others.
    """
    if said:
        return Keyword(said) if said in Keyword.__members__ else None
    if len(text) > _LONGEST:
        return None
    plain = unicodedata.normalize("NFKC", text).casefold().strip(_AROUND)
    return _KEYWORDS.get(" ".join(plain.split()))


# --- reasons ----------------------------------------------------------------------------------------------------------

OPTED_OUT = 21610

_NO_NUMBER = "This is not a number that takes text messages."
_UNREACHABLE = "The phone was off, out of reach, or does not take text messages."
_BLOCKED = "The network or the phone blocked the message."

#: why a message is not taken, or did not arrive, by Twilio's number for it; in words for who wrote it
_REASONS = {
    21201: _NO_NUMBER, 21211: _NO_NUMBER, 21217: _NO_NUMBER, 21265: _NO_NUMBER, 21401: _NO_NUMBER, 21421: _NO_NUMBER,
    21604: _NO_NUMBER, 21614: _NO_NUMBER, 21635: "This is a landline, which takes no text messages.",
    21266: "The customer's number and ours are the same.",
    21408: "Text messages to this country are switched off in our account with Twilio.",
    21608: "Our account with Twilio is on trial and writes to confirmed numbers only.",
    OPTED_OUT: "The customer wants no more text messages from us (they answered STOP).",
    21612: "Our number cannot reach this one.",
    21602: "The message is empty.", 21619: "The message is empty.",
    21605: "The message is longer than 1,600 characters.", 21617: "The message is longer than 1,600 characters.",
    30001: "Too many messages were sent at once; this one was dropped.",
    30002: "Our account with Twilio is suspended.",
    30003: _UNREACHABLE, 30004: _BLOCKED, 30005: "This number is not in use, or takes no text messages.",
    30006: "This is a landline, or its network cannot be reached.",
    30007: "The network took the message for spam. Shorter words without links may help.",
    30008: "The network did not deliver the message and does not say why.",
    30009: "A part of the message was lost on the way.", 30010: "The message costs more than our account allows.",
    30034: "Our number is not registered for messages to the United States.",
    30410: "The network did not answer in time.", 30450: _BLOCKED,
}  # fmt: skip


def reason(code: int | None) -> str:
    """Why a message did not arrive, in words for an agent; the number itself where Twilio's list has grown."""
    if code is None:
        return "The message did not arrive, and nobody says why."
    return _REASONS.get(code, f"The message did not arrive (Twilio's error {code}).")


def known(code: int) -> bool:
    """Is there a reason for this number?"""
    return code in _REASONS
