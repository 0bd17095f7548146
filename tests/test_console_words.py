"""The console's words: both catalogs complete, times and numbers as each language writes them."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po

from web import console_labels
from web.console_page import POLICY
from web.paths import LOCALE, STATIC, TEMPLATES
from web.words import LANGUAGES, text_tag, words

_WEB = TEMPLATES.parent
_KEYWORDS = {"N_": None, "_": None, "gettext": None, "ngettext": (1, 2)}
#: the console's own; the chat's and the tracking page's words are with the chat
_PAGES = [file for file in sorted(TEMPLATES.glob("*.html")) if not file.name.startswith(("chat", "track"))]
_HOLES = re.compile(r"%\((\w+)\)s")

Msgid = tuple[str, ...]


@cache
def _used() -> dict[Msgid, str]:
    """Every sentence that a template or module of the console asks for, and where."""
    found: dict[Msgid, str] = {}
    files = [(file, "jinja2.ext:babel_extract") for file in _PAGES]
    files += [(file, "python") for file in [*sorted(_WEB.glob("console*.py")), _WEB / "words.py", _WEB / "auth.py"]]
    for file, method in files:
        options = {"newstyle_gettext": "true", "trimmed": "false"} if method != "python" else {}
        for _line, msgid, _comments, _context in extract_from_file(
            method, str(file), keywords=_KEYWORDS, options=options
        ):
            found[msgid if isinstance(msgid, tuple) else (msgid,)] = file.name
    return found


def _catalog(language: str) -> Catalog:
    with (LOCALE / f"{language}.po").open("rb") as file:
        return read_po(file, locale=language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_translated_with_all_its_holes(language: str) -> None:
    catalog = _catalog(language)
    assert len(_used()) > 200
    for msgid, place in _used().items():
        entry = catalog.get(msgid[0])
        assert entry is not None, f"{place}: {msgid[0]!r} is not in {language}.po"
        assert not entry.fuzzy, msgid
        said = entry.string if isinstance(entry.string, tuple | list) else (entry.string,)
        assert len(said) == (catalog.num_plurals if len(msgid) > 1 else 1), msgid
        for each in said:
            assert each, f"{place}: {msgid[0]!r} is empty in {language}.po"
            assert set(_HOLES.findall(each)) == set(_HOLES.findall(msgid[-1])), msgid


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_catalog_keeps_what_nobody_says(language: str) -> None:
    known = {msgid[0] for msgid in _used()}
    stale = [entry.id for entry in _catalog(language) if entry.id and _first(entry.id) not in known]
    assert stale == []


def _first(msgid: str | tuple[str, ...] | list[str]) -> str:
    return msgid if isinstance(msgid, str) else msgid[0]


def test_chinese_is_chinese() -> None:
    """Nothing but names stays in Latin letters, sentences end in full-width marks, and nobody is called 你."""
    names = {"API", "Telegram", "WhatsApp", "Messenger", "Instagram"}
    for entry in _catalog("zh"):
        if not entry.id:
            continue
        said = _first(entry.string or "")
        assert "你" not in said
        if said not in names and _HOLES.sub("", said).strip(": →.。："):
            assert re.search("[\u4e00-\u9fff]", said), said
        assert not re.search("[\u4e00-\u9fff][,.;:!?]", said), said
        if _first(entry.id).endswith(".") and len(said) > 8:
            assert said[-1] in "。！？", said


def test_every_label_has_its_words() -> None:
    zh = words("zh")
    tables = [getattr(console_labels, name) for name in dir(console_labels) if name.isupper() and len(name) > 2]
    assert len(tables) > 8
    for table in tables:
        for name in table:
            assert console_labels.label(zh, table, name)
    assert console_labels.label(zh, console_labels.INTENTS, "an_insurer_s_own") == "an_insurer_s_own"


def test_times() -> None:
    zh, en = words("zh"), words("en")
    now = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
    assert zh.ago(now - timedelta(minutes=3), now) == "3分钟前"
    assert en.ago(now - timedelta(minutes=3), now) == "3m ago"
    assert zh.ago(now - timedelta(hours=5), now) == "5小时前"
    assert en.ago(now, now) == "just now"
    local = (now - timedelta(days=2)).astimezone()
    assert zh.ago(now - timedelta(days=2), now) == f"{local.month}月{local.day}日 {local:%H:%M}"
    assert en.ago(now - timedelta(days=2), now) == f"Nov {local.day}, {local:%H:%M}"
    assert zh.moment(now.replace(year=2024), now).startswith("2024年11月2")
    assert en.moment(now.replace(year=2024), now).startswith("Nov 2")
    assert ", 2024, " in en.moment(now.replace(year=2024), now)


def test_numbers() -> None:
    zh, en = words("zh"), words("en")
    assert en.number(1234567) == zh.number(1234567) == "1,234,567"
    assert en.percent(0.914) == "91%"
    assert en.percent(0.9996) == "99%"
    assert en.percent(1.0) == "100%"
    assert en.ngettext("%(num)s change", "%(num)s changes", 1, num="1") == "1 change"
    assert zh.ngettext("%(num)s change", "%(num)s changes", 1200, num="1,200") == "1,200 次变更"


def test_the_language_of_a_text() -> None:
    assert [text_tag(each) for each in ("zh", "zh-Hant", "en", "mixed", "other", "", None)] == [
        "zh-Hans", "zh-Hant", "en", "zh-Hans", "", "", "",
    ]  # fmt: skip


# --- what the policy forbids, before a browser says so ----------------------------------------------------------------


def test_no_template_has_inline_script_or_style() -> None:
    assert "unsafe" not in POLICY
    forbidden = re.compile(r"\sstyle=|<style|\son[a-z]+=|javascript:|<script(?![^>]*\ssrc=)|hx-on|hx-vals=.js", re.I)
    for file in _PAGES:
        assert not forbidden.search(file.read_text()), file.name


def test_every_form_that_changes_something_bears_the_token() -> None:
    form = re.compile(r"<form[^>]*method=\"post\".*?</form>", re.S)
    open_doors = {"signin.html", "link.html"}
    for file in _PAGES:
        if file.name in open_doors:
            continue
        for found in form.findall(file.read_text()):
            assert 'name="csrf"' in found or "{{ hidden() }}" in found, (file.name, found[:120])


def test_the_script_and_style_are_small() -> None:
    def packed(name: str) -> int:
        return len(gzip.compress((STATIC / name).read_bytes(), 9))

    assert packed("console.js") <= 12_000
    assert packed("console.css") <= 14_000
    assert packed("console.js") + packed("htmx-2.0.11.min.js") <= 36_000


def test_every_icon_that_a_page_names_is_drawn() -> None:
    sprite = (STATIC / "icons.svg").read_text()
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', sprite))
    named = {name for file in _PAGES for name in re.findall(r'icon\("([\w-]+)"\)', file.read_text())}
    assert len(named) > 15
    assert named <= drawn


def test_licences_stand_beside_what_is_not_ours() -> None:
    for name in ("htmx-2.0.11", "lucide-1.62.0"):
        assert Path(STATIC / f"{name}.LICENSE.txt").stat().st_size > 100
