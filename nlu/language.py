"""Which language a text is in, by counting scripts: enough to answer in it, and cheap."""

from __future__ import annotations

import re

from domain import Language
from nlu.features import HAN_PER_WORD, HAN_RUN, words_of


def _characters(codec: str, first: int, last: int) -> frozenset[str]:
    """The two-byte characters of an old national charset whose first byte lies in a range."""
    table = bytes(byte for high in range(first, last + 1) for low in range(0x40, 0xFF) for byte in (high, low))
    return frozenset(character for character in table.decode(codec, errors="ignore") if character >= "\u4e00")


# What Taiwan's charset has and the mainland's has not is written in traditional texts only, and the other way round.
# Big5's first level alone: its second is rare characters, which mainland names hold too.
_GB = _characters("gb2312", 0xB0, 0xF7)
_TRADITIONAL = _characters("big5", 0xA4, 0xC6) - _GB
_SIMPLIFIED = _GB - _characters("big5", 0xA4, 0xF9)

# Letters of other languages: kana, hangul, Cyrillic, Greek, Hebrew, Arabic, Indic, Thai.
_FOREIGN = re.compile("[\u0370-\u1cff\u3040-\u30ff\u3131-\u318e\uac00-\ud7a3]")
_ACCENTED = re.compile("[ß-öø-ɏ]")

_ENGLISH = frozenset(
    """
    a about all am an and any are as at be been but by can cannot can't could did do does don't for from get got had
    has have help hello hey hi how i i'm i've if in is it it's just like may me money my need never no not now of
    off on one or our out pay please policy claim claims insurance cover car thank thanks that the their them there
    they this to up us want was we were what when where which who why will with would yes you your
    """.split()  # noqa: SIM905 - a column of quotes is harder to read
)
#: so much of a text shows its language
_ENOUGH = 500
#: the lesser language's share from which a text counts as mixed
_MIXED = 0.25


def detect(text: str) -> Language:
    """The language of a normalised text (lower case)."""
    text = text[:_ENOUGH]
    runs = HAN_RUN.findall(text)
    han = sum(map(len, runs))
    # Japanese is written with Han characters too; a Chinese text with a kana or two stays Chinese.
    if not text.isascii() and len(_FOREIGN.findall(text)) * 5 > han:
        return Language.OTHER
    if not han:
        return _latin(text, words_of(text))
    words = [word for word in words_of(text) if len(word) > 1 and word.isascii()]
    # A brand, a plate or "app" in a Chinese sentence is no English: two words at least, and a fair share.
    latin = len([word for word in words if word.replace("'", "").isalpha()])
    share = latin / (latin + han / HAN_PER_WORD)
    if latin >= 2 and share > 1 - _MIXED / 2:
        return Language.EN
    if latin >= 2 and share >= _MIXED:
        return Language.MIXED
    characters = "".join(runs)
    traditional = len(_TRADITIONAL.intersection(characters))
    if traditional and traditional > len(_SIMPLIFIED.intersection(characters)):
        return Language.ZH_HANT
    return Language.ZH


def _latin(text: str, every: list[str]) -> Language:
    if not any(word.isalpha() for word in every):
        return Language.OTHER
    english = sum(word in _ENGLISH for word in every)
    # Short texts need not hold a common word; longer ones always do.
    if len(every) >= 6:
        return Language.EN if english * 12 >= len(every) else Language.OTHER
    return Language.EN if english or not _ACCENTED.search(text) else Language.OTHER
