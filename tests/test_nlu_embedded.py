"""The tagger, on a model trained here from the shipped data."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain import OUT_OF_SCOPE, TRIAGE, Language, Risk, SettingsError, Tags, Taxonomy
from nlu import Tagger, Text
from nlu.calibration import softmax
from nlu.certificate import Certificate
from nlu.data import DataError, Example
from nlu.embedded import EmbeddedTagger
from nlu.evaluate import eligible, evaluate
from nlu.features import normalise
from nlu.lexicon import named_risks
from nlu.train import Settings, copies, train
from nlu.weights import Model
from tests.test_nlu_support import DATE, QUICK, dev, examples, model, tagger, taxonomy


def small(count: int = 600) -> list[Example]:
    step = len(examples()) // count
    return list(examples()[::step])


def test_the_port_is_filled() -> None:
    port: Tagger = tagger()
    (tags,) = port.tag([Text("我的理赔款什么时候到账")])
    assert tags.intent == "claim_status"
    assert tags.department == "claims"
    assert tags.language is Language.ZH
    assert tags.model == port.version == model().meta.version
    assert port.tag([]) == []


def test_training_twice_gives_the_same_file(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        made = train(small(), taxonomy(), dev=dev()[:100], date=DATE, settings=QUICK)
        made.save(tmp_path / name)
        digests.append((made.meta.version, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()))
    assert digests[0] == digests[1]


def test_the_version_names_data_and_settings() -> None:
    data = small(300)
    base = train(data, taxonomy(), settings=QUICK).meta.version
    assert train(data[:-1], taxonomy(), settings=QUICK).meta.version != base
    assert train(data, taxonomy(), settings=replace(QUICK, intent_c=5.0)).meta.version != base


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.npz"
    model().save(path)
    loaded = EmbeddedTagger.load(path, taxonomy=taxonomy())
    texts = [Text(example.text, channel=example.channel) for example in dev()[:200]]
    assert loaded.tag(texts) == tagger().tag(texts)
    assert loaded.certificates == tagger().certificates
    assert [file.name for file in path.parent.iterdir()] == ["model.npz"]


def test_together_or_alone_a_text_gets_the_same_tags() -> None:
    texts = [Text(example.text) for example in dev()[:60]]
    assert tagger().tag(texts) == [tags for text in texts for tags in tagger().tag([text])]


def test_confidence_is_the_departments_calibrated_probability() -> None:
    meta = model().meta
    text = "how do I pay my premium by card"
    ids, values = model().features.row(normalise(text))
    scores = values @ model().weights[ids] + model().bias
    chances = softmax(scores[None, : len(meta.intents)], meta.intent_beta)[0]
    (tags,) = tagger().tag([Text(text)])
    assert tags.intent == meta.intents[int(chances.argmax())]
    owned = [chances[i] for i, intent in enumerate(meta.intents) if taxonomy().owner(intent) == tags.department]
    assert tags.confidence == pytest.approx(np.interp(sum(owned), *meta.knots), abs=1e-6)
    ranked = [meta.intents[i] for i in np.argsort(-chances, kind="stable")[1:4]]
    assert [guess.intent for guess in tags.alternatives] == ranked


def test_the_settings_taxonomy_wins_over_the_trained_one() -> None:
    moved = Taxonomy(taxonomy().departments, {**taxonomy().intents, "claim_status": "billing"})
    text = [Text("我的理赔款什么时候到账")]
    assert EmbeddedTagger(model(), taxonomy=moved).tag(text)[0].department == "billing"
    assert EmbeddedTagger(model()).tag(text)[0].department == "claims"


@pytest.mark.parametrize("text", ["", "   ", "\n\t "])
def test_an_empty_text_is_out_of_scope(text: str) -> None:
    (tags,) = tagger().tag([Text(text)])
    assert (tags.intent, tags.department, tags.confidence, tags.in_scope) == (OUT_OF_SCOPE, TRIAGE, 0.0, False)
    assert tags.risk == ()


def test_the_subject_is_read_and_spans_are_of_the_text() -> None:
    (tags,) = tagger().tag([Text("电话13800138000", subject="申请开具发票")])
    assert tags.intent == "invoice_request"
    (phone,) = tags.entities
    assert (phone.start, phone.end) == (2, 13)


def sound(tags: Tags) -> bool:
    return (
        0.0 <= tags.confidence <= 1.0
        and 0.0 <= tags.sentiment_confidence <= 1.0
        and (tags.intent == OUT_OF_SCOPE) == (tags.department == TRIAGE)
    )


#: the profile's number of examples (`--hypothesis-profile long`, see conftest.py), and never fewer than these
_fuzzed = settings(
    max_examples=max(300, settings().max_examples),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@_fuzzed
@given(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=50))
def test_any_text_is_tagged(text: str, subject: str) -> None:
    (tags,) = tagger().tag([Text(text, subject)])
    assert sound(tags)


#: what patterns begin with, and what is invisible, combines, or changes its length in another form
_PIECES = st.sampled_from(
    ["1", "1 ", "1,", "1.", "1/", "0-", "+1", "(0", "-", "- ", ".", "@", "a@", "@a.", "a.b-", "(", "((", ")",
     "[", "]", "{", "（", "）", "【", "】", "「", "«", "'", "’", "_", "#", ":", "：", " ", "\u00a0", "\u3000", "\n",
     "\t", "\x00", "/", "\\", "\u0301", "e\u0301", "\u0327\u0301\u0323", "Z̷̡̢̛", "\u20dd", "\u3099", "\u200b",
     "\u200c", "\u200d", "\u2060", "\ufeff", "\u202e", "\u2066", "\ufe0f", "\U000e0041", "👨‍👩‍👧", "🇨🇳", "ﷺ",
     "İ", "ß", "ŉ", "ſ", "ǅ", "ﬃ", "㍿", "\U0001d7d8", "１", "٣", "५", "Ⅷ", "①", "½", "²", "理", "赔a", "理1", "㐀",
     "\U00020000", "где", "か", "ｶﾞ", "한", "ᄒ", "ا", "א", "ไ", "अ", "保单号", "保单号1", "案件", "policy ",
     "claim number ", "Policy no. A-", "tel ", "电话 ", "id ", "S-1", "US-123456", "京A", "京A1", "Jan ",
     "22 Nov ", "1st of ", "2026-", "2026年1月", "1/2/20", "¥", "￥ ", "$", "US$ ", "1万", "3元", "usd",
     "13800138000", "138-0013-8000 ", "+99912345678,", "0123-456-7890,", "call 11234567,", "4111 1111 ",
     "62220000", "GB82 WEST 1234 ", "GB82", "ab12 ", "ab 12 34 56 e ", "110105194912310021,",
     "11010519491231002X", "A123456(3)", "我要投诉", "我会", "起诉", "律师", "12378", "不想活", "i will ", "sue you",
     "complained to ", "ombuds", "my life", "it all"]
)  # fmt: skip
_UNIT = st.lists(
    _PIECES | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=1, max_size=4
)
#: a few characters over and over, up to a length that is a power of two
_RUN = st.builds(
    lambda unit, power: (unit * (2**power // len(unit) + 1))[: 2**power], _UNIT.map("".join), st.integers(0, 20)
)
_MOST = 1_000_000
#: CPU seconds: for what a first number loads, and for each character. 20,000 are read closely, of all the more none.
_AT_ONCE, _PER_CHARACTER = 0.2, 25e-6


@_fuzzed
@given(st.lists(_RUN, max_size=6).map(lambda runs: "".join(runs)[:_MOST]), st.lists(_PIECES, max_size=50).map("".join))
def test_up_to_a_megabyte_of_anything_is_tagged_in_time_linear_in_its_length(text: str, subject: str) -> None:
    made, took = tagger(), []
    for _ in range(2):  # what else the process does now and then, such as collecting garbage, is not the text's doing
        began = time.process_time()
        (tags,) = made.tag([Text(text, subject)])
        took.append(time.process_time() - began)
    spent = min(took) / (_AT_ONCE + _PER_CHARACTER * min(len(text), 20_000))
    assert spent < 1
    assert sound(tags)
    assert all(text[each.start : each.end] == each.value for each in tags.entities)


@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        "\ud800 lone \udfff surrogate",
        "😀👨‍👩‍👧‍👦🏳️‍🌈",
        "ﷺ" * 2000,  # one code point that becomes eighteen
        "a" * 200_000,
        "理" * 200_000,
        "1" * 200_000,
        "1," * 100_000,
        "a@" * 100_000,
        "+1 " * 60_000,
        "Z̷̡̢̛a̶l̵g̷o̸" * 500,
        "\u202e\u200b\ufeff",
        "İİİ ßß ŉ",
    ],
    ids=repr,
)
def test_strange_texts_are_tagged(text: str) -> None:
    (tags,) = tagger().tag([Text(text[:200_000], subject=text[:500])])
    assert sound(tags)


@pytest.mark.parametrize(
    ("text", "risks"),
    [
        ("我不想活了", {Risk.SELF_HARM}),
        ("i want to end my life", {Risk.SELF_HARM}),
        ("i don't want to live", {Risk.SELF_HARM}),
        ("两年内自杀赔不赔", set()),
        ("我不想活动", set()),
        ("想死你们了", set()),
        ("再不处理我就投诉到12378", {Risk.REGULATOR}),
        ("已向金融监管总局反映", {Risk.REGULATOR}),
        ("i complained to the ombudsman", {Risk.REGULATOR}),
        ("12378是你们的号码吗", set()),
        ("不打12378", set()),
    ],
)
def test_risks_that_are_named(text: str, risks: set[Risk]) -> None:
    assert named_risks(text) == risks


def test_certificates_by_language() -> None:
    def certificate(threshold: float | None) -> Certificate:
        return Certificate(
            n=500, accepted=200, threshold=threshold, bound=0.05, delta=0.1, max_misroute=0.05, date=DATE, model="m"
        )

    def of(zh: float | None, en: float | None) -> dict[str, float | None]:
        made = model().with_certificates({"zh": certificate(zh), "en": certificate(en)})
        return {name: c.threshold for name, c in EmbeddedTagger(made).certificates.items()}

    assert of(0.8, 0.9) == {"zh": 0.8, "en": 0.9, "zh-Hant": 0.9, "mixed": 0.9}
    assert of(0.8, None) == {"zh": 0.8, "en": None, "zh-Hant": None, "mixed": None}
    only = model().with_certificates({"zh": certificate(0.8)})
    assert set(EmbeddedTagger(only).certificates) == {"zh"}


def test_the_model_carries_its_certificates() -> None:
    certificates = model().meta.certificates
    assert set(certificates) == {"zh", "en"}
    for certificate in certificates.values():
        assert (certificate.kind, certificate.date, certificate.model) == ("synthetic", DATE, model().meta.version)
        assert certificate.n > 300


def test_flagged_or_strange_messages_are_never_eligible() -> None:
    tags = Tags(intent="claim_status", confidence=0.99, department="claims")
    assert eligible(tags) == 0.99
    assert eligible(replace(tags, risk=(Risk.MEDIA,))) == 0.0
    assert eligible(replace(tags, in_scope=False)) == 0.0


def test_near_copies_are_told_from_others() -> None:
    texts = ["where is the money of my claim", "我想开一张发票", "cancel my car policy"]
    others = ["where is the money of my claim?", "how do I reset the password"]
    assert copies(texts, others, 0.6) == [True, False]
    assert copies(texts, [], 0.6) == []


def test_it_is_far_better_than_the_commonest_answer() -> None:
    report = evaluate(tagger(), dev(), taxonomy())
    for language in ("zh", "en"):
        result = report.languages[language]
        assert result.intent_accuracy is not None
        assert result.department_accuracy is not None
        assert result.intent_accuracy > 0.5
        assert result.department_accuracy >= result.intent_accuracy
    assert "optimistic" in report.to_table()
    assert '"intent_accuracy"' in report.to_json()


def test_training_data_must_fit_the_taxonomy() -> None:
    with pytest.raises(DataError, match="no_such_intent"):
        train([*small(300), Example(text="x", intent="no_such_intent")], taxonomy(), settings=QUICK)
    with pytest.raises(DataError, match="two intents"):
        train([Example(text="x", intent="chitchat")], taxonomy(), settings=QUICK)


def test_calibrating_on_the_development_set_is_a_setting() -> None:
    made = train(small(), taxonomy(), dev=dev(), settings=Settings(folds=2, calibrate="dev"))
    assert made.meta.calibrated_on == "dev"
    with pytest.raises(DataError, match="calibrate"):
        train(small(300), taxonomy(), settings=Settings(folds=2, calibrate="moon"))


def test_a_missing_or_broken_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no trained model"):
        Model.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(SettingsError, match=r"bad\.npz"):
        Model.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(SettingsError, match=r"other\.npz"):
        Model.load(tmp_path / "other.npz")
