"""Reads labelled examples: folders of Rasa NLU YAML, each example with its own metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from domain import Language, Risk, Sentiment, SluiceError

# The pure Python loader takes seconds where libyaml takes a tenth.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Rasa's inline entities: [Berlin](city) and [Berlin]{"entity": "city"}
_ENTITY = re.compile(r"\[([^\]\[]+)\](?:\([\w.-]+(?::[^)]*)?\)|\{\"[^}]*\})")
_METADATA = frozenset({"sentiment", "channel", "risk", "decoy"})
_LANGUAGES = frozenset(language.value for language in Language)


class DataError(SluiceError):
    """Training data cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One labelled text."""

    text: str
    intent: str
    sentiment: Sentiment | None = None
    risk: frozenset[Risk] = frozenset()
    #: False: whoever labelled it was not asked about risk flags
    risk_known: bool = True
    #: flags that it looks like and does not bear
    decoy: frozenset[Risk] = frozenset()
    channel: str = ""
    #: as the folder or file is named (`zh`, `en`); "" where neither says it
    language: str = ""


def read_folder(folder: Path) -> list[Example]:
    """Every *.yml and *.yaml below a folder, in sorted order. Raises `DataError`."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of training data")
    files = sorted(path for path in folder.rglob("*.y*ml") if path.suffix in {".yml", ".yaml"})
    examples = [example for path in files for example in read_file(path, _language(path.relative_to(folder.parent)))]
    if not examples:
        raise DataError(f"{folder}: no examples in {len(files)} files (*.yml, Rasa NLU format)")
    return examples


def _language(path: Path) -> str:
    names = [path.stem, *reversed(path.parts[:-1])]
    return next((name for name in names if name in _LANGUAGES), "")


def read_file(path: Path, language: str = "") -> list[Example]:
    """The examples of one file. Raises `DataError`, which names the file and what is wrong."""
    try:
        # One loader a call, of a safe kind: it makes plain values only.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    if content is None:
        return []
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a mapping with the key nlu")
    items = content.get("nlu") or []
    if not isinstance(items, list):
        raise DataError(f"{path}: nlu is not a list")
    examples: list[Example] = []
    for item in items:
        # Synonyms, regexes and lookup tables are Rasa's affair.
        if isinstance(item, dict) and "intent" in item:
            examples.extend(_intent(path, item, language))
    return examples


def _intent(path: Path, item: dict[str, Any], language: str) -> Iterator[Example]:
    intent = item["intent"]
    if not isinstance(intent, str) or not intent:
        raise DataError(f"{path}: an intent's name is not a text: {intent!r}")
    shared = _mapping(path, intent, item.get("metadata"))
    examples = item.get("examples")
    if isinstance(examples, str):
        rows: list[Any] = [{"text": line} for line in _lines(path, intent, examples)]
    elif isinstance(examples, list):
        rows = examples
    else:
        raise DataError(f"{path}: intent {intent}: examples is neither a list nor a block of lines")
    for number, row in enumerate(rows, start=1):
        where = f"intent {intent}, example {number}"
        text = row.get("text") if isinstance(row, dict) else row
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{path}: {where}: no text")
        own = _mapping(path, where, row.get("metadata")) if isinstance(row, dict) else {}
        yield _example(path, where, text, intent, {**shared, **own}, language)


def _lines(path: Path, intent: str, block: str) -> Iterator[str]:
    for line in block.splitlines():
        if not line.strip():
            continue
        if not line.lstrip().startswith("-"):
            raise DataError(f"{path}: intent {intent}: a line does not start with '- ': {line.strip()[:40]!r}")
        yield line.lstrip()[1:]


def _mapping(path: Path, where: str, metadata: Any) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise DataError(f"{path}: {where}: metadata is not a mapping")
    unknown = sorted(str(key) for key in metadata.keys() - _METADATA)
    if unknown:
        known = ", ".join(sorted(_METADATA))
        raise DataError(f"{path}: {where}: unknown metadata {', '.join(unknown)} (known: {known})")
    return metadata


def _example(path: Path, where: str, text: str, intent: str, metadata: dict[str, Any], language: str) -> Example:
    sentiment = metadata.get("sentiment")
    channel = metadata.get("channel") or ""
    try:
        if not isinstance(channel, str):
            raise ValueError(f"channel is not a text: {channel!r}")
        return Example(
            text=_ENTITY.sub(r"\1", text).strip(),
            intent=intent,
            sentiment=None if sentiment is None else Sentiment(sentiment),
            risk=_flags(metadata, "risk"),
            decoy=_flags(metadata, "decoy"),
            channel=channel,
            language=language,
        )
    except ValueError as error:
        raise DataError(f"{path}: {where}: {error}") from error


def _flags(metadata: dict[str, Any], name: str) -> frozenset[Risk]:
    given = metadata.get(name) or []
    if not isinstance(given, list):
        raise ValueError(f"{name} is not a list: {given!r}")
    return frozenset(Risk(each) for each in given)
