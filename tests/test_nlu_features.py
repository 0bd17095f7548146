"""The rows of features are scikit-learn's, and no text can break them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from domain import Language
from nlu import features as f
from nlu.language import detect

ENGLISH = [
    "my claim is late, where is my money?",
    "I can't log in. The app says: password wrong, password wrong",
    "a b cd",
    "cover for a 1999 car & 2 kids",
]
CHINESE = ["我的理赔怎么还没到账", "退保,退保!要退保", "发票", "保单号查不到,保单丢了"]


def dense(features: f.Features, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    matrix = np.zeros((len(texts), features.unknown + 1))
    for index, text in enumerate(texts):
        ids, values = features.row(f.normalise(text))
        matrix[index, ids] = values
    return matrix[:, : features.unknown]


def test_latin_rows_equal_scikit_learn() -> None:
    prepared = [" ".join(f.shape(word) for word in f.words_of(f.normalise(text))) for text in ENGLISH]
    ours = f.fit([f.normalise(text) for text in ENGLISH])
    word = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    expected = np.hstack([word.fit_transform(prepared).toarray(), letters.fit_transform(prepared).toarray()])
    assert list(ours.vocabulary[0]) == word.get_feature_names_out().tolist()
    assert list(ours.vocabulary[1]) == letters.get_feature_names_out().tolist()
    np.testing.assert_allclose(dense(ours, ENGLISH), expected, atol=1e-6)


def test_han_rows_equal_scikit_learn() -> None:
    ours = f.fit([f.normalise(text) for text in CHINESE])
    # Characters and pairs within each run: their own n-grams over all of the text would pair across punctuation.
    theirs = TfidfVectorizer(
        analyzer=lambda text: [
            run[i : i + size]
            for run in re.findall("[一-鿿]+", text)
            for size in (1, 2)
            for i in range(len(run) - size + 1)
        ],
        sublinear_tf=True,
    )
    expected = theirs.fit_transform(CHINESE).toarray()
    assert list(ours.vocabulary[2]) == theirs.get_feature_names_out().tolist()
    np.testing.assert_allclose(dense(ours, CHINESE), expected, atol=1e-6)


def test_blocks_weigh_as_their_scripts_share_the_text() -> None:
    texts = [*ENGLISH, *CHINESE, "app打不开了怎么办"]
    features = f.fit([f.normalise(text) for text in texts])
    words, letters, _ = map(len, features.vocabulary)
    row = dense(features, texts)[-1]
    han = 7 / f.HAN_PER_WORD
    share = han / (han + 1)
    lengths = [float(block @ block) for block in np.split(row, [words, words + letters])]
    assert lengths == pytest.approx([1 - share, 1 - share, share], abs=1e-6)


def test_what_is_unknown_weighs_nothing_but_stays_harmless() -> None:
    features = f.fit(["claim"])
    ids, values = features.row("全新的字")
    assert values[ids == features.unknown].tolist() == [0.0]
    assert features.row("")[0].size == 0


def test_the_cache_of_words_stays_bounded_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f, "_CACHED_WORDS", 2)
    features = f.fit(ENGLISH)
    first = [features.row(f.normalise(text)) for text in ENGLISH]
    again = [features.row(f.normalise(text)) for text in ENGLISH]
    for (ids, values), (ids2, values2) in zip(first, again, strict=True):
        assert ids.tolist() == ids2.tolist()
        assert values.tolist() == values2.tolist()
    assert len(features._young) <= 2
    assert len(features._old) <= 2


def test_long_texts_are_read_at_both_ends() -> None:
    text = f.normalise("a" * 1600 + "MIDDLE" + "b" * 5000 + "the end", "SUBJECT")
    assert text.startswith("subject\n")
    assert text.endswith("the end")
    assert "middle" not in text
    assert len(text) < 2200


def test_normalising_folds_width_case_and_quotes() -> None:
    assert f.normalise("ABC,123 Don’t") == "abc,123 don't"


@given(st.text())
def test_ascii_words_are_the_words(text: str) -> None:
    plain = text.encode("ascii", "ignore").decode().lower()
    assert f._ASCII_WORD.findall(plain) == f.WORD.findall(plain)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("我的车被撞了,怎么报案", Language.ZH),
        ("請問我的理賠什麼時候會到帳", Language.ZH_HANT),
        ("APP打不开,一直闪退", Language.ZH),
        ("where is my money", Language.EN),
        ("claim status?", Language.EN),
        ("my name is 王伟 and I want to renew my car policy please", Language.EN),
        ("请帮我 cancel 这个 policy,我要 refund", Language.MIXED),
        ("¿Dónde está mi dinero? Quiero cancelar el seguro de mi coche", Language.OTHER),
        ("保険の請求はどうすればいいですか", Language.OTHER),
        ("보험금은 언제 받을 수 있나요", Language.OTHER),
        ("где мои деньги", Language.OTHER),
        ("12378 !!!", Language.OTHER),
        ("", Language.OTHER),
    ],
)
def test_language(text: str, language: Language) -> None:
    assert detect(f.normalise(text)) is language
