"""The tagger on public sets of intents, and what a message costs: `python -m tests.bench_nlu [SHARED_DATA]`.

BANKING77 and CLINC150 are read from a folder beside the project (`../shared/data/nlu`) and are no part of it.
"""

from __future__ import annotations

import csv
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from channels import mail_parse
from domain import Department, Message, Taxonomy
from nlu import Text
from nlu.data import Example, read_folder
from nlu.embedded import EmbeddedTagger
from nlu.train import Settings, train
from tests import bench_corpus
from tests.bench_tools import latencies, one_core, quantile

ROOT = Path(__file__).parents[1]

Pairs = list[tuple[str, str]]  # text, intent


def banking77(folder: Path) -> tuple[Pairs, Pairs]:
    def rows(name: str) -> Pairs:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            return [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]

    return rows("banking77_train.csv"), rows("banking77_test.csv")


def clinc150(folder: Path) -> tuple[Pairs, Pairs]:
    """In-scope messages, as the published figures count."""
    whole = json.loads((folder / "clinc150.json").read_text(encoding="utf-8"))
    return [(text, intent) for text, intent in whole["train"]], [(text, intent) for text, intent in whole["test"]]


def few(pairs: Pairs, count: int, seed: int) -> Pairs:
    """`count` examples of each intent, drawn by a seed."""
    draw = random.Random(seed)
    by_intent: dict[str, Pairs] = {}
    for pair in pairs:
        by_intent.setdefault(pair[1], []).append(pair)
    return [pair for intent in sorted(by_intent) for pair in draw.sample(by_intent[intent], count)]


def accuracy(learnt: Pairs, asked: Pairs) -> tuple[float, float]:
    """Share of right intents, and CPU seconds of training."""
    intents = sorted({intent for _, intent in learnt})
    taxonomy = Taxonomy({"all": Department("all", "all", "all")}, dict.fromkeys(intents, "all"))
    examples = [Example(text=text, intent=intent, language="en") for text, intent in learnt]
    began = time.process_time()
    model = train(examples, taxonomy, dev=examples[::7], settings=Settings(calibrate="dev", min_df=1))
    took = time.process_time() - began
    tags = EmbeddedTagger(model, taxonomy=taxonomy).tag([Text(text) for text, _ in asked])
    return statistics.mean(tag.intent == intent for tag, (_, intent) in zip(tags, asked, strict=True)), took


def public_sets(folder: Path) -> None:
    for name, (learnt, asked) in {"BANKING77": banking77(folder), "CLINC150": clinc150(folder)}.items():
        found, took = accuracy(learnt, asked)
        print(f"{name}: {len(learnt)} examples, accuracy {found:.4f}, training {took:.0f} s of CPU", flush=True)
        seeds = [accuracy(few(learnt, 10, seed), asked)[0] for seed in range(3)]
        print(
            f"{name}: 10 an intent, {statistics.mean(seeds):.4f} ({', '.join(f'{each:.4f}' for each in seeds)})",
            flush=True,
        )


def costs() -> None:
    """Microseconds a message, one by one, after a warm-up."""
    tagger = EmbeddedTagger.load(ROOT / "nlu" / "model" / "default.npz")
    chats = [Text(example.text) for example in read_folder(ROOT / "nlu" / "data" / "test") if example.channel == "chat"]
    mails = [Text(body) for body in _mail_texts()]

    def each(texts: Sequence[Text]) -> str:
        took = latencies(lambda text: tagger.tag([text]), texts)
        return f"p50 {quantile(took, 0.5) * 1e6:.0f} us, p99 {quantile(took, 0.99) * 1e6:.0f} us"

    with one_core():
        print(f"all tags of a chat message ({len(chats)} of the test set): {each(chats)}")
        print(f"all tags of a mail of 1.9 kB ({len(mails)} of the bench): {each(mails)}")


def _mail_texts() -> list[str]:
    parsed = [
        mail_parse.parse(raw, received_at=datetime.now(UTC), account="mail") for raw in bench_corpus.mails("nlu")[:300]
    ]
    return [item.clean or item.text for item in parsed if isinstance(item, Message)]


if __name__ == "__main__":
    costs()
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data" / "nlu"
    if shared.is_dir():
        public_sets(shared)
    else:
        print(f"{shared}: not here, so BANKING77 and CLINC150 are not measured")
