"""JSON lines in, JSON lines out, in order, whatever comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from domain import Entity, Guess, Language, Risk, Sentiment, Tags
from nlu import Text
from nlu.certificate import Certificate
from nlu.classify import classify_lines

FIELDS = [
    "id", "intent", "confidence", "alternatives", "department", "sentiment", "sentiment_confidence", "language", "risk",
    "entities", "auto_routed",
]  # fmt: skip


class Fake:
    """Says what it was given."""

    version = "fake"
    certificates: dict[str, Certificate] = {}

    def __init__(self) -> None:
        self.seen: list[Text] = []

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        self.seen.extend(texts)
        return [
            Tags(
                intent="claim_status",
                confidence=0.876543,
                department="claims",
                alternatives=(Guess("claim_dispute", 0.0123456),),
                sentiment=Sentiment.NEGATIVE,
                sentiment_confidence=2 / 3,
                language=Language.EN,
                risk=(Risk.LEGAL,),
                entities=(Entity("amount", "¥3", "3 CNY", 0, 2),),
            )
            for _ in texts
        ]


def run(lines: Sequence[str], tagger: Fake | None = None) -> tuple[list[dict[str, Any]], list[bool]]:
    rows = list(classify_lines(lines, tagger or Fake(), lambda tags: tags.confidence > 0.5))
    return [json.loads(line) for line, _ in rows], [ok for _, ok in rows]


def test_a_line_has_the_fields_of_the_contract() -> None:
    tagger = Fake()
    (row,), (ok,) = run(['{"id": "a", "text": "¥3", "subject": "s", "channel": "mail", "extra": [1]}'], tagger)
    assert ok
    assert list(row) == FIELDS
    assert row == {
        "id": "a",
        "intent": "claim_status",
        "confidence": 0.8765,
        "alternatives": [{"intent": "claim_dispute", "confidence": 0.0123}],
        "department": "claims",
        "sentiment": "negative",
        "sentiment_confidence": 0.6667,
        "language": "en",
        "risk": ["legal"],
        "entities": [{"type": "amount", "value": "¥3", "normal": "3 CNY", "start": 0, "end": 2}],
        "auto_routed": True,
    }
    assert tagger.seen == [Text("¥3", "s", "mail")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ('{"text": "x"}', "id"),
        ('{"id": null, "text": "x"}', "id"),
        ('{"id": true, "text": "x"}', "id"),
        ('{"id": 1e999, "text": "x"}', "id"),
        ('{"id": NaN, "text": "x"}', "NaN"),
        ('{"id": 1}', "text"),
        ('{"id": 1, "text": 5}', "text"),
        ('{"id": 1, "text": "x", "subject": []}', "subject"),
        ("[" * 100_000, "not JSON"),
        ('{"id": ' + "9" * 5000 + ', "text": "x"}', "not JSON"),
    ],
)
def test_a_broken_line_is_answered_in_its_place(line: str, why: str) -> None:
    rows, oks = run(['{"id": 1, "text": "a"}', line, '{"id": 2, "text": "b"}'])
    assert oks == [True, False, True]
    assert [row["id"] for row in rows] == [1, None, 2]
    assert list(rows[1]) == ["id", "error"]
    assert why in rows[1]["error"]


def test_order_is_kept_over_batches() -> None:
    lines = [f'{{"id": {i}, "text": "t{i}"}}' if i % 7 else "broken" for i in range(300)]
    tagger = Fake()
    rows, oks = run(lines, tagger)
    assert [row["id"] for row in rows] == [i if i % 7 else None for i in range(300)]
    assert oks == [bool(i % 7) for i in range(300)]
    assert [text.text for text in tagger.seen] == [f"t{i}" for i in range(300) if i % 7]


def test_numbers_texts_nulls_and_marks() -> None:
    rows, oks = run(['\ufeff{"id": 1.5, "text": "", "subject": null}', '{"id": "号", "text": "\\ud800"}\n'])
    assert oks == [True, True]
    assert [row["id"] for row in rows] == [1.5, "号"]


def test_the_output_can_be_written_anywhere() -> None:
    for line, _ in classify_lines(['{"id": "\\ud83d 号", "text": "x"}', "\udcff"], Fake(), lambda _: False):
        line.encode("ascii")


def test_no_lines() -> None:
    assert run([]) == ([], [])
