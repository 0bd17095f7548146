"""A candidate beside the model in use: when it is worse, and how sure that is."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nlu.compare import Comparison, chance_of_loss, compare, difference_interval, measured
from nlu.data import Example
from nlu.embedded import EmbeddedTagger
from nlu.train import train
from tests.test_nlu_support import QUICK, dev, examples, taxonomy


def verdicts(both: int, won: int, lost: int, neither: int) -> tuple[list[bool], list[bool]]:
    """(candidate right, model in use right)."""
    pairs = [(True, True)] * both + [(True, False)] * won + [(False, True)] * lost + [(False, False)] * neither
    return [a for a, _ in pairs], [b for _, b in pairs]


def compared(both: int, won: int, lost: int, neither: int = 0) -> Comparison:
    candidate, in_use = verdicts(both, won, lost, neither)
    return compare(candidate, in_use, {"claims": [True] * len(candidate)})


def test_the_interval_is_that_of_drawing_pairs_with_replacement() -> None:
    """Against the bootstrap as the books write it."""
    candidate, in_use = verdicts(300, 40, 20, 40)
    differences = np.array(candidate, dtype=float) - np.array(in_use, dtype=float)
    rng = np.random.default_rng(1)
    draws = [rng.choice(differences, len(differences)).mean() for _ in range(10_000)]
    expected = np.quantile(draws, [0.05, 0.95])
    assert difference_interval(candidate, in_use) == pytest.approx(expected, abs=0.004)


def test_the_same_verdicts_give_the_same_interval() -> None:
    candidate, in_use = verdicts(100, 9, 7, 10)
    assert difference_interval(candidate, in_use) == difference_interval(candidate, in_use)
    assert difference_interval(candidate, in_use) != difference_interval(candidate, in_use, seed=8)


def test_the_interval_holds_the_true_difference_nine_times_of_ten() -> None:
    rng, true, held = random.Random(3), 0.05, 0
    for _ in range(400):
        draws = [rng.random() for _ in range(500)]
        candidate = [draw < 0.85 for draw in draws]
        in_use = [draw < 0.70 or draw >= 0.90 for draw in draws]
        low, high = difference_interval(candidate, in_use, resamples=2000)
        held += low <= true <= high
    assert 0.86 <= held / 400 <= 0.94


@pytest.mark.parametrize(
    ("won", "lost", "expected"), [(0, 0, 1.0), (0, 5, 1 / 32), (5, 0, 1.0), (1, 4, 6 / 32), (0, 2000, 0.0)]
)
def test_the_chance_of_a_loss_is_that_of_fair_coins(won: int, lost: int, expected: float) -> None:
    assert chance_of_loss(won, lost) == pytest.approx(expected)


def test_a_candidate_that_is_as_good_or_better_has_nothing_against_it() -> None:
    assert compared(900, 0, 0, 100).reasons() == []
    assert compared(850, 60, 20, 70).reasons() == []
    assert compared(900, 20, 22, 58).reasons() == []


def test_a_candidate_that_is_worse_is_told_why() -> None:
    reasons = compared(900, 5, 60, 35).reasons()
    assert reasons[0].startswith("department accuracy -5.5% (90 % interval -")
    assert reasons[1] == "claims -5.5% (905 instead of 960 of 1000 right)"


def test_one_department_that_suffers_is_enough() -> None:
    candidate, in_use = verdicts(900, 60, 12, 28)
    lost = [in_use[i] and not candidate[i] for i in range(1000)]
    part = [lost[i] or i < 40 for i in range(1000)]
    found = compare(candidate, in_use, {"billing": part, "claims": [not each for each in part]})
    assert found.interval[0] > 0
    assert found.reasons() == ["billing -23.1% (40 instead of 52 of 52 right)"]
    assert "worse" in found.to_table()


@pytest.mark.parametrize(
    ("both", "won", "lost", "why"),
    [(15, 0, 12, "fewer than 30"), (985, 0, 15, "less than 2 points"), (20, 10, 14, "mere luck")],
)
def test_a_department_does_not_count_against_it(both: int, won: int, lost: int, why: str) -> None:
    assert not compared(both, won, lost).parts["claims"].worse, why


def test_every_message_needs_a_verdict_of_each_model() -> None:
    with pytest.raises(ValueError, match="verdict"):
        compare([True], [True, False], {})
    with pytest.raises(ValueError, match="verdict"):
        compare([True], [True], {"claims": []})


def test_no_messages_prove_nothing() -> None:
    found = compare([], [], {})
    assert (found.interval, found.reasons()) == ((-1.0, 1.0), [])


def test_taggers_are_compared_by_department_and_on_peoples_labels() -> None:
    model = train(examples()[:: len(examples()) // 300], taxonomy(), settings=QUICK)
    tagger = EmbeddedTagger(model, taxonomy=taxonomy())
    test = list(dev()[:40])
    labels = [Example(text="where is the money of my claim", intent="claim_status", language="en")] * 3
    found = measured(tagger, tagger, [*test, *labels], 40, taxonomy())
    assert (found.candidate, found.all.n, found.all.difference, found.reasons()) == (tagger.version, 43, 0.0, [])
    assert found.parts["people's labels"].n == 3
    departments = {name: part.n for name, part in found.parts.items() if name != "people's labels"}
    assert sum(departments.values()) == 43
    assert departments.keys() == {taxonomy().owner(each.intent) for each in [*test, *labels]}
    assert "people's labels" not in measured(tagger, tagger, test, 40, taxonomy()).parts
