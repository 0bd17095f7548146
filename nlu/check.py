"""Checks the training data itself: is there enough of it, is it free of copies, and is it more than the obvious words?

`python -m nlu.check` prints a table and what is wrong; exit status 1 with errors, 0 with warnings alone. Like training
it needs scikit-learn, and nothing that runs imports it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import yaml
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from domain import OUT_OF_SCOPE, Language
from nlu.commands import trained_on
from nlu.data import DataError, Example, read_folder
from nlu.features import grams, normalise

#: intent -> language -> the words that name it
Telling = Mapping[str, Mapping[str, Sequence[str]]]
#: (intent, language)
Group = tuple[str, str]

_ROOT = Path(__file__).parents[1]
_ZH, _EN, _MIXED = Language.ZH.value, Language.EN.value, Language.MIXED.value
#: so many rows are compared with all others at a time: 1,000 of 16,000 as 32-bit numbers take 64 MB
_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is wanted of the data: numbers of examples, and shares between 0 and 1."""

    #: of each intent, in Chinese and in English
    intent: int = 150
    #: over all languages
    out_of_scope: int = 1000
    mixed: int = 500
    #: with any risk flag
    risk: int = 300
    #: that look like one and are none
    decoy: int = 300
    #: Jaccard index above which two texts are copies
    alike: float = 0.6
    #: share without a telling word: below, keywords would do; above, nobody is shown the plain case
    free: tuple[float, float] = (0.35, 0.50)
    #: share that a nearest neighbour labels right from which an intent's examples are too much alike
    nearest: float = 0.75


DEFAULTS = Limits()


class Pair(NamedTuple):
    """Two texts, by their places, the earlier one first."""

    first: int
    second: int
    jaccard: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    #: examples that are trained on
    counts: Mapping[Group, int]
    #: share of them without a telling word, and share whose nearest neighbour bears the same label
    free: Mapping[Group, float]
    nearest: Mapping[Group, float]
    errors: Sequence[str]
    warnings: Sequence[str]

    def to_table(self) -> str:
        """One line an intent, then what is wrong."""
        columns: list[tuple[str, Mapping[Group, float], str]] = [
            *(("", self.counts, language) for language in (_ZH, _EN, _MIXED)),
            *(("free ", self.free, language) for language in (_ZH, _EN)),
            *(("near ", self.nearest, language) for language in (_ZH, _EN)),
        ]
        lines = [f"{'':22}" + "".join(f"{title + language:>9}" for title, _, language in columns)]
        for intent in dict.fromkeys(intent for intent, _ in self.counts):
            cells = (_cell(values.get((intent, language))) for _, values, language in columns)
            lines.append(f"{intent:22}" + "".join(f"{cell:>9}" for cell in cells))
        lines += ["", "free: share without a telling word; near: share that a nearest neighbour labels right", ""]
        lines += [f"error: {error}" for error in self.errors] + [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([*lines, f"{len(self.errors)} errors, {len(self.warnings)} warnings"])


def check(
    trained: Sequence[Example],
    held_out: Sequence[Example],
    intents: Collection[str],
    telling: Telling,
    limits: Limits = DEFAULTS,
) -> Report:
    """All checks. `intents` are the taxonomy's, without `out_of_scope`; `telling` may leave some of them out."""
    free, nearest = free_of(trained, telling), nearest_right(trained)
    repeated, tolerated = copies(trained, held_out, limits.alike)
    return Report(
        counts=counts(trained, intents),
        free=free,
        nearest=nearest,
        errors=[
            *unknown_labels([*trained, *held_out], telling, intents),
            *too_few(trained, intents, limits),
            *repeated,
        ],
        warnings=[*tolerated, *out_of_range(free, limits.free), *too_alike(nearest, limits.nearest)],
    )


def counts(examples: Sequence[Example], intents: Collection[str]) -> dict[Group, int]:
    """Examples by intent and language, in the taxonomy's order, also where there are none; strange intents last."""
    found = Counter((example.intent, example.language) for example in examples)
    names = dict.fromkeys([*intents, OUT_OF_SCOPE, *(intent for intent, _ in found)])
    return {(intent, language): found[intent, language] for intent in names for language in (_ZH, _EN, _MIXED)}


def too_few(examples: Sequence[Example], intents: Collection[str], limits: Limits = DEFAULTS) -> list[str]:
    """Which numbers of examples do not reach their limit."""
    by_group = counts(examples, intents)
    wanted = [(f"{i} in {lang}", by_group[i, lang], limits.intent) for i in intents for lang in (_ZH, _EN)]
    wanted += [
        (OUT_OF_SCOPE, sum(example.intent == OUT_OF_SCOPE for example in examples), limits.out_of_scope),
        ("in both languages", sum(example.language == _MIXED for example in examples), limits.mixed),
        ("with a risk flag", sum(bool(example.risk) for example in examples), limits.risk),
        ("with a decoy", sum(bool(example.decoy) for example in examples), limits.decoy),
    ]
    return [f"{name}: {number} examples, {least} are needed" for name, number, least in wanted if number < least]


def unknown_labels(examples: Sequence[Example], telling: Telling, intents: Collection[str]) -> list[str]:
    """Intents of the examples and of the telling words that the taxonomy does not have."""
    known = {*intents, OUT_OF_SCOPE}
    found = Counter(example.intent for example in examples if example.intent not in known)
    strange = [f"{intent}: not in the taxonomy ({number} examples)" for intent, number in sorted(found.items())]
    return strange + [f"{intent}: not in the taxonomy (telling words)" for intent in sorted(telling.keys() - known)]


def copies(
    trained: Sequence[Example], held_out: Sequence[Example], more_than: float = DEFAULTS.alike
) -> tuple[list[str], list[str]]:
    """Errors: what is trained on twice, or held out and trained on. Warnings: what repeats within the held-out."""
    examples = [*trained, *held_out]
    errors: list[str] = []
    warnings: list[str] = []
    for first, second, jaccard in alike([example.text for example in examples], more_than):
        one, other = examples[first], examples[second]
        kind = "duplicate" if _plain(one.text) == _plain(other.text) else f"near duplicate ({jaccard:.2f})"
        kind += " of a held-out example" if first < len(trained) <= second else ""
        kind += " among held-out examples" if first >= len(trained) else ""
        (warnings if first >= len(trained) else errors).append(f"{kind}: {_name(one)} and {_name(other)}")
    return errors, warnings


def alike(texts: Sequence[str], more_than: float = DEFAULTS.alike) -> list[Pair]:
    """Pairs of texts whose sets of runs of four characters have a Jaccard index over `more_than`.

    Case, width and white space do not count; a text shorter than four characters is one run. All pairs are compared
    (Broder 1997, "On the resemblance and containment of documents", without the sampling): 16,000 messages take 2 s.
    """
    if not texts:
        return []
    runs = CountVectorizer(analyzer=_runs, dtype=np.int32).fit_transform(_plain(text) for text in texts)
    sizes = np.diff(runs.indptr)
    found: list[Pair] = []
    for start, block in _blocks(runs):
        common = (block @ runs[: start + block.shape[0]].T).tocoo()
        rows = common.row + start
        jaccard = common.data / (sizes[rows] + sizes[common.col] - common.data)
        chosen = (common.col < rows) & (jaccard > more_than)
        found += map(Pair, common.col[chosen].tolist(), rows[chosen].tolist(), jaccard[chosen].tolist())
    return sorted(found)


def free_of(examples: Sequence[Example], telling: Telling) -> dict[Group, float]:
    """The share of each group's examples that hold none of their intent's telling words."""
    patterns = {intent: _patterns(words) for intent, words in telling.items()}
    free: defaultdict[Group, list[bool]] = defaultdict(list)
    for example in examples:
        if example.intent in patterns:
            text = normalise(example.text)
            asked = [p for lang, p in patterns[example.intent].items() if example.language in {lang, _MIXED}]
            free[example.intent, example.language].append(not any(pattern.search(text) for pattern in asked))
    return {group: sum(values) / len(values) for group, values in free.items()}


def nearest_right(examples: Sequence[Example]) -> dict[Group, float]:
    """The share of each group whose nearest other example bears the same intent.

    Nearest by the cosine of TF-IDF rows (sublinear tf, smooth idf) of words and Han characters, single and paired.
    """
    if len(examples) < 2:
        return {}
    vectoriser = TfidfVectorizer(analyzer=_words_and_characters, sublinear_tf=True, dtype=np.float32)
    rows = vectoriser.fit_transform([normalise(example.text) for example in examples])
    right: defaultdict[Group, list[bool]] = defaultdict(list)
    for start, block in _blocks(rows):
        cosines = (block @ rows.T).toarray()
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = 0.0  # not itself
        best = cosines.argmax(axis=1).tolist()
        for example, place, cosine in zip(examples[start:], best, cosines.max(axis=1).tolist(), strict=False):
            same = cosine > 0.0 and examples[place].intent == example.intent
            right[example.intent, example.language].append(same)
    return {group: sum(values) / len(values) for group, values in right.items()}


def out_of_range(free: Mapping[Group, float], wanted: tuple[float, float] = DEFAULTS.free) -> list[str]:
    """Where the share without a telling word, in whole per cent, is not what is wanted; at most a line a side.

    Examples in both languages are too few to say.
    """
    least, most = wanted
    shares = [(*group, round(share, 2)) for group, share in sorted(free.items()) if group[1] != _MIXED]
    low = [f"{intent} {language} {share:.0%}" for intent, language, share in shares if share < least]
    high = [f"{intent} {language} {share:.0%}" for intent, language, share in shares if share > most]
    return [
        f"{side} {limit:.0%} hold no telling word: {', '.join(groups)}"
        for side, limit, groups in (("fewer than", least, low), ("more than", most, high))
        if groups
    ]


def too_alike(nearest: Mapping[Group, float], least: float = DEFAULTS.nearest) -> list[str]:
    """Groups that a nearest neighbour labels right too often, so that a test on their like would prove nothing."""
    return [
        f"{intent} in {language}: a nearest neighbour labels {share:.0%} right, the examples are too much alike"
        for (intent, language), share in sorted(nearest.items())
        if language != _MIXED and share >= least
    ]


def read_telling(path: Path) -> Telling:
    """Telling words of a YAML file {intent: {language: [word]}}. Raises `DataError`."""
    content = _read(path)
    for intent, languages in content.items():
        if not isinstance(languages, dict) or not languages.keys() <= {_ZH, _EN}:
            raise DataError(f"{path}: {intent}: not a mapping of zh and en")
        for language, words in languages.items():
            if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
                raise DataError(f"{path}: {intent}, {language}: not a list of words (quote true, false, yes and no)")
    return content


def read_intents(path: Path) -> list[str]:
    """The taxonomy's intents, as a settings file names them. Raises `DataError`."""
    intents = _read(path).get("intents")
    if not isinstance(intents, dict) or not intents:
        raise DataError(f"{path}: no intents")
    return list(intents)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a mapping")
    return content


def _blocks(rows: sparse.csr_matrix) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Where a block of rows begins, and the block: all products at once would not fit into memory."""
    for start in range(0, rows.shape[0], _ROWS):
        yield start, rows[start : start + _ROWS]


def _plain(text: str) -> str:
    return " ".join(normalise(text).split())


def _runs(text: str) -> set[str]:
    return {text[start : start + 4] for start in range(max(1, len(text) - 3))}


def _words_and_characters(text: str) -> list[str]:
    words, _, characters = grams(text)
    return words + characters


def _patterns(words: Mapping[str, Sequence[str]]) -> dict[str, re.Pattern[str]]:
    result = {}
    for language, listed in words.items():
        any_of = "|".join(re.escape(normalise(word)) for word in listed)
        # Han characters are letters to \b, but no part of an English word: app打不开.
        result[language] = re.compile(any_of if language == _ZH else f"(?<![a-z0-9])(?:{any_of})(?![a-z0-9])")
    return result


def _name(example: Example) -> str:
    text = _plain(example.text)
    return f"{example.intent}/{example.language} {text[:60]!r}{'...' if len(text) > 60 else ''}"


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.0%}"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=_ROOT / "nlu" / "data", help="Folder of the data.")
@click.option("--config", type=click.Path(path_type=Path), default=_ROOT / "config.yaml", help="Names the intents.")
def main(data: Path, config: Path) -> None:
    """Check the training data: exit status 1 if something is wrong with it."""
    try:
        held_out = [*read_folder(data / "dev"), *read_folder(data / "test")]
        report = check(trained_on(data), held_out, read_intents(config), read_telling(data / "telling.yaml"))
    except DataError as error:
        raise click.ClickException(str(error)) from error
    click.echo(report.to_table())
    sys.exit(1 if report.errors else 0)


if __name__ == "__main__":
    main()
