"""What a report says of a tagger."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from domain import Risk, Tags
from nlu.data import Example
from nlu.evaluate import Pair, coverage, coverage_at, report
from tests.test_nlu_support import taxonomy
from tests.worlds import SayingTagger


def test_coverage_grows_as_the_threshold_falls_and_ends_with_what_may_be_routed() -> None:
    shares, accuracies = coverage(np.array([0.9, 0.0, 0.8, 0.8]), np.array([True, False, False, True]))
    assert shares.tolist() == [0.25, 0.75]
    assert accuracies.tolist() == [1.0, pytest.approx(2 / 3)]


def test_coverage_at_an_accuracy_is_the_largest_share_that_reaches_it() -> None:
    # 1 right, 1 wrong, 18 right: 95 % are right of all twenty, and of no fewer but the first.
    right = np.array([True, False, *[True] * 18])
    falling = np.linspace(0.9, 0.1, 20)
    assert coverage_at(0.95, falling, right) == 1.0
    assert coverage_at(0.98, falling, right) == 0.05
    assert coverage_at(0.95, falling, ~right) == 0.0
    assert coverage_at(0.95, np.zeros(20), right) == 0.0


def test_a_report_says_how_much_could_be_routed_at_95_and_98_percent_in_each_language() -> None:
    good = Tags(intent="claim_status", confidence=0.9, department="claims")
    sure, wrong = replace(good, confidence=0.99), replace(good, intent="praise", department="sales", confidence=0.2)

    def pairs(language: str, *tags: Tags) -> list[Pair]:
        return [(each, Example(text="x", intent="claim_status", language=language)) for each in tags]

    chinese = pairs("zh", *[sure] * 19, wrong, replace(sure, risk=(Risk.LEGAL,)), replace(sure, in_scope=False))
    english = pairs("en", sure, *[good] * 18, replace(wrong, confidence=0.9))
    found = report(SayingTagger(taxonomy()), chinese + english, taxonomy())
    # What bears a flag or is strange is never routed alone, however right: neither is it covered.
    assert found.languages["zh"].coverage_at == {"95": pytest.approx(20 / 22), "98": pytest.approx(19 / 22)}
    # Nineteen of one confidence stand or fall together.
    assert found.languages["en"].coverage_at == {"95": 1.0, "98": 0.05}
    assert json.loads(found.to_json())["languages"]["en"]["coverage_at"]["98"] == 0.05
    (row,) = [line for line in found.to_table().splitlines() if line.startswith("coverage at 98 % right")]
    assert row.split()[-3:-1] == ["0.050", "0.864"]
