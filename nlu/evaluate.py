"""How good a tagger is on labelled examples that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from domain import OUT_OF_SCOPE, Risk, Sentiment, Tags, Taxonomy
from nlu import Tagger, Text
from nlu.calibration import expected_calibration_error
from nlu.data import Example

OPTIMISTIC = (
    "The certificates were made from nlu/data/test. Where this is that set, coverage and accuracy at the threshold "
    "are optimistic; only people's labels of live messages say what they are worth."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskReport:
    examples: int
    flagged: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageReport:
    """Shares between 0 and 1; None where there is nothing to count."""

    n: int
    #: accuracy and macro-F1 of the intent, out of scope as one of them
    intent_accuracy: float | None
    intent_macro_f1: float | None
    department_accuracy: float | None
    sentiment_accuracy: float | None
    sentiment_macro_f1: float | None
    risk: Mapping[str, RiskReport]
    #: messages with any flag
    flagged: float | None
    out_of_scope: int
    #: of the out-of-scope examples, how many are known as such (by their class or by the gate)
    out_of_scope_recall: float | None
    #: of the others, how many are held back with them
    in_scope_held_back: float | None
    #: distance of the confidence from the share of right departments
    ece: float | None
    threshold: float | None
    #: share that would be routed without a person, and how much of it rightly
    coverage: float | None
    accuracy_at_threshold: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    model: str
    languages: Mapping[str, LanguageReport]
    note: str = OPTIMISTIC

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def to_table(self) -> str:
        """One column a language."""
        names = list(self.languages)
        lines = [f"model {self.model}", f"{'':30}" + "".join(f"{name:>12}" for name in names)]
        for title, values in self._rows():
            lines.append(f"{title:30}" + "".join(f"{value:>12}" for value in values))
        return "\n".join([*lines, "", self.note])

    def _rows(self) -> list[tuple[str, list[str]]]:
        reports = list(self.languages.values())
        plain = [
            ("examples", [str(r.n) for r in reports]),
            ("intent accuracy", [_share(r.intent_accuracy) for r in reports]),
            ("intent macro-F1", [_share(r.intent_macro_f1) for r in reports]),
            ("department accuracy", [_share(r.department_accuracy) for r in reports]),
            ("sentiment accuracy", [_share(r.sentiment_accuracy) for r in reports]),
            ("sentiment macro-F1", [_share(r.sentiment_macro_f1) for r in reports]),
            ("out of scope: examples", [str(r.out_of_scope) for r in reports]),
            ("out of scope: recall", [_share(r.out_of_scope_recall) for r in reports]),
            ("in scope: held back", [_share(r.in_scope_held_back) for r in reports]),
            ("calibration error (ECE)", [_share(r.ece) for r in reports]),
            ("threshold", [_share(r.threshold) for r in reports]),
            ("coverage at the threshold", [_share(r.coverage) for r in reports]),
            ("accuracy at the threshold", [_share(r.accuracy_at_threshold) for r in reports]),
            ("any risk flag", [_share(r.flagged) for r in reports]),
        ]
        risks = [
            (f"risk {risk.value}: recall/precision", [f"{_share(r.recall)}/{_share(r.precision)}" for r in column])
            for risk in Risk
            for column in [[report.risk[risk.value] for report in reports]]
        ]
        return plain + risks


def evaluate(tagger: Tagger, examples: Sequence[Example], taxonomy: Taxonomy) -> Report:
    """By language of the examples, and over all of them."""
    tags = tagger.tag([Text(example.text, channel=example.channel) for example in examples])
    pairs = list(zip(tags, examples, strict=True))
    groups: dict[str, list[tuple[Tags, Example]]] = {}
    for pair in pairs:
        groups.setdefault(pair[1].language or "?", []).append(pair)
    reports = {name: _language(groups[name], taxonomy, _threshold(tagger, name)) for name in sorted(groups)}
    # The languages have thresholds of their own, so there is none over all.
    return Report(model=tagger.version, languages={**reports, "all": _language(pairs, taxonomy, None)})


def _threshold(tagger: Tagger, language: str) -> float | None:
    certificate = tagger.certificates.get(language)
    return certificate.threshold if certificate else None


def eligible(tags: Tags) -> float:
    """The confidence on which a message may be routed without a person; 0 where it never may."""
    return tags.confidence if tags.in_scope and not tags.risk else 0.0


def _language(pairs: Sequence[tuple[Tags, Example]], taxonomy: Taxonomy, threshold: float | None) -> LanguageReport:
    right = np.array([tags.department == taxonomy.owner(example.intent) for tags, example in pairs], dtype=np.bool_)
    confidences = np.array([tags.confidence for tags, _ in pairs])
    moods = [(tags.sentiment, example.sentiment) for tags, example in pairs if example.sentiment is not None]
    intents = [(tags.intent, example.intent) for tags, example in pairs]
    strange = [not tags.in_scope for tags, example in pairs if example.intent == OUT_OF_SCOPE]
    usual = [not tags.in_scope for tags, example in pairs if example.intent != OUT_OF_SCOPE]
    sure = [threshold is not None and eligible(tags) >= threshold for tags, _ in pairs]
    accepted = right[np.array(sure, dtype=np.bool_)].tolist()
    return LanguageReport(
        n=len(pairs),
        intent_accuracy=_mean([a == b for a, b in intents]),
        intent_macro_f1=_macro_f1(intents, sorted({b for _, b in intents})),
        department_accuracy=_mean(right.tolist()),
        sentiment_accuracy=_mean([a == b for a, b in moods]),
        sentiment_macro_f1=_macro_f1(moods, list(Sentiment)),
        risk={risk.value: _risk(pairs, risk) for risk in Risk},
        flagged=_mean([bool(tags.risk) for tags, _ in pairs]),
        out_of_scope=len(strange),
        out_of_scope_recall=_mean(strange),
        in_scope_held_back=_mean(usual),
        ece=expected_calibration_error(confidences, right) if pairs else None,
        threshold=threshold,
        coverage=None if threshold is None else len(accepted) / len(pairs),
        accuracy_at_threshold=_mean(accepted),
    )


def _risk(pairs: Sequence[tuple[Tags, Example]], risk: Risk) -> RiskReport:
    said = [risk in tags.risk for tags, _ in pairs]
    true = [risk in example.risk for _, example in pairs]
    both = sum(a and b for a, b in zip(said, true, strict=True))
    return RiskReport(
        examples=sum(true),
        flagged=sum(said),
        recall=both / sum(true) if any(true) else None,
        precision=both / sum(said) if any(said) else None,
    )


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _macro_f1(pairs: Sequence[tuple[object, object]], classes: Sequence[object]) -> float | None:
    if not pairs:
        return None
    scores = []
    for name in classes:
        hit = sum(a == b == name for a, b in pairs)
        named = sum(a == name for a, _ in pairs) + sum(b == name for _, b in pairs)
        scores.append(2 * hit / named if named else 0.0)
    return sum(scores) / len(scores)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
