"""People's labels, parted once and for all: what is learned from, and what only measures.

The frozen set is nlu/data/test together with the labels held out here. No model learns from it: so a candidate and the
model in use can be compared on it, and people's labels can confirm a threshold.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain import OUT_OF_SCOPE, Language, Sentiment, Taxonomy
from nlu import Tagger
from nlu.certificate import CONFIRMED, Certificate, certify
from nlu.data import Example, read_folder
from nlu.evaluate import eligible, tagged
from nlu.features import normalise
from nlu.language import detect

#: held-out labels of a language from which they replace its synthetic certificate
LEAST_CONFIRMED = 300
#: languages that may have a certificate of their own; `other` is a bag of languages
_CERTIFIED = (Language.ZH, Language.EN, Language.ZH_HANT, Language.MIXED)

BIAS = (
    "A confirmed certificate rests on all held-out labels of its language. People label what they look at, mostly "
    "messages that the bot was not sure of: no random draw. The bound holds for messages like these."
)


@dataclass(frozen=True, slots=True)
class Split:
    """People's labels, parted, by the id of their message."""

    learned: Mapping[int, Example]
    held_out: Mapping[int, Example]
    #: labels that name an intent which the taxonomy does not have (any more)
    unknown: int


def split(labels: Sequence[Mapping[str, Any]], taxonomy: Taxonomy) -> Split:
    """Part labels (`storage.labels.newest`) by a hash of their message's id.

    Half of each language is held out. Where that is less than `LEAST_CONFIRMED` and there are so many, so many are: a
    certificate is worth more than a few hundred examples beside thousands.
    """
    known = {
        int(label["message_id"]): labelled(label)
        for label in labels
        if label["intent"] in taxonomy.intents or label["intent"] == OUT_OF_SCOPE
    }
    by_language: defaultdict[str, list[int]] = defaultdict(list)
    for message_id in sorted(known, key=_rank):
        by_language[known[message_id].language].append(message_id)
    held: set[int] = set()
    for ids in by_language.values():
        half = sum(_rank(message_id) < 0.5 for message_id in ids)
        held.update(ids[: half if len(ids) < LEAST_CONFIRMED else max(half, LEAST_CONFIRMED)])
    return Split(
        learned={message_id: example for message_id, example in known.items() if message_id not in held},
        held_out={message_id: example for message_id, example in known.items() if message_id in held},
        unknown=len(labels) - len(known),
    )


def labelled(label: Mapping[str, Any]) -> Example:
    """A person's label as training reads it. People say nothing of risk flags."""
    subject = str(label.get("subject") or "")
    text = str(label["text"])
    return Example(
        text=f"{subject}\n{text}" if subject else text,
        intent=str(label["intent"]),
        sentiment=Sentiment(label["metadata"]["sentiment"]),
        risk_known=False,
        channel=str(label["metadata"].get("channel", "")),
        language=detect(normalise(text, subject)).value,
    )


def frozen_set(data: Path, labels: Split, learned: Collection[int] = ()) -> tuple[list[Example], int]:
    """`data`/test, then the held-out labels, and where these begin. Raises `DataError`.

    `learned`: messages that a model was trained on when fewer were held out. They prove nothing of it.
    """
    test = read_folder(data / "test")
    return [*test, *(each for message_id, each in labels.held_out.items() if message_id not in learned)], len(test)


def confirmed(
    tagger: Tagger, held_out: Collection[Example], taxonomy: Taxonomy, *, max_misroute: float, delta: float, date: str
) -> dict[str, Certificate]:
    """Certificates of the languages that people labelled enough messages of, see `LEAST_CONFIRMED` and `BIAS`."""
    result: dict[str, Certificate] = {}
    for language in _CERTIFIED:
        sample = [example for example in held_out if example.language == language.value]
        if len(sample) < LEAST_CONFIRMED:
            continue
        tags = tagged(tagger, sample)
        result[language.value] = certify(
            [eligible(each) for each in tags],
            [each.department == taxonomy.owner(example.intent) for each, example in zip(tags, sample, strict=True)],
            max_misroute=max_misroute,
            delta=delta,
            date=date,
            model=tagger.version,
            kind=CONFIRMED,
        )
    return result


def _rank(message_id: int) -> float:
    """A message's place between 0 and 1, the same for ever and on every machine."""
    return int.from_bytes(hashlib.sha256(f"message {message_id}".encode()).digest()[:8], "big") / 2**64
