"""Scores become honest numbers, and thresholds keep their word."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from nlu.calibration import (
    expected_calibration_error,
    isotonic,
    softmax,
    steady_threshold,
    temperature,
    threshold_for_f,
)
from nlu.certificate import Certificate, certify, upper_bound


@pytest.mark.parametrize(("errors", "n"), [(0, 45), (1, 90), (7, 143), (60, 500), (99, 100)])
@pytest.mark.parametrize("delta", [0.05, 0.10])
def test_bound_is_clopper_pearson(errors: int, n: int, delta: float) -> None:
    assert upper_bound(errors, n, delta) == pytest.approx(beta.ppf(1 - delta, errors + 1, n - errors), abs=1e-9)


def test_bound_where_all_is_wrong() -> None:
    assert upper_bound(5, 5, 0.1) == 1.0
    assert upper_bound(0, 0, 0.1) == 1.0


def test_certificates_break_their_word_in_one_of_ten_draws_at_most() -> None:
    """Draws from a world whose true error at each threshold is known: right with probability = confidence."""
    rng = np.random.default_rng(1)
    draws, broken, certified, a = 300, 0, 0, 10
    for _ in range(draws):
        confidence = rng.beta(a, 1, size=400)
        right = rng.random(400) < confidence
        certificate = certify(confidence.tolist(), right.tolist())
        if certificate.threshold is None:
            continue
        certified += 1
        # E[1 - c | c >= t] for c ~ Beta(a, 1), whose density is a c^(a-1): 5 % is reached within the range
        t = certificate.threshold
        true_error = 1 - a / (a + 1) * (1 - t ** (a + 1)) / (1 - t**a)
        broken += true_error > 0.05
    assert certified > draws / 2
    # 10 % and three standard errors
    assert broken / draws <= 0.10 + 3 * (0.1 * 0.9 / draws) ** 0.5


def test_the_threshold_accepts_what_it_says() -> None:
    confidences = [i / 1000 for i in range(1, 1001)]
    correct = [confidence > 0.4 for confidence in confidences]
    certificate = certify(confidences, correct, date="2026-11-22", model="m")
    assert certificate.threshold is not None
    assert certificate.accepted == sum(c >= certificate.threshold for c in confidences)
    assert 0.4 > certificate.threshold > 0.36
    assert certificate.bound <= 0.05
    assert (certificate.n, certificate.date, certificate.model, certificate.kind) == (
        1000,
        "2026-11-22",
        "m",
        "synthetic",
    )
    assert Certificate.from_json(certificate.to_json()) == certificate


def test_nothing_is_certified_without_evidence() -> None:
    assert certify([], []).threshold is None
    assert certify([0.9] * 44, [True] * 44).threshold is None  # 0.95 ** 44 > 0.1: no proof
    assert certify([0.9] * 45, [True] * 45).threshold == 0.9
    assert certify([0.9] * 300, [i % 5 > 0 for i in range(300)]).threshold is None


def test_what_may_never_be_routed_is_not_certified() -> None:
    certificate = certify([0.9] * 100 + [0.0] * 100, [True] * 200)
    assert certificate.threshold == 0.9
    assert certificate.accepted == 100


def test_equal_confidences_are_accepted_together() -> None:
    # The first 60 look right, but their equals are wrong.
    assert certify([0.8] * 200, [True] * 60 + [False] * 140).threshold is None


def test_a_verdict_for_each_confidence() -> None:
    with pytest.raises(ValueError, match="verdict"):
        certify([0.5], [])


def test_temperature_finds_the_scale_of_the_scores() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(size=(4000, 5)) * 2
    right = np.array([rng.choice(5, p=row) for row in softmax(true)])
    assert temperature(true / 3, right) == pytest.approx(3.0, rel=0.1)


def test_isotonic_rises_and_calibrates() -> None:
    rng = np.random.default_rng(3)
    said = rng.random(5000)
    right = rng.random(5000) < said**2  # overconfident
    xs, ys = isotonic(said, right)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)
    assert 0.0 < ys[0] < ys[-1] < 1.0
    said_later = rng.random(5000)
    right_later = rng.random(5000) < said_later**2
    before = expected_calibration_error(said_later, right_later)
    after = expected_calibration_error(np.interp(said_later, xs, ys), right_later)
    assert before > 0.1
    assert after < 0.03


def test_threshold_for_f_weighs_a_missed_risk_more_than_a_false_one() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1])
    positive = np.array([True, False, False, True, False, False])
    assert threshold_for_f(scores, positive, 0.1) == 0.9
    assert threshold_for_f(scores, positive, 2.0) == 0.6
    assert threshold_for_f(scores, np.zeros(6, dtype=np.bool_), 2.0) == float("inf")


def test_threshold_for_f_never_cuts_between_equal_scores() -> None:
    assert threshold_for_f(np.array([0.5, 0.5, 0.1]), np.array([True, False, False]), 2.0) == 0.5


def test_calibration_error_of_a_liar_and_of_nobody() -> None:
    assert expected_calibration_error(np.full(10, 0.95), np.zeros(10, dtype=np.bool_)) == pytest.approx(0.95)
    assert expected_calibration_error(np.array([]), np.array([], dtype=np.bool_)) == 0.0


def test_a_steady_threshold_does_not_hang_on_one_example() -> None:
    """Twenty draws of one world: the best thresholds scatter, their bootstrap medians much less."""
    single, steady = [], []
    for seed in range(20):
        chance = np.random.default_rng(seed)
        positive = np.arange(400) < 20
        scores = chance.normal(size=400) + 2.5 * positive
        single.append(threshold_for_f(scores, positive, 2.5))
        steady.append(steady_threshold(scores, positive, 2.5, seed=1))
    assert np.std(steady) < np.std(single)
    assert steady_threshold(scores, positive, 2.5, seed=1) == steady[-1]
    assert steady_threshold(scores, np.zeros(400, dtype=bool), 2.5, seed=1) == float("inf")
