"""Training data is read, or refused with the file and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain import Risk, Sentiment
from nlu.data import DataError, read_file, read_folder
from tests.test_nlu_support import DATA, examples, taxonomy

GOOD = """
version: "3.1"
nlu:
- intent: claim_status
  metadata: {sentiment: neutral}
  examples:
  - text: |
      where is my claim
      since May?
    metadata: {sentiment: negative, channel: mail, risk: [legal, media]}
  - text: status of [CLM-1](claim_number)
- intent: chitchat
  examples: |
    - hi
    - hello there
- synonym: ok
  examples: |
    - okay
"""


def write(folder: Path, content: str, name: str = "en/a.yml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_both_ways_of_writing_examples(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    first, second, *rest = read_folder(tmp_path)
    assert (first.text, first.intent, first.language) == ("where is my claim\nsince May?", "claim_status", "en")
    assert (first.sentiment, first.channel) == (Sentiment.NEGATIVE, "mail")
    assert first.risk == {Risk.LEGAL, Risk.MEDIA}
    assert (second.text, second.sentiment) == ("status of CLM-1", Sentiment.NEUTRAL)
    assert [(e.text, e.sentiment) for e in rest] == [("hi", None), ("hello there", None)]


def test_language_from_folder_or_file(tmp_path: Path) -> None:
    body = "nlu: [{intent: a, examples: [x]}]"
    write(tmp_path, body, "zh/one.yml")
    write(tmp_path, body, "dev/mixed.yaml")
    write(tmp_path, body, "other_name.yml")
    assert [e.language for e in read_folder(tmp_path)] == ["mixed", "", "zh"]
    assert [e.language for e in read_folder(tmp_path / "zh")] == ["zh"]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("nlu: [", "line "),
        ("- a\n", "not a mapping"),
        ("nlu: 3", "not a list"),
        ("nlu: [{intent: 7, examples: []}]", "intent's name"),
        ("nlu: [{intent: a}]", "intent a: examples"),
        ("nlu: [{intent: a, examples: [{text: ''}]}]", "intent a, example 1: no text"),
        ("nlu: [{intent: a, examples: [ok, {text: 5}]}]", "intent a, example 2: no text"),
        ("nlu: [{intent: a, examples: [{text: x, metadata: {mood: bad}}]}]", "unknown metadata mood"),
        ("nlu: [{intent: a, examples: [{text: x, metadata: {sentiment: angry}}]}]", "angry"),
        ("nlu: [{intent: a, examples: [{text: x, metadata: {risk: [fire]}}]}]", "fire"),
        ("nlu: [{intent: a, examples: [{text: x, metadata: {risk: legal}}]}]", "risk is not a list"),
        ("nlu: [{intent: a, examples: [{text: x, metadata: 1}]}]", "metadata is not a mapping"),
        ("nlu:\n- intent: a\n  examples: |\n    no dash", "does not start with '- '"),
    ],
)
def test_errors_name_the_file_and_the_place(tmp_path: Path, content: str, wrong: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        read_file(path)
    assert str(path) in str(error.value)
    assert wrong in str(error.value)


def test_no_folder_and_no_examples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "none")
    write(tmp_path, "")
    with pytest.raises(DataError, match="no examples in 1 files"):
        read_folder(tmp_path)


def test_latin_1_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_bytes(b"nlu: \xff")
    with pytest.raises(DataError, match=r"a\.yml"):
        read_file(path)


def test_the_shipped_data_has_forty_examples_an_intent_and_language() -> None:
    for language in ("zh", "en"):
        for intent in taxonomy().intents:
            texts = {e.text for e in examples() if e.intent == intent and e.language == language}
            assert len(texts) >= 40, (language, intent)


def test_the_development_set_is_not_in_the_training_data() -> None:
    trained = {example.text for example in examples()}
    held_out = read_folder(DATA / "dev")
    # "thanks" and its like are said by everybody.
    repeated = [example.text for example in held_out if example.text in trained and len(example.text) > 30]
    assert repeated == []
