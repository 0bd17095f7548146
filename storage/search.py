"""Search over what was said: Han bigrams plus Latin words in an own column.

FTS5's and PostgreSQL's trigram indexes find nothing for two Han characters, the commonest Chinese query. So the terms
are made here: each run of Han characters becomes its bigrams, each Latin word and number itself in lower case. A query
is cut the same way and asked as a phrase, so that 理赔款 means 理赔 followed at once by 赔款.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

_MOST = 4000  # characters of one message that are searchable; a longer one is mostly quotes and signatures
_JOINED: Callable[[str, str], str] = str.__add__
_STEP = 1000  # pages of the index that one step of `compact` rewrites
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
#: full-width letters and digits, ligatures and compatibility ideographs: what NFKC changes of a term
_COMPATIBLE = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uf900-\ufaff\ufb00-\ufb06\u2460-\u24ff]")
_WORDS = re.compile(f"[^\\W_{_HAN}]+")
_HAN_RUNS = re.compile(f"[{_HAN}]+")
_RUNS = re.compile(f"{_HAN_RUNS.pattern}|{_WORDS.pattern}")

#: Run by the first migration, after the tables.
SQLITE_INDEX = (
    "CREATE VIRTUAL TABLE message_search USING fts5("
    "terms, ticket_id UNINDEXED, tokenize = 'unicode61 remove_diacritics 2', detail = full)",
)
POSTGRESQL_INDEX = (
    "CREATE TABLE message_search (message_id bigint PRIMARY KEY, ticket_id bigint NOT NULL, terms tsvector NOT NULL)",
    "CREATE INDEX ix_message_search ON message_search USING gin (terms)",
    "CREATE INDEX ix_message_search_ticket ON message_search (ticket_id)",
)

_SQLITE_ADD = sa.text("INSERT INTO message_search (rowid, terms, ticket_id) VALUES (:message_id, :terms, :ticket_id)")
_POSTGRESQL_ADD = sa.text(
    "INSERT INTO message_search (message_id, ticket_id, terms)"
    " VALUES (:message_id, :ticket_id, to_tsvector('simple', :terms)) ON CONFLICT (message_id) DO NOTHING"
)


def terms(text: str) -> str:
    """The searchable terms of a text, separated by spaces.

    >>> terms("理赔款 Claim-42")
    'claim 42 理赔 赔款'
    """
    text = _normal(text[:_MOST])
    found: list[str] = _WORDS.findall(text)
    for run in _HAN_RUNS.findall(text):
        found.extend(map(_JOINED, run, run[1:]) if len(run) > 1 else run)
    return " ".join(found)


def _normal(text: str) -> str:
    # Most Chinese text needs NFKC for its punctuation alone, which no term contains.
    if not text.isascii() and _COMPATIBLE.search(text):
        text = unicodedata.normalize("NFKC", text)
    return text.lower()


def _is_han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff"


def _phrases(query: str) -> list[list[str]]:
    """A query's words, each as the terms that must follow one another."""
    return [terms(run).split() for run in _RUNS.findall(_normal(query))]


def add(connection: Connection, rows: Sequence[dict[str, object]]) -> None:
    """Index messages: rows of {message_id, ticket_id, terms}."""
    if rows:
        connection.execute(_SQLITE_ADD if connection.dialect.name == "sqlite" else _POSTGRESQL_ADD, list(rows))


def remove(connection: Connection, message_ids: Iterable[int]) -> None:
    column = "rowid" if connection.dialect.name == "sqlite" else "message_id"
    statement = sa.text(f"DELETE FROM message_search WHERE {column} = :id")
    rows = [{"id": each} for each in message_ids]
    if rows:
        connection.execute(statement, rows)


def compact(connection: Connection, *, begin: bool) -> bool:
    """One step of rewriting the index without what was removed; True while there is more to do.

    FTS5 keeps a removed term until its segments are merged. PostgreSQL's vacuum does the like by itself.
    """
    if connection.dialect.name != "sqlite":
        return False
    changes = sa.text("SELECT total_changes()")
    before = connection.scalar(changes) or 0
    pages = -_STEP if begin else _STEP  # a negative number also takes in what no merge would touch yet
    connection.execute(sa.text("INSERT INTO message_search (message_search, rank) VALUES ('merge', :n)"), {"n": pages})
    return (connection.scalar(changes) or 0) - before >= 2


def matching(connection: Connection, query: str) -> sa.Select[Any] | None:
    """A subquery of the ticket ids that a query finds, or None where the query has no term."""
    phrases = _phrases(query)
    if not phrases:
        return None
    if connection.dialect.name == "sqlite":
        parts = []
        for index, phrase in enumerate(phrases):
            quoted = '"' + " ".join(phrase) + '"'
            last_latin = index == len(phrases) - 1 and not _is_han(phrase[0][0])
            parts.append(quoted + ("*" if last_latin else ""))
        clause = sa.text("SELECT ticket_id FROM message_search WHERE message_search MATCH :match").bindparams(
            match=" AND ".join(parts)
        )
    else:
        tokens = []
        for index, phrase in enumerate(phrases):
            lexemes = ["'" + word.replace("'", "''") + "'" for word in phrase]
            if index == len(phrases) - 1 and not _is_han(phrase[0][0]):
                lexemes[-1] += ":*"
            tokens.append("(" + " <-> ".join(lexemes) + ")")
        clause = sa.text("SELECT ticket_id FROM message_search WHERE terms @@ to_tsquery('simple', :match)").bindparams(
            match=" & ".join(tokens)
        )
    found: sa.Select[tuple[int]] = sa.select(
        clause.columns(sa.column("ticket_id", sa.BigInteger)).subquery().c.ticket_id
    )
    return found
