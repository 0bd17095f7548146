"""Trains the heads of the second stage. Needs scikit-learn, as `nlu.train` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.svm import LinearSVC
from tqdm import tqdm

from domain import TRIAGE, Taxonomy
from nlu import Text
from nlu.calibration import isotonic, softmax, temperature
from nlu.data import DataError, Example
from nlu.embedded import EmbeddedTagger
from nlu.encoder import BATCH, Encoder, read_by_encoder
from nlu.features import Features, Floats, normalise
from nlu.frozen import confirmed
from nlu.language import detect
from nlu.second_stage import UNSURE, Heads, HeadsMeta, SecondStageTagger, is_unsure
from nlu.train import DEFAULTS, Settings, certificates_of, copies, rows_of
from nlu.weights import Model

# Chosen on the development set, see docs/nlu-encoder.md.
_SCALE = 0.7  # weight of an embedding (length 1) beside a TF-IDF row (length 1 to 1.4)
_C = 0.3
_CHUNK = 8 * BATCH
_FEWEST = 40  # messages: two blocks of the calibrated line


def train_heads(
    model: Model,
    encoder: Encoder,
    examples: Sequence[Example],
    taxonomy: Taxonomy,
    *,
    dev: Sequence[Example],
    held_out: Sequence[Example],
    people: Sequence[Example] = (),
    date: str = "",
    settings: Settings = DEFAULTS,
) -> Heads:
    """Heads for the languages that the encoder knows, with certificates of both stages from `held_out` and from
    `people`'s held-out labels, as `nlu.train.train` makes those of the first.

    Temperature and gate are fitted on `dev`; the confidence on those of `dev` that the first stage is unsure of: they
    are harder than the rest, and a line fitted on all would promise too much. Raises `DataError`.
    """
    first = EmbeddedTagger(model, taxonomy=taxonomy)
    known = _covered(examples, encoder)
    intents = tuple(name for name in model.meta.intents if any(each.intent == name for each in known))
    sample = [each for each in _covered(dev, encoder) if each.intent in intents]
    if len(intents) < 3 or not sample:
        languages = ", ".join(sorted(encoder.languages))
        raise DataError(f"training data: too little of it is in the languages of nlu.encoder ({languages})")
    svc = LinearSVC(C=_C, random_state=settings.seed)
    svc.fit(_joined(model.features, encoder, known), [intents.index(each.intent) for each in known])
    bounds = _bounds(first, encoder)
    unsure = [is_unsure(tags, bounds) for tags in first.tag([Text(e.text, channel=e.channel) for e in sample])]
    grams = model.features.unknown
    heads = Heads(
        np.vstack([svc.coef_.T[:grams], np.zeros((1, len(intents)))]).astype(np.float32),
        (_SCALE * svc.coef_.T[grams:]).astype(np.float32),
        svc.intercept_.astype(np.float32),
        HeadsMeta(
            first=first.version,
            encoder=encoder.name,
            digest=encoder.digest,
            bounds=bounds,
            intents=intents,
            owners={intent: taxonomy.owner(intent) for intent in intents},
            **_calibrated(
                svc.decision_function(_joined(model.features, encoder, sample)),
                np.array([intents.index(each.intent) for each in sample]),
                np.array([taxonomy.owner(intent) for intent in intents]),
                np.array(unsure),
                settings,
            ),
        ),
    )
    tagger = SecondStageTagger(first, model.features, heads, encoder, taxonomy=taxonomy)
    texts = [normalise(each.text) for each in examples]
    copied = copies(texts, [normalise(each.text) for each in held_out], settings.alike)
    fresh = [each for each, copy in zip(held_out, copied, strict=True) if not copy]
    found = certificates_of(tagger, fresh, taxonomy, date=date, settings=settings) | confirmed(
        tagger, people, taxonomy, max_misroute=settings.max_misroute, delta=settings.delta, date=date
    )
    kept = {language: found[language] for language in found.keys() & bounds.keys()}
    return replace(heads, meta=replace(heads.meta, certificates=kept))


def _covered(examples: Sequence[Example], encoder: Encoder) -> list[Example]:
    """Those in a language of the encoder; people's labels do not say theirs."""
    return [each for each in examples if (each.language or detect(normalise(each.text))) in encoder.languages]


def _bounds(first: EmbeddedTagger, encoder: Encoder) -> dict[str, float]:
    """What the first stage may route alone stays with it."""
    thresholds = {name: certificate.threshold for name, certificate in first.certificates.items()}
    found = {language.value: thresholds.get(language) for language in sorted(encoder.languages)}
    return {name: UNSURE if threshold is None else threshold for name, threshold in found.items()}


def _joined(features: Features, encoder: Encoder, examples: Sequence[Example]) -> sparse.csr_matrix:
    """(examples, grams + dimension)."""
    texts = [read_by_encoder(each.text) for each in examples]
    parts: list[Floats] = []
    with tqdm(total=len(texts), desc="embed", unit="text", disable=None, leave=False) as bar:
        for start in range(0, len(texts), _CHUNK):
            parts.append(encoder.embed(texts[start : start + _CHUNK]))
            bar.update(len(parts[-1]))
    rows = rows_of(features, [normalise(each.text) for each in examples])
    return sparse.hstack([rows, _SCALE * np.concatenate(parts)], format="csr")


def _calibrated(
    scores: npt.NDArray[np.float64],
    right: npt.NDArray[np.intp],
    departments: npt.NDArray[np.str_],
    unsure: npt.NDArray[np.bool_],
    settings: Settings,
) -> Mapping[str, Any]:
    """Scores (texts, intents) and the right intents -> beta, knots and gate."""
    beta = temperature(scores, right)
    probabilities = softmax(scores, beta)
    best = probabilities.argmax(axis=1)
    chances = np.where(departments[best][:, None] == departments[None, :], probabilities, 0.0).sum(axis=1)
    correct = departments[best] == departments[right]
    in_scope = departments != TRIAGE
    known = (best == right) & in_scope[best]
    asked = unsure if unsure.sum() >= _FEWEST else np.ones_like(unsure)
    return {
        "beta": beta,
        "knots": isotonic(chances[asked], correct[asked]),
        "gate": float(np.quantile(scores[:, in_scope].max(axis=1)[known], settings.gate_quantile)),
    }
