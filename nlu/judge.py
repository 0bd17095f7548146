"""From the raw scores of the intents to a department and an honest confidence. Both stages end here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from domain import OUT_OF_SCOPE, TRIAGE, Guess
from nlu.calibration import Knots, softmax
from nlu.features import Floats

_ALTERNATIVES = 3


class Judge:
    """What was calibrated for one set of scores, and who owns its intents."""

    def __init__(
        self, intents: Sequence[str], owners: Mapping[str, str], *, beta: float, knots: Knots, gate: float
    ) -> None:
        self._intents = intents
        self._beta, self._knots, self._gate = beta, knots, gate
        self._departments = [owners.get(intent, TRIAGE) for intent in intents]
        #: the intents of the same department, by intent
        self._colleagues = [
            [i for i, other in enumerate(self._departments) if other == department] for department in self._departments
        ]
        self._in_taxonomy = [i for i, intent in enumerate(intents) if intent != OUT_OF_SCOPE]

    def __call__(self, scores: Floats) -> list[dict[str, Any]]:
        """Raw scores (texts, intents) -> the fields of `Tags` that hang on the intent.

        All texts at once where a row is long; in plain Python where it is short, since each call of numpy costs a
        microsecond.
        """
        probabilities = softmax(scores, self._beta)
        ranks = (-probabilities).argsort(axis=1, kind="stable")[:, : _ALTERNATIVES + 1].tolist()
        return [
            {
                "intent": self._intents[best],
                "department": self._departments[best],
                "confidence": self._confidence(sum([chances[i] for i in self._colleagues[best]])),
                "alternatives": tuple([Guess(self._intents[i], chances[i]) for i in others]),
                "in_scope": best in self._in_taxonomy and max([raw[i] for i in self._in_taxonomy]) >= self._gate,
            }
            for raw, chances, (best, *others) in zip(scores.tolist(), probabilities.tolist(), ranks, strict=True)
        ]

    def _confidence(self, probability: float) -> float:
        """Along the calibrated line."""
        xs, ys = self._knots
        right = min(max(bisect_right(xs, probability), 1), len(xs) - 1)
        step = xs[right] - xs[right - 1]
        part = (probability - xs[right - 1]) / step if step else 1.0
        return min(max(ys[right - 1] + part * (ys[right] - ys[right - 1]), 0.0), 1.0)
