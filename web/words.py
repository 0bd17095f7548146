"""What the console says, in two languages: gettext catalogs read at start, negotiation, and the forms of times.

Chinese has one plural form and full-width punctuation, so sentences are whole msgids with named holes, never glued.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from babel import Locale, numbers
from babel.dates import format_date
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import Translations
from fastapi import Request

from web.paths import LOCALE

LANGUAGES = ("zh", "en")
COOKIE = "sluice_language"
_TAGS = {"zh": "zh-Hans", "en": "en", "zh-Hant": "zh-Hant"}


def N_(text: str) -> str:
    """Marks a msgid for the catalogs where it stands in a table and is translated later."""
    return text


@dataclass(frozen=True, slots=True)
class Words:
    """One language: its sentences and the forms of its times and numbers."""

    language: str
    catalog: Translations
    locale: Locale

    @property
    def tag(self) -> str:
        """The `lang` attribute of pages."""
        return _TAGS[self.language]

    def gettext(self, text: str, **holes: Any) -> str:
        said = str(self.catalog.ugettext(text)) if text else ""
        return said % holes if holes else said

    def ngettext(self, one: str, many: str, n: int, **holes: Any) -> str:
        return str(self.catalog.ungettext(one, many, n)) % {"n": self.number(n), **holes}

    def number(self, value: int) -> str:
        return str(numbers.format_decimal(value, locale=self.locale))

    def percent(self, value: float) -> str:
        """A confidence: whole per cent, and never `100%` for what is only nearly sure."""
        return f"{min(int(value * 100 + 0.5), 99 if value < 1 else 100)}%"

    def moment(self, at: datetime, now: datetime | None = None) -> str:
        """An absolute time in the machine's zone: `11月22日 14:05`, `Nov 22, 14:05`; other years say theirs."""
        local = at.astimezone()
        same_year = local.year == (now or datetime.now(UTC)).astimezone().year
        clock = f"{local:%H:%M}"
        if self.language == "zh":
            return f"{'' if same_year else f'{local.year}年'}{local.month}月{local.day}日 {clock}"
        day = format_date(local, "MMM d" if same_year else "MMM d, y", locale=self.locale)
        return f"{day}, {clock}"

    def lasts(self, seconds: float) -> str:
        """A length of time in one unit, as a row shows it: `43m`, `3h`, `2d`."""
        minutes = int(abs(seconds) // 60)
        if minutes < 60:
            return self.gettext("%(n)sm", n=minutes)
        if minutes < 48 * 60:
            return self.gettext("%(n)sh", n=minutes // 60)
        return self.gettext("%(n)sd", n=minutes // 1440)

    def ago(self, at: datetime, now: datetime | None = None) -> str:
        """Relative up to 24 hours, then absolute."""
        now = now or datetime.now(UTC)
        seconds = (now - at).total_seconds()
        if seconds < 60:
            return self.gettext("just now")
        if seconds < 86400:
            return self.gettext("%(time)s ago", time=self.lasts(seconds))
        return self.moment(at, now)

    def size(self, octets: int) -> str:
        if octets < 1000:
            return f"{octets} B"
        if octets < 1_000_000:
            return f"{octets / 1000:.0f} kB"
        return f"{octets / 1_000_000:.1f} MB"


@cache
def words(language: str) -> Words:
    """The words of a language, read once."""
    if language not in LANGUAGES:
        language = LANGUAGES[0]
    with (LOCALE / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    compiled = io.BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return Words(language, Translations(compiled), Locale.parse("zh_Hans_CN" if language == "zh" else language))


def negotiated(request: Request, setting: str = "") -> Words:
    """The person's setting, else the browser's cookie, else what it asks for, else Chinese."""
    for wanted in (setting, request.cookies.get(COOKIE, "")):
        if wanted in LANGUAGES:
            return words(wanted)
    return words(_accepted(request.headers.get("accept-language", "")))


def _accepted(header: str) -> str:
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(header.split(",")[:20]):
        tag, _, weight = part.partition(";")
        try:
            quality = float(weight.partition("=")[2]) if weight else 1.0
        except ValueError:
            continue
        ranked.append((-quality, place, tag.strip().lower().partition("-")[0]))
    for quality, _place, language in sorted(ranked):
        if language in LANGUAGES and quality < 0:
            return language
    return LANGUAGES[0]


def text_tag(language: str | None) -> str:
    """The `lang` of a customer's text, or "" where we do not know it."""
    found = language or ""
    return _TAGS.get(found, "zh-Hans" if found == "mixed" else "")
