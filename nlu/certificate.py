"""How sure the bot may be: a threshold on the confidence, with a bound that holds with known probability.

Fixed-sequence testing (Angelopoulos et al., "Learn then Test", 2021): thresholds are tried from the strictest, which
accepts 30 % of the messages, to the laxest; each is tested by the exact Clopper-Pearson bound, and the first that
fails ends it. The true share of misrouted among the accepted is then above `max_misroute` with probability `delta` at
most, if later messages are drawn like those of the sample. Picking the laxest threshold that *looks* good fails every
second time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SYNTHETIC = "synthetic"  # from a development set: provisional
CONFIRMED = "confirmed"  # from people's labels

_STRICTEST = 0.30
_STEPS = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a threshold is worth, and on what evidence."""

    #: messages in the sample, out-of-scope ones among them
    n: int
    #: how many of them the threshold accepts
    accepted: int
    #: least confidence that may be routed without a person; None: nothing could be certified
    threshold: float | None
    #: upper bound of the share of misrouted among the accepted, true with probability 1 - delta
    bound: float
    delta: float
    max_misroute: float
    #: ISO date
    date: str
    model: str
    kind: str = SYNTHETIC

    def __str__(self) -> str:
        sample = f"{self.kind}, n {self.n}, {self.date or 'no date'}, model {self.model or '?'}"
        if self.threshold is None:
            return f"nothing certified, every message goes to people first ({sample})"
        return (
            f"from confidence {self.threshold:.3f} up, where at most {self.bound:.1%} go astray"
            f" ({sample}, {self.accepted} accepted)"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Certificate:
        return cls(**values)


def upper_bound(errors: int, n: int, delta: float) -> float:
    """Clopper-Pearson: the largest error rate at which `errors` or fewer of `n` still has probability `delta`."""
    if errors >= n:
        return 1.0
    low, high = errors / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(errors, n, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _at_most(errors: int, n: int, rate: float) -> float:
    """P(Binomial(n, rate) <= errors), summed in logarithms."""
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    top = math.lgamma(n + 1)
    return math.fsum(
        math.exp(top - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_rate + (n - k) * log_rest)
        for k in range(errors + 1)
    )


def certify(
    confidences: Sequence[float],
    correct: Sequence[bool],
    *,
    max_misroute: float = 0.05,
    delta: float = 0.10,
    date: str = "",
    model: str = "",
    kind: str = SYNTHETIC,
) -> Certificate:
    """The laxest threshold that can be certified; its `threshold` is None where there is none.

    A confidence of 0 or less marks a message that is never routed without a person, whatever the threshold.
    """
    if len(confidences) != len(correct):
        raise ValueError("one verdict is needed for each confidence")
    n = len(confidences)
    ranked = sorted(zip(confidences, correct, strict=True), key=lambda pair: -pair[0])
    found: tuple[float | None, int, float] = (None, 0, 1.0)
    for size in _sizes(n, max_misroute, delta):
        threshold = ranked[size - 1][0]
        if threshold <= 0.0:
            break
        # Ties go together: whoever has this confidence is accepted.
        accepted = [right for confidence, right in ranked if confidence >= threshold]
        bound = upper_bound(accepted.count(False), len(accepted), delta)
        if bound > max_misroute:
            break
        found = (threshold, len(accepted), bound)
    threshold_found, taken, bound_found = found
    return Certificate(
        n=n,
        accepted=taken,
        threshold=threshold_found,
        bound=bound_found,
        delta=delta,
        max_misroute=max_misroute,
        date=date,
        model=model,
        kind=kind,
    )


def _sizes(n: int, max_misroute: float, delta: float) -> Iterable[int]:
    """How many are accepted at each step, fewest first: settled by n alone, so that the order is fixed beforehand."""
    # With fewer than this, even no error at all proves nothing, and the sequence would end before it began.
    least = math.ceil(math.log(delta) / math.log1p(-max_misroute))
    # At the very top one error ends the sequence; twice `least` bears one. A large sample need not start at 30 %.
    start = max(min(math.ceil(_STRICTEST * n), 2 * least), least)
    if start > n:
        return []
    return sorted({start + round((n - start) * step / (_STEPS - 1)) for step in range(_STEPS)})
