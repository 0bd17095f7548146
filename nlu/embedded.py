"""The embedded tagger: TF-IDF rows times one matrix of weights, all heads in one pass, numpy alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domain import OUT_OF_SCOPE, TRIAGE, Guess, Language, Risk, Sentiment, Tags, Taxonomy
from nlu import Text
from nlu.calibration import softmax
from nlu.certificate import Certificate
from nlu.entities import DEFAULT, Patterns, find
from nlu.features import normalise
from nlu.language import detect
from nlu.lexicon import named_risks
from nlu.weights import Model

_ALTERNATIVES = 3


class EmbeddedTagger:
    """`nlu.Tagger` in this process."""

    def __init__(self, model: Model, *, taxonomy: Taxonomy | None = None, patterns: Patterns = DEFAULT) -> None:
        meta = model.meta
        self._features, self._weights, self._bias = model.features, model.weights, model.bias
        self._meta = meta
        self._patterns = patterns
        self.version = meta.version
        self.certificates: Mapping[str, Certificate] = _by_language(meta.certificates)
        owners = taxonomy.intents if taxonomy else meta.owners
        self._departments = [owners.get(intent, TRIAGE) for intent in meta.intents]
        #: the intents of the same department, by intent
        self._colleagues = [
            [i for i, other in enumerate(self._departments) if other == department] for department in self._departments
        ]
        self._in_taxonomy = [i for i, intent in enumerate(meta.intents) if intent != OUT_OF_SCOPE]
        self._sentiments = [Sentiment(name) for name in meta.sentiments]
        self._risks = [Risk(name) for name in meta.risks]

    @classmethod
    def load(cls, path: Path, *, taxonomy: Taxonomy | None = None, patterns: Patterns = DEFAULT) -> EmbeddedTagger:
        """Raises `SettingsError`. Departments are the taxonomy's; without one, those of the model's training."""
        return cls(Model.load(path), taxonomy=taxonomy, patterns=patterns)

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        """One `Tags` for each text, in order."""
        if not texts:
            return []
        analysed = [normalise(text.text, text.subject) for text in texts]
        found = self._decide(np.stack([self._score(text) for text in analysed]))
        return list(starmap(self._tags, zip(texts, analysed, found, strict=True)))

    def _score(self, text: str) -> npt.NDArray[np.float32]:
        ids, values = self._features.row(text)
        scores: npt.NDArray[np.float32] = values @ self._weights.take(ids, axis=0)
        scores += self._bias
        return scores

    def _decide(self, scores: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """Raw scores -> what `Tags` takes of them.

        All texts at once where a row is long; in plain Python where it is short, since each call of numpy costs a
        microsecond.
        """
        meta, width = self._meta, len(self._meta.intents)
        probabilities = softmax(scores[:, :width], meta.intent_beta)
        ranks = np.argsort(-probabilities, axis=1, kind="stable")[:, : _ALTERNATIVES + 1].tolist()
        moods = softmax(scores[:, width : width + len(meta.sentiments)], meta.sentiment_beta).tolist()
        result: list[dict[str, Any]] = []
        for raw, chances, (best, *others), mood in zip(
            scores.tolist(), probabilities.tolist(), ranks, moods, strict=True
        ):
            risks = zip(raw[width + len(mood) :], meta.risk_thresholds, self._risks, strict=True)
            mood_chance = max(mood)
            result.append(
                {
                    "intent": meta.intents[best],
                    "department": self._departments[best],
                    "confidence": self._confidence(sum([chances[i] for i in self._colleagues[best]])),
                    "alternatives": tuple([Guess(meta.intents[i], chances[i]) for i in others]),
                    "sentiment": self._sentiments[mood.index(mood_chance)],
                    "sentiment_confidence": mood_chance,
                    "in_scope": best in self._in_taxonomy and max([raw[i] for i in self._in_taxonomy]) >= meta.gate,
                    "risk": {risk for score, threshold, risk in risks if score >= threshold},
                }
            )
        return result

    def _confidence(self, probability: float) -> float:
        """Along the calibrated line."""
        xs, ys = self._meta.knots
        right = min(max(bisect_right(xs, probability), 1), len(xs) - 1)
        step = xs[right] - xs[right - 1]
        part = (probability - xs[right - 1]) / step if step else 1.0
        return min(max(ys[right - 1] + part * (ys[right] - ys[right - 1]), 0.0), 1.0)

    def _tags(self, text: Text, analysed: str, found: dict[str, Any]) -> Tags:
        entities = find(text.text, self._patterns)
        language = detect(analysed)
        if not analysed or analysed.isspace():
            nothing: dict[str, Any] = {
                "intent": OUT_OF_SCOPE,
                "confidence": 0.0,
                "department": TRIAGE,
                "in_scope": False,
            }
            return Tags(**nothing, language=language, model=self.version)
        flags: set[Risk] = found.pop("risk") | named_risks(analysed)
        risk = tuple([flag for flag in Risk if flag in flags])
        return Tags(**found, risk=risk, entities=entities, language=language, model=self.version)


def _by_language(certificates: Mapping[str, Certificate]) -> dict[str, Certificate]:
    """Adds the languages without a sample of their own: each by the strictest of zh and en. `other` has none."""
    result = dict(certificates)
    base = [certificates.get(language) for language in (Language.ZH.value, Language.EN.value)]
    known = [certificate for certificate in base if certificate is not None]
    if len(known) == len(base):
        worse = max(known, key=lambda c: float("inf") if c.threshold is None else c.threshold)
        for language in (Language.ZH_HANT.value, Language.MIXED.value):
            result.setdefault(language, worse)
    return result
