"""The second stage with encoders that need no library: hashes of words, and one that knows the answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

import app
from domain import OUT_OF_SCOPE, Language, SettingsError, Tags
from nlu import Tagger, Text
from nlu.certificate import Certificate
from nlu.data import DataError, Example
from nlu.embedded import EmbeddedTagger
from nlu.encoder import Encoder, read_by_encoder
from nlu.features import Floats, normalise
from nlu.second_stage import Heads, SecondStageTagger, beside, is_unsure
from nlu.second_stage_train import train_heads
from nlu.train import Settings, train
from nlu.weights import Model
from settings import Settings as Shipped
from tests.test_nlu_support import DATE, dev, examples, taxonomy

QUICK = Settings(calibrate="dev")
WIDTH = 32


@dataclass
class Hashes:
    """Each word has a direction by its hash; a text goes where its words point together."""

    name: str = "hashes"
    digest: str = "of-hashes"
    languages: frozenset[Language] = frozenset({Language.EN})
    dimension: int = WIDTH
    seen: list[str] = field(default_factory=list)

    def embed(self, texts: Sequence[str]) -> Floats:
        self.seen += texts
        rows: Floats = np.array([self.direction(text) for text in texts], dtype=np.float32).reshape(-1, WIDTH)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return rows

    def direction(self, text: str) -> Floats:
        words = [np.random.default_rng(crc32(word.encode())).normal(size=WIDTH) for word in text.lower().split()]
        return np.sum(words, axis=0, dtype=np.float32) if words else np.ones(WIDTH, dtype=np.float32)


@dataclass
class Oracle(Hashes):
    """Knows of every text what it is about: the best encoder there can be."""

    answers: Mapping[str, str] = field(default_factory=dict)

    def direction(self, text: str) -> Floats:
        return super().direction(self.answers[text])


def english(every: Sequence[Example], step: int = 1) -> list[Example]:
    return [each for each in every if each.language == "en"][::step]


@cache
def learned() -> tuple[Example, ...]:
    return (*english(examples(), 12), *[each for each in examples() if each.language == "zh"][::24])


@cache
def first() -> Model:
    return train(learned(), taxonomy(), dev=dev(), date=DATE, settings=QUICK)


def heads_for(encoder: Encoder) -> Heads:
    return train_heads(first(), encoder, learned(), taxonomy(), dev=dev(), held_out=dev(), date=DATE, settings=QUICK)


@cache
def hashed() -> Heads:
    return heads_for(Hashes())


def stages(encoder: Encoder, heads: Heads | None = None) -> SecondStageTagger:
    tagger = EmbeddedTagger(first(), taxonomy=taxonomy())
    return SecondStageTagger(tagger, first().features, heads or hashed(), encoder, taxonomy=taxonomy())


def texts_of(every: Sequence[Example]) -> list[Text]:
    return [Text(each.text, channel=each.channel) for each in every]


def without_intent(tags: Tags) -> Tags:
    return replace(
        tags, intent="", department="", confidence=0.0, alternatives=(), in_scope=True, model=first().meta.version
    )


def test_only_what_the_first_stage_is_unsure_of_is_judged_again() -> None:
    encoder = Hashes()
    tagger: Tagger = stages(encoder)
    texts = texts_of(dev())
    before = EmbeddedTagger(first(), taxonomy=taxonomy()).tag(texts)
    after = tagger.tag(texts)
    asked = [is_unsure(tags, hashed().meta.bounds) for tags in before]
    assert encoder.seen == [read_by_encoder(text.text) for text, one in zip(texts, asked, strict=True) if one]
    assert 0 < sum(asked) < len(texts)
    for one, old, new in zip(asked, before, after, strict=True):
        if one:
            assert old.language is Language.EN
            assert new.model == tagger.version == f"{first().meta.version}+hashes"
            assert without_intent(new) == without_intent(old)
        else:
            assert new == old
    assert any(one and old.intent != new.intent for one, old, new in zip(asked, before, after, strict=True))


def test_a_message_of_another_language_never_reaches_the_encoder() -> None:
    encoder = Hashes()
    stages(encoder).tag([Text("呃"), Text("нет"), Text("嗯，那个就是那样")])
    assert encoder.seen == []


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_a_message_without_text_never_reaches_the_encoder(text: str) -> None:
    encoder = Hashes(languages=frozenset(Language))
    heads = replace(hashed(), meta=replace(hashed().meta, bounds=dict.fromkeys(Language, 2.0)))
    (tags,) = stages(encoder, heads).tag([Text(text)])
    assert (tags.intent, encoder.seen) == (OUT_OF_SCOPE, [])
    assert stages(encoder, heads).tag([]) == []
    stages(encoder, heads).tag([Text(text, subject="my claim")])
    assert encoder.seen == [f"my claim\n{text}"]


def test_the_scores_are_those_of_both_rows_side_by_side() -> None:
    texts = [normalise(each.text) for each in english(dev())[:20]]
    embeddings = Hashes().embed(texts)
    dense = np.zeros((len(texts), len(first().features.idf)), dtype=np.float64)
    for place, text in enumerate(texts):
        ids, values = first().features.row(text)
        dense[place, ids] = values
    heads = hashed()
    joined = np.hstack([dense, embeddings]) @ np.vstack([heads.weights, heads.meaning]) + heads.bias
    assert heads.scores(first().features, texts, embeddings) == pytest.approx(joined, abs=1e-4)


def test_an_encoder_that_understands_makes_the_answers_better() -> None:
    everyone = [*learned(), *dev()]
    oracle = Oracle(name="oracle", answers={read_by_encoder(each.text): each.intent for each in everyone})
    sample = english(dev())
    after = stages(oracle, heads_for(oracle)).tag(texts_of(sample))
    before = EmbeddedTagger(first(), taxonomy=taxonomy()).tag(texts_of(sample))
    asked = [place for place, tags in enumerate(after) if "+oracle" in tags.model]

    def right(tags: Sequence[Tags]) -> float:
        return sum(tags[place].intent == sample[place].intent for place in asked) / len(asked)

    assert right(before) < 0.7
    assert right(after) > 0.95


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.npz"
    first().save(path)
    hashed().save(beside(path))
    loaded = SecondStageTagger.load(path, Hashes(), taxonomy=taxonomy())
    texts = texts_of(english(dev())[:200])
    assert loaded.tag(texts) == stages(Hashes()).tag(texts)
    assert loaded.certificates == stages(Hashes()).certificates
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.encoder.npz", "model.npz"]


def test_training_twice_gives_the_same_file(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        heads_for(Hashes()).save(tmp_path / name)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_heads_of_another_model_or_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"hashes.*bot\.py train"):
        stages(Hashes(digest="other weights of that name"))
    other = replace(hashed(), meta=replace(hashed().meta, first="another"))
    with pytest.raises(SettingsError, match="another"):
        stages(Hashes(), other)
    first().save(tmp_path / "model.npz")
    with pytest.raises(SettingsError, match=r"nothing was trained with it; run: python bot\.py train"):
        SecondStageTagger.load(tmp_path / "model.npz", Hashes())
    beside(tmp_path / "model.npz").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(SettingsError, match=r"model\.encoder\.npz"):
        SecondStageTagger.load(tmp_path / "model.npz", Hashes())


def test_certificates_are_of_both_stages_where_the_encoder_knows_the_language() -> None:
    tagger = stages(Hashes())
    alone = EmbeddedTagger(first(), taxonomy=taxonomy())
    assert tagger.certificates["en"].model == tagger.version
    assert tagger.certificates["zh"] == alone.certificates["zh"]
    assert tagger.certificates["mixed"] == alone.certificates["mixed"]
    assert tagger.certificates.keys() == alone.certificates.keys()


def test_the_bound_is_the_first_stages_threshold_and_nine_tenths_without_one() -> None:
    def bound(threshold: float | None) -> float:
        certificate = Certificate(
            n=500, accepted=200, threshold=threshold, bound=0.05, delta=0.1, max_misroute=0.05, date=DATE, model="m"
        )
        model = first().with_certificates({"en": certificate})
        heads = train_heads(model, Hashes(), learned(), taxonomy(), dev=dev(), held_out=dev(), settings=QUICK)
        return heads.meta.bounds["en"]

    assert bound(0.7) == 0.7
    assert bound(None) == 0.9


def test_what_the_gate_holds_back_is_unsure_too() -> None:
    tags = Tags(intent="claim_status", confidence=0.95, department="claims", language=Language.EN)
    assert not is_unsure(tags, {"en": 0.9})
    assert is_unsure(replace(tags, in_scope=False), {"en": 0.9})
    assert is_unsure(replace(tags, confidence=0.8), {"en": 0.9})
    assert not is_unsure(replace(tags, confidence=0.1, language=Language.ZH), {"en": 0.9})


def test_an_encoder_without_training_data_in_its_language_is_a_clear_error() -> None:
    with pytest.raises(DataError, match=r"languages of nlu\.encoder \(other\)"):
        heads_for(Hashes(languages=frozenset({Language.OTHER})))


def test_a_model_without_heads_is_in_use_alone_until_one_is_trained(
    tmp_path: Path, settings: Shipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "encoder_of", lambda _settings: Hashes())
    lazy = app.LazyTagger(settings)
    path = tmp_path / "model.npz"
    first().save(path)
    assert isinstance(lazy.load(path), EmbeddedTagger)
    hashed().save(beside(path))
    assert lazy.load(path).version == f"{first().meta.version}+hashes"


def test_without_an_encoder_in_the_settings_heads_are_not_looked_at(tmp_path: Path, settings: Shipped) -> None:
    path = tmp_path / "model.npz"
    first().save(path)
    hashed().save(beside(path))
    assert settings.nlu.encoder == ""
    assert app.LazyTagger(settings).load(path).version == first().meta.version
