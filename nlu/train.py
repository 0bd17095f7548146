"""Trains the embedded tagger from labelled examples. The only part that needs scikit-learn."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from domain import OUT_OF_SCOPE, TRIAGE, Language, Risk, Sentiment, Taxonomy
from nlu import Tagger, Text
from nlu.calibration import isotonic, softmax, steady_threshold, temperature
from nlu.certificate import Certificate, certify
from nlu.data import DataError, Example
from nlu.embedded import EmbeddedTagger
from nlu.evaluate import eligible
from nlu.features import Features, fit, normalise
from nlu.frozen import confirmed
from nlu.weights import Meta, Model

Matrix = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]

_HERE = Path(__file__).parent
_NEVER = -20.0  # the bias of a class without examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What training may be told. The defaults were measured."""

    seed: int = 7
    folds: int = 5
    intent_c: float = 20.0
    sentiment_c: float = 10.0
    risk_c: float = 30.0
    min_df: int = 2
    #: a missed risk weighs this many times a false one (F-beta, van Rijsbergen 1979), by flag
    risk_beta: Mapping[str, float] = field(default_factory=lambda: {"self_harm": 3.0})
    risk_beta_else: float = 2.5
    #: share of rightly known messages that the gate may hold back
    gate_quantile: float = 0.05
    max_misroute: float = 0.05
    delta: float = 0.10
    #: what temperature, confidence, gate and risk thresholds are fitted on: `folds` (out of fold) or `dev`
    calibrate: str = "folds"
    #: cosine from which a text is a copy of another
    alike: float = 0.6


DEFAULTS = Settings()


@dataclass(frozen=True, slots=True)
class _Classes:
    """The columns of the weights, and each example's place in them."""

    intents: tuple[str, ...]
    intent: Labels
    sentiments: tuple[str, ...]
    sentiment: Labels  # -1: not labelled
    risks: tuple[str, ...]
    risk: npt.NDArray[np.bool_]
    #: whoever labelled it was asked about risk flags
    risk_known: npt.NDArray[np.bool_]

    @property
    def width(self) -> int:
        return len(self.intents) + len(self.sentiments) + len(self.risks)


def train(
    examples: Sequence[Example],
    taxonomy: Taxonomy,
    *,
    dev: Sequence[Example] = (),
    held_out: Sequence[Example] = (),
    people: Sequence[Example] = (),
    date: str = "",
    settings: Settings = DEFAULTS,
) -> Model:
    """A model, with a certificate for each language of `held_out` (where there is none, of `dev`).

    `people`: held-out labels of people; where a language has enough of them, their certificate replaces that one.
    Same input, same model. Raises `DataError`.
    """
    if settings.calibrate not in {"folds", "dev"}:
        raise DataError(f"calibrate: folds or dev, not {settings.calibrate}")
    if settings.calibrate == "dev" and not dev:
        raise DataError("calibrate: there is no development data")
    classes = _classes(examples, taxonomy)
    texts = [normalise(example.text) for example in examples]
    folds = settings.folds if settings.calibrate == "folds" else 0
    with tqdm(total=(folds + 1) * classes.width, desc="train", unit="class", disable=None, leave=False) as bar:
        if folds:
            scores = _out_of_fold(texts, examples, classes, settings, bar)
        features = fit(texts, min_df=settings.min_df)
        weights, bias = _heads(rows_of(features, texts), classes, np.arange(len(texts)), settings, bar)
    sample = classes
    if settings.calibrate == "dev":
        sample = _classes(dev, taxonomy, classes.intents)
        scores = rows_of(features, [normalise(example.text) for example in dev]) @ weights + bias
    owners = {intent: taxonomy.owner(intent) for intent in classes.intents}
    meta = Meta(
        version=_version(examples, [*dev, *held_out, *people], taxonomy, settings),
        intents=classes.intents,
        sentiments=classes.sentiments,
        risks=classes.risks,
        owners=owners,
        trained_on=dict(sorted(Counter(example.language for example in examples).items())),
        calibrated_on=settings.calibrate,
        **_calibrate(scores, sample, owners, settings),
    )
    padded = np.vstack([weights, np.zeros((1, classes.width))])
    model = Model(features, np.ascontiguousarray(padded, dtype=np.float32), bias.astype(np.float32), meta)
    sample_of = held_out or dev
    known = copies(texts, [normalise(example.text) for example in sample_of], settings.alike)
    fresh = [example for example, copy in zip(sample_of, known, strict=True) if not copy]
    return model.with_certificates(
        certificates(model, fresh, taxonomy, date=date, settings=settings)
        | confirmed(
            EmbeddedTagger(model, taxonomy=taxonomy),
            people,
            taxonomy,
            max_misroute=settings.max_misroute,
            delta=settings.delta,
            date=date,
        )
    )


def certificates(
    model: Model, dev: Sequence[Example], taxonomy: Taxonomy, *, date: str, settings: Settings = DEFAULTS
) -> dict[str, Certificate]:
    """`certificates_of` the model's own tagger."""
    return certificates_of(EmbeddedTagger(model, taxonomy=taxonomy), dev, taxonomy, date=date, settings=settings)


def certificates_of(
    tagger: Tagger, dev: Sequence[Example], taxonomy: Taxonomy, *, date: str, settings: Settings = DEFAULTS
) -> dict[str, Certificate]:
    """By language. Out-of-scope examples stay in the sample: each that would be routed is an error."""
    tags = tagger.tag([Text(example.text, channel=example.channel) for example in dev])
    result: dict[str, Certificate] = {}
    for language in sorted({example.language for example in dev} & {Language.ZH.value, Language.EN.value}):
        rows = [(t, e) for t, e in zip(tags, dev, strict=True) if e.language == language]
        result[language] = certify(
            [eligible(t) for t, _ in rows],
            [t.department == taxonomy.owner(e.intent) for t, e in rows],
            max_misroute=settings.max_misroute,
            delta=settings.delta,
            date=date,
            model=tagger.version,
        )
    return result


def _classes(examples: Sequence[Example], taxonomy: Taxonomy, intents: tuple[str, ...] = ()) -> _Classes:
    names = set(intents) | {example.intent for example in examples}
    unknown = sorted(names - taxonomy.intents.keys() - {OUT_OF_SCOPE})
    if unknown:
        raise DataError(f"training data: intents that the taxonomy does not have: {', '.join(unknown)}")
    if intents and (missing := sorted(names - set(intents))):
        raise DataError(f"development data: intents without training data: {', '.join(missing)}")
    intents = tuple(name for name in (*taxonomy.intents, OUT_OF_SCOPE) if name in names)
    if not examples or len(intents) < 2:
        raise DataError("training data: at least two intents are needed")
    sentiments, risks = tuple(s.value for s in Sentiment), tuple(r.value for r in Risk)
    return _Classes(
        intents,
        np.array([intents.index(example.intent) for example in examples]),
        sentiments,
        np.array([-1 if e.sentiment is None else sentiments.index(e.sentiment) for e in examples]),
        risks,
        np.array([[Risk(name) in example.risk for name in risks] for example in examples]),
        np.array([example.risk_known for example in examples]),
    )


def rows_of(features: Features, texts: Sequence[str]) -> sparse.csr_matrix:
    """The very rows that the tagger will see."""
    rows = [features.row(text) for text in texts]
    columns = np.concatenate([ids for ids, _ in rows])
    values = np.concatenate([weights for _, weights in rows]).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in rows])])
    matrix = sparse.csr_matrix((values, columns, starts), shape=(len(texts), features.unknown + 1))
    return matrix[:, : features.unknown]


def _heads(
    matrix: sparse.csr_matrix, classes: _Classes, rows: Labels, settings: Settings, bar: tqdm[Any]
) -> tuple[Matrix, Matrix]:
    """One binary logistic regression a class, side by side: weights (grams, classes) and bias (classes)."""
    weights = np.zeros((matrix.shape[1], classes.width))
    bias = np.full(classes.width, _NEVER)
    column = 0

    def add(targets: npt.NDArray[np.bool_], where: npt.NDArray[np.bool_], c: float, *, balanced: bool) -> None:
        nonlocal column
        if targets[where].any() and not targets[where].all():
            model = LogisticRegression(
                C=c,
                solver="liblinear",
                dual=True,
                max_iter=1000,
                tol=1e-3,
                random_state=settings.seed,
                class_weight="balanced" if balanced else None,
            )
            model.fit(matrix[where], targets[where])
            weights[:, column] = model.coef_[0]
            bias[column] = model.intercept_[0]
        column += 1
        bar.update()

    everywhere = np.ones(len(rows), dtype=np.bool_)
    for index in range(len(classes.intents)):
        add(classes.intent[rows] == index, everywhere, settings.intent_c, balanced=False)
    labelled = classes.sentiment[rows] >= 0
    for index in range(len(classes.sentiments)):
        add(classes.sentiment[rows] == index, labelled, settings.sentiment_c, balanced=True)
    for index in range(len(classes.risks)):
        add(classes.risk[rows, index], classes.risk_known[rows], settings.risk_c, balanced=True)
    return weights, bias


def _out_of_fold(
    texts: Sequence[str], examples: Sequence[Example], classes: _Classes, settings: Settings, bar: tqdm[Any]
) -> Matrix:
    """Each example's scores from a model that has seen neither it nor its near-copies."""
    strata = _strata(examples, settings.folds)
    folds = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    scores = np.zeros((len(texts), classes.width))
    for seen, unseen in folds.split(texts, strata, _groups(texts, settings.alike)):
        features = fit([texts[i] for i in seen], min_df=settings.min_df)
        weights, bias = _heads(rows_of(features, [texts[i] for i in seen]), classes, seen, settings, bar)
        scores[unseen] = rows_of(features, [texts[i] for i in unseen]) @ weights + bias
    return scores


def _strata(examples: Sequence[Example], least: int) -> list[str]:
    """Intent and language, so that each fold has its share of both; a language with too few goes with the commonest."""
    many = Counter((example.intent, example.language) for example in examples)
    commonest = {intent: language for (intent, language), _n in reversed(many.most_common())}
    return [
        f"{each.intent}/{each.language if many[each.intent, each.language] >= least else commonest[each.intent]}"
        for each in examples
    ]


def _groups(texts: Sequence[str], alike: float) -> Labels:
    """The same number for texts that nearly repeat each other (cosine of their rows)."""
    rows = _directions(texts)
    _, groups = sparse.csgraph.connected_components((rows @ rows.T) > alike, directed=False)
    return np.asarray(groups, dtype=np.intp)


def copies(texts: Sequence[str], others: Sequence[str], alike: float) -> list[bool]:
    """Which of the others nearly repeat one of the texts. A held-out example that does proves nothing."""
    if not others:
        return []
    rows = _directions([*texts, *others])
    nearest = (rows[len(texts) :] @ rows[: len(texts)].T).max(axis=1)
    found: list[bool] = (nearest.toarray().ravel() > alike).tolist()
    return found


def _directions(texts: Sequence[str]) -> sparse.csr_matrix:
    matrix = rows_of(fit(texts, min_df=2), texts)
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sparse.diags(1.0 / np.maximum(lengths, 1e-9)) @ matrix).tocsr()


def _calibrate(scores: Matrix, classes: _Classes, owners: dict[str, str], settings: Settings) -> dict[str, Any]:
    width, moods = len(classes.intents), len(classes.sentiments)
    intents, sentiments, risks = np.split(scores, [width, width + moods], axis=1)
    intent_beta = temperature(intents, classes.intent)
    probabilities = softmax(intents, intent_beta)
    best = probabilities.argmax(axis=1)
    departments = np.array([owners[intent] for intent in classes.intents])
    same = (departments[:, None] == departments[None, :]).astype(np.float64)
    in_scope = departments != TRIAGE
    known = (best == classes.intent) & in_scope[best]
    labelled = classes.sentiment >= 0
    return {
        "intent_beta": intent_beta,
        "sentiment_beta": temperature(sentiments[labelled], classes.sentiment[labelled]) if labelled.any() else 1.0,
        "knots": isotonic((probabilities * same[best]).sum(axis=1), departments[best] == departments[classes.intent]),
        "gate": float(np.quantile(intents[:, in_scope].max(axis=1)[known], settings.gate_quantile)),
        "risk_thresholds": tuple(
            steady_threshold(
                risks[classes.risk_known, i],
                classes.risk[classes.risk_known, i],
                settings.risk_beta.get(flag, settings.risk_beta_else),
                seed=settings.seed,
            )
            for i, flag in enumerate(classes.risks)
        ),
    }


def _version(examples: Sequence[Example], dev: Sequence[Example], taxonomy: Taxonomy, settings: Settings) -> str:
    """Short name of what the model was made of: data, code and settings."""
    digest = hashlib.sha256()
    for example in (*examples, None, *dev):
        # A set has no order of its own.
        digest.update(repr(example and _in_order(example)).encode())
    for path in sorted(_HERE.glob("*.py")):
        digest.update(path.read_bytes())
    digest.update(json.dumps([asdict(settings), dict(taxonomy.intents)], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def _in_order(example: Example) -> tuple[object, ...]:
    return replace(example, risk=frozenset(), decoy=frozenset()), sorted(example.risk), sorted(example.decoy)
