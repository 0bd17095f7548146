"""Numbers that callers speak: those of cards and identities are masked before anything is stored. Pure.

A recogniser writes digits as it likes: 4111 1111 1111 1111, 六二二二零二..., "four double one". What is a card by its
issuer's prefix and check digit, or an identity by its own, is masked wherever it stands. Where the caller says that it
is one, it is masked also when a digit was misheard. Policies, claims and phones stay: people need them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from stdnum import luhn
from stdnum.cn import ric
from stdnum.exceptions import ValidationError

_CHINESE = {
    **dict(zip("〇一二三四五六七八九", "0123456789", strict=True)),
    **dict(zip("零壹贰叁肆伍陆柒捌玖", "0123456789", strict=True)),
    **dict(zip("○幺两兩貳參陸", "0122236", strict=True)),
}
_ENGLISH = {
    name: str(digit)
    for digit, names in enumerate(
        (
            ("zero", "oh"),
            ("one",),
            ("two",),
            ("three",),
            ("four",),
            ("five",),
            ("six",),
            ("seven",),
            ("eight",),
            ("nine",),
        )
    )
    for name in names
}
_TIMES = {"double": 2, "triple": 3, "treble": 3}
_DIGIT = rf"(?:(?:\b(?:{'|'.join(_TIMES)})\s{{1,2}})?(?:\d|[{''.join(_CHINESE)}]|\b(?:{'|'.join(_ENGLISH)})\b))"
_GAP = r"[\s\-–.,，、。]{0,3}"
#: eight digits or more, however they are written; an identity's last place may be an X
_RUN = re.compile(rf"(?<![*A-Za-z0-9]){_DIGIT}(?:{_GAP}{_DIGIT}){{7,}}(?:{_GAP}[xXｘＸ叉](?![A-Za-z]))?", re.I)
_ONE = re.compile(
    rf"(?:(?P<times>{'|'.join(_TIMES)})\s+)?(?P<digit>\d|[{''.join(_CHINESE)}]|{'|'.join(_ENGLISH)}|[xｘ叉])", re.I
)

#: by their form alone: Hong Kong, Singapore, the United States
_TELLING = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z]{1,2} ?\d{6} ?[(（][\dAa][)）]|[STFGMstfgm]\d{7}[A-Za-z](?![A-Za-z0-9])"
    r"|\d{3}-\d\d-\d{4}(?![\d-]))"
)
#: issuers' first digits and their cards' lengths (ISO/IEC 7812; https://en.wikipedia.org/wiki/Payment_card_number)
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[0-8]\d{14}|2[2-7]\d{14}|(?:62|81)\d{14,17}|35\d{14,17}|3[47]\d{13}|3[0689]\d{12}"
    r"|(?:6011|64\d\d|65\d\d)\d{12,15}|9558\d{15}",
    re.A,
)
#: what the caller says that a number is, nearest before it
_WORDS = re.compile(
    r"(?P<identity>身[份分][证證]|证件|證件|护照|護照|\bidentity(?: card)?|\bid(?: card)?\b|\bpassport"
    r"|\bsocial security)"
    r"|(?P<card>卡号|卡號|银行卡|銀行卡|信用卡|储蓄卡|借记卡|\b(?:credit|debit|bank|card)\b)"
    r"|(?P<other>保单|保單|合同|理赔|理賠|报案|報案|赔案|工单|工單|订单|訂單|发票|發票|电话|電話|手机|手機"
    r"|\b(?:policy|contract|claim|ticket|case|order|invoice|phone|mobile|tel|call|reach)\b)",
    re.I,
)
_BEFORE = 30  # characters
_LENGTH = 19  # digits of the longest card
_LEAST = {"identity": 8, "card": 12}


def masked(text: str) -> str:
    """The text with numbers of cards and identities as `****` and their last four; once more changes nothing."""
    text = _TELLING.sub(lambda match: _hidden([each for each in match[0] if each.isalnum()]), text)
    return _RUN.sub(_mask_run, text)


def _hidden(digits: list[str]) -> str:
    return f"****{''.join(digits[-4:]).upper()}"


def _mask_run(match: re.Match[str]) -> str:
    groups = list(_groups(match[0]))
    whole = [digit for digits, _start, _end in groups for digit in digits]
    if _is_personal("".join(whole)) or _is_said(match.string, match.start(), len(whole)):
        return _hidden(whole)
    # A card among other numbers: 4111 1111 1111 1111, 12 26. Single digits hold no such borders.
    if len(whole) < 2 * len(groups):
        return match[0]
    found, done, first = "", 0, 0
    while first < len(groups):
        size = _longest(groups, first)
        if size:
            part = groups[first : first + size]
            found += match[0][done : part[0][1]] + _hidden([digit for digits, _start, _end in part for digit in digits])
            done = part[-1][2]
        first += size or 1
    return found + match[0][done:]


def _longest(groups: list[tuple[list[str], int, int]], first: int) -> int:
    """How many groups from there on are the number of a card or an identity; 0 = none."""
    digits, found = "", 0
    for size, (more, _start, _end) in enumerate(groups[first : first + _LENGTH], 1):
        digits += "".join(more)
        if len(digits) > _LENGTH:
            break
        if _is_personal(digits):
            found = size
    return found


def _groups(run: str) -> Iterator[tuple[list[str], int, int]]:
    """The digits that stand together, with where they stand."""
    digits: list[str] = []
    start = end = 0
    for one in _ONE.finditer(run):
        if digits and one.start() > end:
            yield digits, start, end
            digits = []
        if not digits:
            start = one.start()
        digits += [_value(one["digit"])] * _TIMES.get((one["times"] or "").lower(), 1)
        end = one.end()
    if digits:
        yield digits, start, end


def _value(digit: str) -> str:
    if digit.isdecimal():
        return str(unicodedata.decimal(digit))
    return _CHINESE.get(digit) or _ENGLISH.get(digit.lower(), "X")


def _is_personal(number: str) -> bool:
    if _CARD.fullmatch(number):
        return bool(luhn.is_valid(number))
    if len(number) != 18:
        return False
    try:  # GB 11643-1999; the place is not asked for: a list of districts is of one day, and people are older
        return bool(ric.calc_check_digit(number) == number[-1] and 1850 <= ric.get_birth_date(number).year < 2100)
    except ValidationError:
        return False


def _is_said(text: str, start: int, length: int) -> bool:
    """Whether the caller says just before a number that it is a card's or an identity's."""
    said = [match.lastgroup for match in _WORDS.finditer(text, max(0, start - _BEFORE), start)]
    return bool(said) and length >= _LEAST.get(said[-1] or "", length + 1)
