"""What the command `train` does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from domain import Taxonomy
from nlu import Tagger
from nlu.data import Example, read_folder
from nlu.embedded import EmbeddedTagger
from nlu.encoder import Encoder
from nlu.features import normalise
from nlu.frozen import Split
from nlu.second_stage import SecondStageTagger, beside
from nlu.second_stage_train import train_heads
from nlu.train import Settings, copies
from nlu.train import train as fit

NOBODY = Split({}, {}, 0)
#: as shipped: what is calibrated is fitted on the development set, which other people wrote than the training set.
#: Out of fold the model looks worse than it is, since the writers of one intent took care not to repeat each other.
SHIPPED = Settings(calibrate="dev")


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training ended in."""

    summary: str
    #: messages whose labels were learned
    learned: tuple[int, ...]


def train(
    data: Path, taxonomy: Taxonomy, target: Path, people: Split = NOBODY, *, encoder: Encoder | None = None
) -> Trained:
    """Train from `data`/zh, en and mixed and people's labels, and save. Raises `DataError`.

    With an `encoder` the heads of the second stage are trained too, and saved beside the model.

    Confidence and thresholds are fitted on `data`/dev. Certificates come from `data`/test and held-out labels, from
    which nothing is learned: a label that nearly repeats one of these is left out.
    """
    begun = time.monotonic()
    dev, test, held_out = read_folder(data / "dev"), read_folder(data / "test"), list(people.held_out.values())
    frozen = [normalise(example.text) for example in (*test, *held_out)]
    known = copies(frozen, [normalise(example.text) for example in people.learned.values()], SHIPPED.alike)
    learned = {key: example for (key, example), copy in zip(people.learned.items(), known, strict=True) if not copy}
    examples = [*trained_on(data), *learned.values()]
    today = datetime.now(UTC).date().isoformat()
    model = fit(examples, taxonomy, dev=dev, held_out=test, people=held_out, settings=SHIPPED, date=today)
    target.parent.mkdir(parents=True, exist_ok=True)
    model.save(target)
    tagger: Tagger = EmbeddedTagger.load(target, taxonomy=taxonomy)
    if encoder is not None:
        train_heads(
            model, encoder, examples, taxonomy,
            dev=dev, held_out=test, people=held_out, date=today, settings=SHIPPED,
        ).save(beside(target))  # fmt: skip
        tagger = SecondStageTagger.load(target, encoder, taxonomy=taxonomy)
    lines = [
        f"model {tagger.version}: {len(examples)} examples, {len(learned)} of them labelled by people,"
        f" {time.monotonic() - begun:.0f} s, {target.stat().st_size // 1000} kB"
    ]
    if people.learned or people.held_out:
        lines.append(f"  {len(held_out)} labels are held out, {sum(known)} nearly repeat what measures")
    if people.unknown:
        lines.append(f"  {people.unknown} labels name an intent that the settings do not have: left out")
    lines += [f"  {language}: {certificate}" for language, certificate in sorted(tagger.certificates.items())]
    return Trained("\n".join(lines), tuple(learned))


def trained_on(data: Path) -> list[Example]:
    """The examples that the shipped model learns from. Raises `DataError`."""
    return [example for part in ("zh", "en", "mixed") for example in read_folder(data / part)]
