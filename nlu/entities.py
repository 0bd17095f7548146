"""Things named in a text: an insurer's own numbers, personal numbers, mail addresses, amounts, dates, plates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from domain import Entity, Language, SettingsError
from nlu.entities_numbers import PHONE_REGIONS, Found, add, check_regions, personal, plain

#: only so many characters of a text are searched
_LONGEST = 20_000

_ANY = re.compile(r"[\d@]")

_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9_+-][\w.+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}(?![\w@])", re.A
)
# Patterns begin with the very characters that they look for, and look back afterwards: then the engine skips to them.
_TICKET = re.compile(r"[Ss](?<![A-Za-z0-9-][Ss])-[1-9]\d{5,11}(?![\d-])", re.A)
_PLATE = re.compile(
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-Za-z][ ·•.-]?"
    r"(?=[A-Za-z]{0,4}\d)[A-HJ-NP-Za-hj-np-z0-9]{4,5}[A-HJ-NP-Za-hj-np-z0-9学警港澳挂](?![A-Za-z0-9])"
)

_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = dict(zip(_NAMES, range(1, 13), strict=True))
_MONTH = "(?:" + "|".join(f"[{n[0].upper()}{n[0]}](?:{n[1:]}|{n[1:].upper()})" for n in _NAMES) + ")[a-zA-Z]{0,6}"
_YEAR = r"(?:19|20)\d\d"
_DATE = re.compile(
    r"\d(?<![\d.-].)(?:\d{3}(?:([-/.])\d{1,2}\1\d{1,2}(?!\d)|年\d{1,2}月\d{1,2}[日号號])|\d?月\d{1,2}[日号號]"
    rf"|\d?(?:st|nd|rd|th)? (?:of )?{_MONTH}\b(?:[.,]{{0,2}} {_YEAR}\b)?|\d?/\d{{1,2}}/{_YEAR}(?!\d))"
)
# A month before its day is looked for from the day: letters are many, digits are few.
_MONTH_BEFORE = re.compile(rf"(?<![A-Za-z]){_MONTH}\.?(?= \Z)")
_REST_OF_DATE = re.compile(rf"\d{{1,2}}(?:st|nd|rd|th)?(?!\w)(?:,? {_YEAR}\b)?")
_INTEGER, _LETTERS = re.compile(r"\d+"), re.compile(rf"{_MONTH}")

_CURRENCIES = {
    "¥": "CNY", "rmb": "CNY", "cny": "CNY", "元": "CNY", "块": "CNY", "圆": "CNY", "yuan": "CNY", "人民币": "CNY",
    "$": "USD", "us$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD", "美元": "USD", "美金": "USD",
    "hk$": "HKD", "hkd": "HKD", "港币": "HKD", "港元": "HKD",
    "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR", "欧元": "EUR",
    "£": "GBP", "gbp": "GBP", "pounds": "GBP", "英镑": "GBP",
}  # fmt: skip
_SIZES = {"万": 10_000, "萬": 10_000, "千": 1_000, "百": 100, "亿": 100_000_000}
#: without one of these no number is an amount
_MONEY = re.compile("[¥￥$€£元块圆币镑金]")
_MONEY_WORDS = ("rmb", "cny", "usd", "hkd", "eur", "gbp", "yuan", "dollar", "pound")
_BEFORE = re.compile(r"(?:[¥¥€£]|us\$|hk\$|\$|(?<![a-z])(?:rmb|cny|usd|eur|gbp|hkd)|人民币)(?= ?\Z)", re.I)
_NUMBER = re.compile(
    r"\d(?<!\d.)(?<!\d[.,,].)(?:\d{0,2}(?:[,,]\d{3})+(?:\.\d{1,2})?|\d{0,11}(?:\.\d{1,4})?)(?!\d|[,,]\d)"
)
_AFTER = re.compile(
    r" ?([万萬千百亿])? ?(元|块|圆|美元|美金|港币|港元|欧元|英镑|人民币"
    r"|(?:rmb|cny|usd|eur|gbp|hkd|yuan|dollars?|euros?|pounds)(?![a-z]))?",
    re.I,
)

#: in a house's own words before the number, or its own form of number
_OF = r"(?: +(?:[Nn]umber|[Nn][or]\.?|[Rr]ef(?:erence)?|#))?[ ::#是为為]{0,3}([A-Za-z]{0,6}-?\d[\dA-Za-z-]{5,23})"
_POLICY = (
    rf"(?:保单号?码?|保险单号?码?|保單號?碼?|保險單號?碼?|policy|Policy|POLICY){_OF}",
    r"[Pp](?<![A-Za-z0-9].)(?:[Oo][Ll]?-?\d{6,18})(?![A-Za-z0-9])",
)
_CLAIM = (
    rf"(?:案件?号|报案号码?|赔案号码?|理赔号|報案號|賠案號|claim|Claim|CLAIM){_OF}",
    r"[Cc](?<![A-Za-z0-9].)[Ll][Mm]?-?\d{6,18}(?![A-Za-z0-9])",
)


@dataclass(frozen=True, slots=True)
class Patterns:
    """How this insurer's own numbers look. A pattern's first group, if it has one, is the number."""

    own: Mapping[str, tuple[re.Pattern[str], ...]]
    #: where a phone number without a country's prefix may come from, in the order in which it is tried
    phone_regions: tuple[str, ...] = PHONE_REGIONS

    @classmethod
    def of(
        cls,
        *,
        policy_numbers: Sequence[str] = (),
        claim_numbers: Sequence[str] = (),
        phone_regions: Sequence[str] = PHONE_REGIONS,
    ) -> Patterns:
        """From regular expressions, as in the settings; common forms where there are none. Raises `SettingsError`."""
        sources = {"claim_number": claim_numbers or _CLAIM, "policy_number": policy_numbers or _POLICY}
        try:
            own = {kind: tuple(re.compile(source) for source in each) for kind, each in sources.items()}
        except re.error as error:
            raise SettingsError(f"nlu: not a regular expression: {error.pattern!r}: {error}") from error
        return cls(own, check_regions(phone_regions))


DEFAULT = Patterns.of()


def find(text: str, patterns: Patterns = DEFAULT, language: Language = Language.OTHER) -> tuple[Entity, ...]:
    """The entities of a text in the order in which they stand; where two overlap, the more telling kind stays.

    The language says which country's phone numbers are meant where no country stands before them.
    """
    text = text[:_LONGEST]
    if not _ANY.search(text):
        return ()
    found: list[Found] = []
    if "@" in text:
        _collect(found, "email", _EMAIL, text, lambda match: match[0].lower())
    _collect(found, "ticket_number", _TICKET, text, lambda match: match[0].upper())
    for kind, expressions in patterns.own.items():
        for expression in expressions:
            _collect(found, kind, expression, text, _number, group=min(expression.groups, 1))
    _collect(found, "plate", _PLATE, text, _plate)
    _collect(found, "date", _DATE, text, lambda match: _date(match[0]))
    personal(found, text, language, patterns.phone_regions)
    money = _has_money(text)
    for match in _NUMBER.finditer(text):
        new = _month_first(text, match.start()) or (_amount(text, match) if money else None)
        if new is not None:
            add(found, new)
    found.sort(key=lambda entity: entity[2])
    return tuple([Entity(kind, text[start:end], normal, start, end) for kind, normal, start, end in found])


def _collect(
    found: list[Found],
    kind: str,
    pattern: re.Pattern[str],
    text: str,
    normal: Callable[[re.Match[str]], str | None],
    group: int = 0,
) -> None:
    for match in pattern.finditer(text):
        start, end = match.span(group)
        if start < end and (form := normal(match)) is not None:
            add(found, (kind, form, start, end))


def _has_money(text: str) -> bool:
    if _MONEY.search(text):
        return True
    lower = text.lower()
    return any(word in lower for word in _MONEY_WORDS)


def _number(match: re.Match[str]) -> str:
    return plain(match[1] if match.re.groups else match[0]).upper()


def _plate(match: re.Match[str]) -> str:
    return re.sub(r"[ ·•.-]", "", match[0]).upper()


def _amount(text: str, match: re.Match[str]) -> Found | None:
    """The amount around a number, where a currency stands before or after it."""
    start, end = match.span()
    before, after = _BEFORE.search(text, max(0, start - 5), start), _AFTER.match(text, end)
    size, mark = (after[1], after[2]) if after else (None, None)
    if after and (mark or (before and size)):
        end = after.end(2 if mark else 1)
    if before:
        start = before.start()
    currency = mark or (before[0] if before else None)
    if currency is None:
        return None
    value = Decimal(re.sub("[,,]", "", plain(match[0]))) * _SIZES.get(size or "", 1)
    whole = value == value.to_integral_value()
    written = f"{value.to_integral_value() if whole else value.normalize():f}"
    return "amount", f"{written} {_CURRENCIES[plain(currency).lower()]}", start, end


def _month_first(text: str, start: int) -> Found | None:
    if start < 4 or text[start - 1] != " ":
        return None
    month, rest = _MONTH_BEFORE.search(text, max(0, start - 12), start), _REST_OF_DATE.match(text, start)
    if month is None or rest is None:
        return None
    form = _date(text[month.start() : rest.end()])
    return None if form is None else ("date", form, month.start(), rest.end())


def _date(text: str) -> str | None:
    """ISO 8601; `--MM-DD` where the year is not said; "" where day and month cannot be told apart."""
    numbers = [int(number) for number in _INTEGER.findall(text)]
    year = next((number for number in numbers if 1900 <= number < 2100), None)
    small = [number for number in numbers if number < 100]
    if named := _LETTERS.search(text):
        month, day = _MONTHS[named[0][:3].lower()], small[0]
    elif len(small) != 2:
        return None
    else:
        month, day = small
        if text.find("/") < 4 and "/" in text and year == numbers[-1]:
            # 3/4/2026 is March in one country and April in another.
            if max(small) <= 12 and month != day:
                return "" if min(small) else None
            month, day = sorted(small)
    try:
        # 2000 was a leap year: 29 February is a day of some year.
        moment = date(year or 2000, month, day)
    except ValueError:
        return None
    return moment.isoformat() if year else f"--{moment:%m-%d}"
