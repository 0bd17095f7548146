"""What the commands `train` and `evaluate` do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain import Sentiment, Taxonomy
from nlu import Tagger
from nlu.data import Example, read_folder
from nlu.embedded import EmbeddedTagger
from nlu.evaluate import Report
from nlu.evaluate import evaluate as measure
from nlu.train import Settings
from nlu.train import train as fit

#: as shipped: what is calibrated is fitted on the development set, which other people wrote than the training set.
#: Out of fold the model looks worse than it is, since the writers of one intent took care not to repeat each other.
SHIPPED = Settings(calibrate="dev")


def train(data: Path, taxonomy: Taxonomy, target: Path, labels: Sequence[Mapping[str, Any]]) -> str:
    """Train from `data`/zh, en and mixed and people's labels; save; a summary in words. Raises `DataError`.

    Confidence and thresholds are fitted on `data`/dev, certificates come from `data`/test, which nothing else uses.
    """
    begun = time.monotonic()
    examples = [*trained_on(data), *map(labelled, labels)]
    today = datetime.now(UTC).date().isoformat()
    dev, held_out = read_folder(data / "dev"), read_folder(data / "test")
    model = fit(examples, taxonomy, dev=dev, held_out=held_out, settings=SHIPPED, date=today)
    target.parent.mkdir(parents=True, exist_ok=True)
    model.save(target)
    lines = [
        f"model {model.meta.version}: {len(examples)} examples, {len(labels)} of them labelled by people,"
        f" {time.monotonic() - begun:.0f} s, {target.stat().st_size // 1000} kB"
    ]
    for language, certificate in sorted(EmbeddedTagger.load(target, taxonomy=taxonomy).certificates.items()):
        if certificate.threshold is None:
            lines.append(f"  {language}: nothing certified (n {certificate.n}); every message goes to people first")
        else:
            lines.append(
                f"  {language}: from confidence {certificate.threshold:.3f} up,"
                f" at most {certificate.bound:.1%} go astray"
                f" ({certificate.kind}, {certificate.accepted} of {certificate.n} accepted)"
            )
    return "\n".join(lines)


def trained_on(data: Path) -> list[Example]:
    """The examples that the shipped model learns from. Raises `DataError`."""
    return [example for part in ("zh", "en", "mixed") for example in read_folder(data / part)]


def labelled(label: Mapping[str, Any]) -> Example:
    """A person's label (`storage.labels.newest`) as training reads it."""
    subject = str(label.get("subject") or "")
    text = str(label["text"])
    return Example(
        text=f"{subject}\n{text}" if subject else text,
        intent=str(label["intent"]),
        sentiment=Sentiment(label["metadata"]["sentiment"]),
        channel=str(label["metadata"].get("channel", "")),
    )


def evaluate(tagger: Tagger, data: Path, taxonomy: Taxonomy) -> Report:
    """Measure a model on a folder of examples. Raises `DataError`."""
    return measure(tagger, read_folder(data), taxonomy)
