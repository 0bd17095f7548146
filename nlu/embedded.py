"""The embedded tagger: TF-IDF rows times one matrix of weights, all heads in one pass, numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domain import OUT_OF_SCOPE, TRIAGE, Language, Risk, Sentiment, Tags, Taxonomy
from nlu import Text
from nlu.calibration import softmax
from nlu.certificate import Certificate
from nlu.entities import DEFAULT, Patterns, find
from nlu.features import normalise
from nlu.judge import Judge
from nlu.language import detect
from nlu.lexicon import named_risks
from nlu.weights import Model

#: an example of each kind that a library proves
_PERSONAL_NUMBERS = "+86 138 0013 8000, 11010519491231002X, 4111 1111 1111 1111"


class EmbeddedTagger:
    """`nlu.Tagger` in this process."""

    def __init__(self, model: Model, *, taxonomy: Taxonomy | None = None, patterns: Patterns = DEFAULT) -> None:
        meta = model.meta
        self._features, self._weights, self._bias = model.features, model.weights, model.bias
        self._meta = meta
        self._patterns = patterns
        self.version = meta.version
        self.certificates: Mapping[str, Certificate] = by_language(meta.certificates)
        self._judge = Judge(
            meta.intents,
            taxonomy.intents if taxonomy else meta.owners,
            beta=meta.intent_beta,
            knots=meta.knots,
            gate=meta.gate,
        )
        self._sentiments = [Sentiment(name) for name in meta.sentiments]
        self._risks = [Risk(name) for name in meta.risks]

    @classmethod
    def load(cls, path: Path, *, taxonomy: Taxonomy | None = None, patterns: Patterns = DEFAULT) -> EmbeddedTagger:
        """Raises `SettingsError`. Departments are the taxonomy's; without one, those of the model's training."""
        tagger = cls(Model.load(path), taxonomy=taxonomy, patterns=patterns)
        # What the first text would load (40 ms, 2 MB) is loaded now, and not while a customer waits.
        tagger.tag([Text(_PERSONAL_NUMBERS)])
        return tagger

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
        """Raw scores -> what `Tags` takes of them."""
        meta, width = self._meta, len(self._meta.intents)
        result = self._judge(scores[:, :width])
        rest = width + len(meta.sentiments)
        moods = softmax(scores[:, width:rest], meta.sentiment_beta).tolist()
        for found, raw, mood in zip(result, scores[:, rest:].tolist(), moods, strict=True):
            mood_chance = max(mood)
            found["sentiment"] = self._sentiments[mood.index(mood_chance)]
            found["sentiment_confidence"] = mood_chance
            risks = zip(raw, meta.risk_thresholds, self._risks, strict=True)
            found["risk"] = {risk for score, threshold, risk in risks if score >= threshold}
        return result

    def _tags(self, text: Text, analysed: str, found: dict[str, Any]) -> Tags:
        language = detect(analysed)
        entities = find(text.text, self._patterns, language)
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


def by_language(certificates: Mapping[str, Certificate]) -> dict[str, Certificate]:
    """Adds the languages without a sample of their own: each by the strictest of zh and en. `other` has none."""
    result = dict(certificates)
    base = [certificates.get(language) for language in (Language.ZH.value, Language.EN.value)]
    known = [certificate for certificate in base if certificate is not None]
    if len(known) == len(base):
        worse = max(known, key=lambda c: float("inf") if c.threshold is None else c.threshold)
        for language in (Language.ZH_HANT.value, Language.MIXED.value):
            result.setdefault(language, worse)
    return result
