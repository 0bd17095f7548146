"""The `classify` command without its streams: JSON lines in, JSON lines out, in order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NoReturn

from domain import Tags
from nlu import Tagger, Text

_BATCH = 64

Read = tuple[str | int | float, Text]


def classify_lines(
    lines: Iterable[str], tagger: Tagger, auto_routed: Callable[[Tags], bool]
) -> Iterator[tuple[str, bool]]:
    """One output line for each input line, and whether the input could be read.

    The output is ASCII, so that it can be written whatever the terminal's charset. Bytes that are not UTF-8 should come
    as surrogate escapes: they make the line strange, not the stream.
    """
    source = iter(lines)
    while batch := list(islice(source, _BATCH)):
        rows = [_read(line) for line in batch]
        tags = iter(tagger.tag([row[1] for row in rows if not isinstance(row, str)]))
        for row in rows:
            if isinstance(row, str):
                yield json.dumps({"id": None, "error": row}), False
            else:
                yield _line(row[0], found := next(tags), auto_routed(found)), True


def _read(line: str) -> Read | str:
    """The id and the text of a line, or what is wrong with it."""
    try:
        values = json.loads(line.lstrip("\ufeff"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(values, dict):
        return "not a JSON object"
    key = values.get("id")
    if isinstance(key, bool) or not isinstance(key, str | int | float):
        return "id: a text or a number is needed"
    if isinstance(key, float) and not math.isfinite(key):
        return "id: the number is too large"
    fields: dict[str, str] = {}
    for name, default in (("text", None), ("subject", ""), ("channel", "")):
        value = values.get(name)
        value = default if value is None else value
        if not isinstance(value, str):
            return f"{name}: a text is needed"
        fields[name] = value
    return key, Text(**fields)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not allowed")


def _line(key: str | int | float, tags: Tags, auto_routed: bool) -> str:
    kept: dict[str, Any] = tags.to_json()
    names = (
        "intent", "confidence", "alternatives", "department", "sentiment", "sentiment_confidence",
        "language", "risk", "entities",
    )  # fmt: skip
    return json.dumps({"id": key, **{name: kept[name] for name in names}, "auto_routed": auto_routed})
