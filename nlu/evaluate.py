"""How good a tagger is on labelled examples that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from domain import OUT_OF_SCOPE, Risk, Sentiment, Tags, Taxonomy
from nlu import Tagger, Text
from nlu.calibration import expected_calibration_error
from nlu.data import Example

OPTIMISTIC = (
    "The certificates were made from nlu/data/test. Where this is that set, coverage and accuracy at the threshold "
    "are optimistic; only people's labels of live messages say what they are worth. Coverage at 95 and 98 % is by the "
    "best threshold in hindsight: more than that cannot be had, and a certificate promises less."
)
#: shares of right departments for which a report says how much could be routed without a person
AIMS = (0.95, 0.98)

#: what a report may be broken down by
BY = ("language", "channel", "department")
_BATCH = 256

Pair = tuple[Tags, Example]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskReport:
    examples: int
    flagged: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
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
    #: None where the languages of the group have several, or none
    threshold: float | None
    #: share that would be routed without a person, and how much of it rightly
    coverage: float | None
    accuracy_at_threshold: float | None
    #: `coverage_at` each of `AIMS`, by its percentage ("95")
    coverage_at: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    model: str
    languages: Mapping[str, GroupReport]
    channels: Mapping[str, GroupReport]
    #: that own the true intent
    departments: Mapping[str, GroupReport]
    note: str = OPTIMISTIC

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def to_table(self, by: str = "language") -> str:
        """One column a language, channel or department."""
        groups = {"language": self.languages, "channel": self.channels, "department": self.departments}[by]
        widths = [max(12, len(name) + 2) for name in groups]
        lines = [f"model {self.model}", f"{'':30}" + _row(groups, widths)]
        lines += [f"{title:30}" + _row(values, widths) for title, values in _rows(list(groups.values()))]
        return "\n".join([*lines, "", self.note])


def _rows(reports: Sequence[GroupReport]) -> list[tuple[str, list[str]]]:
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
        *((f"coverage at {aim} % right", [_share(r.coverage_at[aim]) for r in reports]) for aim in map(_percent, AIMS)),
        ("any risk flag", [_share(r.flagged) for r in reports]),
    ]
    risks = [
        (f"risk {risk.value}: recall/precision", [f"{_share(r.recall)}/{_share(r.precision)}" for r in column])
        for risk in Risk
        for column in [[report.risk[risk.value] for report in reports]]
    ]
    return plain + risks


def evaluate(tagger: Tagger, examples: Sequence[Example], taxonomy: Taxonomy) -> Report:
    """By language, by channel and by department of the examples, each with a column over all of them."""
    return report(tagger, list(zip(tagged(tagger, examples), examples, strict=True)), taxonomy)


def report(tagger: Tagger, pairs: Sequence[Pair], taxonomy: Taxonomy) -> Report:
    """`evaluate` of what is tagged already."""

    def by(names: Iterable[str]) -> dict[str, GroupReport]:
        groups: dict[str, list[Pair]] = {}
        for name, pair in zip(names, pairs, strict=True):
            groups.setdefault(name or "?", []).append(pair)
        return {name: _group(group, taxonomy, tagger) for name, group in [*sorted(groups.items()), ("all", pairs)]}

    return Report(
        # As the tags say it: what stood in for a server that was down is not that server's model.
        model=" and ".join(sorted({tags.model for tags, _ in pairs})) or tagger.version,
        languages=by(example.language for _, example in pairs),
        channels=by(example.channel for _, example in pairs),
        departments=by(taxonomy.owner(example.intent) for _, example in pairs),
    )


def tagged(tagger: Tagger, examples: Sequence[Example]) -> list[Tags]:
    """The tags of each example, with a progress bar on a terminal."""
    tags: list[Tags] = []
    with tqdm(total=len(examples), desc="tag", unit="msg", disable=None, leave=False) as bar:
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            tags += tagger.tag([Text(example.text, channel=example.channel) for example in batch])
            bar.update(len(batch))
    return tags


def threshold_of(tagger: Tagger, language: str) -> float | None:
    """From which confidence a message of a language is routed without a person; None: none is."""
    certificate = tagger.certificates.get(language)
    return certificate.threshold if certificate else None


def eligible(tags: Tags) -> float:
    """The confidence on which a message may be routed without a person; 0 where it never may."""
    return tags.confidence if tags.in_scope and not tags.risk else 0.0


def coverage(confidences: Floats, right: Bools) -> tuple[Floats, Floats]:
    """Share routed without a person, and how much of it rightly, as the threshold falls.

    A confidence of 0 is never routed so, whatever the threshold. Ties go together.
    """
    order = np.argsort(-confidences, kind="stable")
    ranked, hits = confidences[order], np.cumsum(right[order])
    taken = np.arange(1, len(ranked) + 1)
    ends = np.append(ranked[1:] != ranked[:-1], True) & (ranked > 0)
    return taken[ends] / len(ranked), hits[ends] / taken[ends]


def coverage_at(aim: float, confidences: Floats, right: Bools) -> float:
    """The largest share of messages that some threshold accepts and of which at least `aim` are right; else 0."""
    shares, accuracies = coverage(confidences, right)
    return float(shares[accuracies >= aim].max(initial=0.0))


def _group(pairs: Sequence[Pair], taxonomy: Taxonomy, tagger: Tagger) -> GroupReport:
    right = np.array([tags.department == taxonomy.owner(example.intent) for tags, example in pairs], dtype=np.bool_)
    confidences = np.array([tags.confidence for tags, _ in pairs])
    moods = [(tags.sentiment, example.sentiment) for tags, example in pairs if example.sentiment is not None]
    intents = [(tags.intent, example.intent) for tags, example in pairs]
    strange = [not tags.in_scope for tags, example in pairs if example.intent == OUT_OF_SCOPE]
    usual = [not tags.in_scope for tags, example in pairs if example.intent != OUT_OF_SCOPE]
    thresholds = [threshold_of(tagger, example.language) for _, example in pairs]
    sure = [
        threshold is not None and eligible(tags) >= threshold
        for threshold, (tags, _) in zip(thresholds, pairs, strict=True)
    ]
    accepted = right[np.array(sure, dtype=np.bool_)].tolist()
    sureness = np.array([eligible(tags) for tags, _ in pairs])
    return GroupReport(
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
        threshold=thresholds[0] if len(set(thresholds)) == 1 else None,
        coverage=len(accepted) / len(pairs) if any(each is not None for each in thresholds) else None,
        accuracy_at_threshold=_mean(accepted),
        coverage_at={_percent(aim): coverage_at(aim, sureness, right) if pairs else None for aim in AIMS},
    )


def _risk(pairs: Sequence[Pair], risk: Risk) -> RiskReport:
    pairs = [pair for pair in pairs if pair[1].risk_known]
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


def _row(values: Iterable[str], widths: Sequence[int]) -> str:
    return "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))


def _percent(aim: float) -> str:
    return f"{100 * aim:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
