"""Numbers that belong to one person: phones, identity cards, bank cards and accounts.

Patterns of our own find candidates, since they cost a microsecond; whether a candidate is one, and how it is written
in full, is for `phonenumbers` and `stdnum` to say. Both are imported with the first candidate (together 40 ms and 2 MB
in a running worker): a process that tags nothing, or texts without such numbers, never pays for them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from domain import Language, SettingsError

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

Found = tuple[str, str, int, int]  # type, normal form, start, end
Check = Callable[[str], str | None]  # a candidate in plain characters -> its normal form

#: types of entity by which a person could be called, paid or impersonated: shown and logged by `masked` only
PERSONAL = frozenset({"phone", "identity_number", "bank_number"})
#: where a number without a country's prefix may come from, in the order in which it is tried
PHONE_REGIONS = ("CN", "HK", "GB", "US", "SG", "AU")
#: before those, where the language says more
_BY_LANGUAGE = {Language.ZH: ("CN", "HK", "TW"), Language.ZH_HANT: ("HK", "TW", "CN")}

#: no more entities than this are reported of a text, and no more candidates put to the libraries
_MOST, _TRIES = 50, 200
#: how far before a number the word may stand that says what it is, in characters
_WORD_BEFORE = 24

#: every kind below holds six digits with little between them, or is not looked for
_CLUSTER = re.compile(r"\d(?:[ \u00a0().-]{0,2}\d){5,}")

_GAP = "[ \u00a0-]?"
_IDENTITY = re.compile(
    rf"(?<![0-9])(?P<mainland>\d{{6}}{_GAP}\d{{8}}{_GAP}\d{{3}}[\dXxＸｘ])(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9])(?:(?P<hong_kong>[A-Za-z]{1,2} ?\d{6} ?[(（][\dAa][)）])"
    r"|(?P<singapore>[STFGMstfgm]\d{7}[A-Za-z])"
    r"|(?P<taiwan>[A-Za-z][1289]\d{8})"
    r"|(?P<british>[A-Za-z]{2} \d\d \d\d \d\d [A-Da-d])"
    r"|(?P<short>[A-Za-z]{1,2} ?\d\d ?\d\d ?\d\d ?[\dA-Da-d])"
    r"|(?P<american>\d{3}-\d\d-\d{4})"
    r"|(?P<nine>\d{3} ?\d\d ?\d{4}))(?![A-Za-z0-9])"
)
_BANK = re.compile(
    rf"(?<![A-Za-z0-9])(?:(?P<account>[A-Za-z]{{2}}\d\d(?:{_GAP}[A-Za-z0-9]{{4}}){{2,7}}(?:{_GAP}[A-Za-z0-9]{{1,3}})?)"
    rf"|(?P<card>[2-689]\d(?:{_GAP}\d){{11,17}}))(?![A-Za-z0-9])"
)
_PHONE = re.compile(
    r"(?<![A-Za-z0-9_+-])(?<!\d[.,/])(?:"
    "(?P<abroad>(?:[+＋][ (]?|00(?=[1-9]))\\d(?:[ \u00a0().-]{0,2}\\d){7,14})"
    rf"|(?P<mobile>1[3-9]\d(?:{_GAP}\d{{4}}){{2}})"
    rf"|(?P<trunk>\(?0[1-9]\d{{0,3}}\)?[ \u00a0-]{{0,2}}\d{{3,8}}(?:[ \u00a0-]\d{{3,4}}){{0,2}})"
    r"|(?P<american>(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])\d{3}[.-]\d{4})"
    r")(?!\d)"
)
#: any run of digits: a phone only after a word for one
_DIGITS = re.compile("\\d(?:[ \u00a0().-]{0,2}\\d){6,11}(?!\\d)")

_PHONE_WORD = re.compile(
    r"\b(?:tel|phone|telephone|mobile|cell|call|ring|dial|reach|contact|whatsapp|fax)"
    r"|电话|電話|手机|手機|致电|致電|打|联系|聯繫|聯絡",
    re.I,
)
_IDENTITY_WORD = re.compile(r"\b(?:id|hkid|identi\w+)\b|身[份分]|[证證]|居留|統一編號|字號", re.I)
_INSURANCE_WORD = re.compile(r"\b(?:ni|nino|national insurance)\b", re.I)
_SECURITY_WORD = re.compile(r"\b(?:ssn|social security)\b", re.I)

_LAST_PART = re.compile("[ \u00a0().-]+[^ \u00a0().-]*\\Z")
_SEPARATORS = re.compile(r"[^A-Za-z0-9]+")


def masked(value: str) -> str:
    """A personal number with all but its last four letters and digits hidden: `****1234`."""
    kept = [character for character in value if character.isalnum()]
    return f"****{''.join(kept[-4:]) if len(kept) > 4 else ''}"


def masked_text(text: str) -> str:
    """A text, such as an error that is about to be logged, with the personal numbers in it masked."""
    while True:
        found: list[Found] = []
        personal(found, text, Language.OTHER, PHONE_REGIONS)
        if not found:
            return text
        for _kind, _normal, start, end in sorted(found, key=lambda each: each[2], reverse=True):
            text = f"{text[:start]}{masked(text[start:end])}{text[end:]}"


def check_regions(regions: Sequence[str]) -> tuple[str, ...]:
    """The regions as given (ISO 3166-1 alpha-2). Raises `SettingsError` for one that has no numbering plan."""
    if not set(regions) <= set(PHONE_REGIONS):
        import phonenumbers

        if unknown := sorted(set(regions) - set(phonenumbers.SUPPORTED_REGIONS)):
            raise SettingsError(f"nlu.phone_regions: no region with phones: {', '.join(unknown)}")
    return tuple(regions)


def plain(text: str) -> str:
    """Compatibility forms as their usual ones (NFKC), and the digits of every script as 0 to 9."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFKC", text)
    return "".join([str(unicodedata.decimal(each)) if each.isdecimal() else each for each in text])


def add(found: list[Found], new: Found) -> None:
    """Unless it overlaps with one that is there, or there are enough."""
    # The bound keeps a text that is all numbers from costing the square of its length.
    if len(found) < _MOST and _free(found, new[2], new[3]):
        found.append(new)


def _free(found: list[Found], start: int, end: int) -> bool:
    return not any(start < other[3] and other[2] < end for other in found)


def personal(found: list[Found], text: str, language: Language, phone_regions: Sequence[str]) -> None:
    """Adds a text's personal numbers, each proved, where nothing is found yet."""
    # In the order in which they stand, each once.
    regions = tuple(dict.fromkeys((*_BY_LANGUAGE.get(language, ()), *phone_regions)))
    national = partial(_national, regions=regions)
    tries = _TRIES
    for cluster in _CLUSTER.finditer(text):
        first, last = cluster.span()
        # Most digits are a policy's, a claim's or a date's.
        if any(other[2] <= first and last <= other[3] for other in found):
            continue
        for kind, start, end, check in _candidates(text, first, last, national):
            if not _free(found, start, end):
                continue
            if not tries:
                return
            tries -= 1
            value = text[start:end]
            normal = check(plain(value))
            # A number and another thing behind it: `6222 0000 0000 0000 2026`.
            while normal is None and kind != "identity_number" and (part := _LAST_PART.search(value, 7)):
                value = value[: part.start()]
                normal = check(plain(value))
            if normal is not None:
                add(found, (kind, normal, start, start + len(value)))


def _candidates(text: str, start: int, end: int, national: Check) -> Iterator[tuple[str, int, int, Check]]:
    """What may be a number around a cluster of digits: type, span, and how it is proved."""
    for match in _IDENTITY.finditer(text, max(0, start - 3), end + 6):
        for word, check in _IDENTITY_CHECKS[match.lastgroup or ""]:
            if word is None or _said(word, text, match.start()):
                yield "identity_number", *match.span(), check
    before = text[max(0, start - 2) : start]
    if end - start >= 13 or (before.isascii() and before.strip()[-1:].isalpha()):
        for match in _BANK.finditer(text, max(0, start - 12), end + 40):
            yield "bank_number", *match.span(), _card if match.lastgroup == "card" else _account
    for match in _PHONE.finditer(text, max(0, start - 2), end + 1):
        yield "phone", *match.span(), _PHONE_CHECKS.get(match.lastgroup or "", national)
    if (loose := _DIGITS.match(text, start)) and _said(_PHONE_WORD, text, start):
        yield "phone", *loose.span(), national


def _said(word: re.Pattern[str], text: str, start: int) -> bool:
    return word.search(text, max(0, start - _WORD_BEFORE), start) is not None


# --- phones -----------------------------------------------------------------------------------------------------------


def _abroad(value: str) -> str | None:
    import phonenumbers

    try:
        return _e164(phonenumbers.parse(f"+{value[2:]}" if value.startswith("00") else value))
    except phonenumbers.NumberParseException:
        return None


def _mobile(value: str) -> str | None:
    """A mobile number of the mainland: no other plan has eleven digits that begin so."""
    import phonenumbers

    return _e164(phonenumbers.PhoneNumber(country_code=86, national_number=int(_compact(value))))


def _national(value: str, regions: Sequence[str]) -> str | None:
    """In the first region where it is valid.

    Where people dial 0 before an area, a number without it is none: the library's parser would make a Shanghai number
    of New York's 212-555-0123. It also costs five times as much as asking whether the digits are valid.
    """
    import phonenumbers

    digits = _compact(value)
    for region in regions:
        if (metadata := phonenumbers.PhoneMetadata.metadata_for_region(region)) is None:
            continue
        prefix = metadata.national_prefix or ""
        if prefix == "0" and not digits.startswith(prefix):
            continue
        significant = digits.removeprefix(prefix)
        number = phonenumbers.PhoneNumber(
            country_code=metadata.country_code,
            national_number=int(significant),
            italian_leading_zero=significant.startswith("0"),
        )
        if phonenumbers.is_possible_number(number) and (form := _e164(number)):
            return form
    return None


def _e164(number: PhoneNumber) -> str | None:
    import phonenumbers

    valid = phonenumbers.is_valid_number(number)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if valid else None


_PHONE_CHECKS: dict[str, Check] = {"abroad": _abroad, "mobile": _mobile}


# --- identity numbers -------------------------------------------------------------------------------------------------


def _compact(value: str) -> str:
    return _SEPARATORS.sub("", value).upper()


def _mainland(value: str) -> str | None:
    """GB 11643-1999. The place is not asked for: a list of districts is of one day, and people are older."""
    from stdnum.cn import ric
    from stdnum.exceptions import ValidationError

    number = _compact(value)
    try:
        good = ric.calc_check_digit(number) == number[-1] and 1850 <= ric.get_birth_date(number).year < 2100
    except ValidationError:
        return None
    return number if good else None


def _american(value: str) -> str | None:
    """A Social Security number has no check digit: only ranges that are never given are refused."""
    from stdnum.us import ssn

    number = _compact(value)
    return number if ssn.is_valid(number) else None


def _hong_kong(value: str) -> str | None:
    """One or two letters (A = 10 ... Z = 35, none = 36), six digits and a check digit (A = 10), weighted 9 to 1: their
    sum is a multiple of 11 (https://en.wikipedia.org/wiki/Hong_Kong_identity_card)."""
    number = _compact(value)
    values = [int(each, 36) for each in number]
    if len(values) == 8:
        values.insert(0, 36)
    total = sum(weight * each for weight, each in zip(range(9, 0, -1), values, strict=True))
    return number if total % 11 == 0 and values[-1] <= 10 else None


_SINGAPORE = {
    "S": (0, "JZIHGFEDCBA"), "T": (4, "JZIHGFEDCBA"),
    "F": (0, "XWUTRQPNMLK"), "G": (4, "XWUTRQPNMLK"), "M": (3, "XWUTRQPNJLK"),
}  # fmt: skip


def _singapore(value: str) -> str | None:
    """NRIC and FIN: seven digits weighted 2 7 6 5 4 3 2 and the series' constant, modulo 11, give the letter
    (https://en.wikipedia.org/wiki/National_Registration_Identity_Card)."""
    number = _compact(value)
    constant, letters = _SINGAPORE[number[0]]
    total = constant + sum(weight * int(each) for weight, each in zip((2, 7, 6, 5, 4, 3, 2), number[1:8], strict=True))
    return number if number[8] == letters[total % 11] else None


#: a letter's number less 10 is its place
_TAIWAN = "ABCDEFGHJKLMNPQRSTUVXYWZIO"


def _taiwan(value: str) -> str | None:
    """A letter as two digits and nine digits, weighted 1 9 8 7 6 5 4 3 2 1 1: a multiple of 10
    (https://en.wikipedia.org/wiki/National_identification_card_(Taiwan)); 8 and 9 are foreign residents since 2021."""
    number = _compact(value)
    digits = f"{_TAIWAN.index(number[0]) + 10}{number[1:]}"
    weights = (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    return number if sum(weight * int(each) for weight, each in zip(weights, digits, strict=True)) % 10 == 0 else None


_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]\d{6}[A-D]", re.A)


def _british(value: str) -> str | None:
    """A National Insurance number has no check digit, but prefixes that are never given (HMRC manual, NIM39110)."""
    number = _compact(value)
    return number if _NINO.fullmatch(number) else None


#: by the pattern's group: the word that must stand before (none: the form alone is telling), and the proof
_IDENTITY_CHECKS: dict[str, tuple[tuple[re.Pattern[str] | None, Check], ...]] = {
    "mainland": ((None, _mainland),),
    "hong_kong": ((None, _hong_kong),),
    "singapore": ((None, _singapore),),
    "taiwan": ((_IDENTITY_WORD, _taiwan),),
    "british": ((None, _british),),
    "short": ((_IDENTITY_WORD, _hong_kong), (_INSURANCE_WORD, _british)),
    "american": ((None, _american),),
    "nine": ((_SECURITY_WORD, _american),),
}


# --- bank numbers -----------------------------------------------------------------------------------------------------

#: issuers' first digits and their cards' lengths (ISO/IEC 7812; https://en.wikipedia.org/wiki/Payment_card_number):
#: Visa, Mastercard and Maestro, UnionPay, JCB, American Express, Diners, Discover, ICBC's own
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[0-8]\d{14}|2[2-7]\d{14}|(?:62|81)\d{14,17}|35\d{14,17}|3[47]\d{13}|3[0689]\d{12}"
    r"|(?:6011|64\d\d|65\d\d)\d{12,15}|9558\d{15}",
    re.A,
)


def _card(value: str) -> str | None:
    from stdnum import luhn

    number = _compact(value)
    return number if _CARD.fullmatch(number) and luhn.is_valid(number) else None


def _account(value: str) -> str | None:
    """IBAN (ISO 13616): length and form by country, and the check digits; not what a country's banks add to them."""
    from stdnum import iban

    number = _compact(value)
    return number if iban.is_valid(number, check_country=False) else None
