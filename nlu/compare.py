"""Whether a candidate is worse than the model in use: both judged on the same messages, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from domain import Taxonomy
from nlu import Tagger
from nlu.data import Example
from nlu.evaluate import tagged

RESAMPLES = 10_000
SEED = 7
#: a department, or people's labels as a whole, counts against a candidate from so many messages and such a loss on
LEAST_MESSAGES = 30
MOST_LOST = 0.02
#: chance of refusing for one such part, by mere luck, a candidate that is as good there
SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How two models did on some messages."""

    n: int
    candidate_right: int
    in_use_right: int
    #: probability of losing this much where both are equally good
    p: float

    @property
    def difference(self) -> float:
        """Of the shares right, candidate less model in use."""
        return (self.candidate_right - self.in_use_right) / self.n if self.n else 0.0

    @property
    def worse(self) -> bool:
        return self.n >= LEAST_MESSAGES and self.difference < -MOST_LOST and self.p < SIGNIFICANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate beside the model in use, on one set."""

    candidate: str
    in_use: str
    all: Part
    #: of the difference, 90 %
    interval: tuple[float, float]
    parts: Mapping[str, Part]

    def reasons(self) -> list[str]:
        """Why the candidate should not be promoted; none where it is not worse."""
        found = []
        if self.interval[1] < 0:
            found.append(
                f"department accuracy {self.all.difference:+.1%} (90 % interval {self.interval[0]:+.1%} to"
                f" {self.interval[1]:+.1%}, {self.all.n} messages)"
            )
        found += [
            f"{name} {part.difference:+.1%} ({part.candidate_right} instead of {part.in_use_right} of {part.n} right)"
            for name, part in self.parts.items()
            if part.worse
        ]
        return found

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "interval": list(self.interval), "difference": self.all.difference}

    def to_table(self) -> str:
        lines = [
            f"candidate {self.candidate} beside {self.in_use}, which is in use: department right",
            f"{'':24}{'messages':>10}{'candidate':>11}{'in use':>9}{'difference':>12}",
        ]
        for name, part in (("all", self.all), *self.parts.items()):
            shares = f"{part.candidate_right / part.n:11.3f}{part.in_use_right / part.n:9.3f}" if part.n else f"{'':20}"
            lines.append(f"{name:24}{part.n:10}{shares}{part.difference:+12.3f}{'  worse' if part.worse else ''}")
        low, high = self.interval
        return "\n".join([*lines, f"90 % interval of the difference: {low:+.3f} to {high:+.3f}"])


def compare(
    candidate_right: Sequence[bool],
    in_use_right: Sequence[bool],
    parts: Mapping[str, Sequence[bool]],
    *,
    candidate: str = "",
    in_use: str = "",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """One verdict a message and model, in the same order; `parts` says which messages each part holds."""
    if len(candidate_right) != len(in_use_right) or any(len(part) != len(in_use_right) for part in parts.values()):
        raise ValueError("one verdict of each model is needed for each message")
    pairs = list(zip(candidate_right, in_use_right, strict=True))
    return Comparison(
        candidate=candidate,
        in_use=in_use,
        all=_part(pairs),
        interval=difference_interval(candidate_right, in_use_right, resamples=resamples, seed=seed),
        parts={
            name: _part([pair for pair, within in zip(pairs, part, strict=True) if within])
            for name, part in parts.items()
        },
    )


def measured(
    candidate: Tagger, in_use: Tagger, examples: Sequence[Example], people_from: int, taxonomy: Taxonomy
) -> Comparison:
    """Both models on the same examples; those from index `people_from` on are people's labels."""
    owners = [taxonomy.owner(example.intent) for example in examples]
    right = [
        [tags.department == owner for tags, owner in zip(tagged(tagger, examples), owners, strict=True)]
        for tagger in (candidate, in_use)
    ]
    parts = {name: [owner == name for owner in owners] for name in sorted(set(owners))}
    if people_from < len(examples):
        parts["people's labels"] = [place >= people_from for place in range(len(examples))]
    return compare(right[0], right[1], parts, candidate=candidate.version, in_use=in_use.version)


def difference_interval(
    candidate_right: Sequence[bool],
    in_use_right: Sequence[bool],
    *,
    level: float = 0.90,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Paired bootstrap (Efron and Tibshirani 1993, percentile interval) of the difference of two shares right.

    To draw n pairs with replacement is to draw how many of them were won, lost and neither: a multinomial draw.
    """
    n = len(candidate_right)
    if n == 0:
        return -1.0, 1.0
    won = sum(a and not b for a, b in zip(candidate_right, in_use_right, strict=True))
    lost = sum(b and not a for a, b in zip(candidate_right, in_use_right, strict=True))
    draws = np.random.default_rng(seed).multinomial(n, [won / n, lost / n, (n - won - lost) / n], size=resamples)
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def chance_of_loss(won: int, lost: int) -> float:
    """McNemar's exact test, one side: P(at least `lost` of the won and lost are lost) where both are equally good."""
    n = won + lost
    return float(sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n)


def _part(pairs: Sequence[tuple[bool, bool]]) -> Part:
    won = sum(a and not b for a, b in pairs)
    lost = sum(b and not a for a, b in pairs)
    return Part(
        n=len(pairs),
        candidate_right=sum(a for a, _ in pairs),
        in_use_right=sum(b for _, b in pairs),
        p=chance_of_loss(won, lost),
    )
