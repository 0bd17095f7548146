"""Text -> sparse TF-IDF row, by script: words and their letters for Latin, single and paired characters for Han.

The same code makes the rows that a model is trained on and those that it reads later.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from operator import add

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]

#: What of a long text is read: the subject, how it begins, how it ends.
HEAD, TAIL, SUBJECT = 1500, 300, 300

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_END_OF_HAN = 0x40000
HAN_RUN = re.compile(f"[{_HAN}]+")
WORD = re.compile(rf"[^\W_{_HAN}]+(?:'[^\W_{_HAN}]+)*")
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")  # the same for such text, in half the time
_DIGIT = re.compile(r"\d")
_LONGEST_WORD = 40  # addresses and encoded blobs are cut
_CACHED_WORDS = 8192  # of each of two generations
_MOST = 1 << 13  # a gram cannot occur more often in a text of the length that is read
_LOG_TF: Floats = np.concatenate([[0.0], 1.0 + np.log(np.arange(1, _MOST))]).astype(np.float32)

#: how many Han characters say as much as one word
HAN_PER_WORD = 1.7
#: words, letters of words, Han characters
BLOCKS = 3


def normalise(text: str, subject: str = "") -> str:
    """The part of a message that is read, in one form: NFKC, lower case."""
    if len(text) > HEAD + TAIL:
        text = f"{text[:HEAD]}\n{text[-TAIL:]}"
    if subject:
        text = f"{subject[:SUBJECT]}\n{text}"
    if text.isascii():
        return text.lower()
    # One code point may become eighteen.
    return unicodedata.normalize("NFKC", text).lower().replace("’", "'")[: HEAD + TAIL + SUBJECT + 2]


def words_of(text: str) -> list[str]:
    """The words of a normalised text."""
    return (_ASCII_WORD if text.isascii() else WORD).findall(text)


def shape(word: str) -> str:
    """A word as it is counted: its digits are all alike, its length is bounded."""
    word = word[:_LONGEST_WORD]
    return word if word.isalpha() else _DIGIT.sub("0", word)


def word_grams(words: Sequence[str]) -> Iterator[str]:
    """Words and pairs of neighbours."""
    yield from words
    yield from map(" ".join, pairwise(words))


def letter_grams(word: str) -> Iterator[str]:
    """Runs of 1 to 4 letters of a padded word (scikit-learn's `char_wb`: a word shorter than a run counts once)."""
    padded = f" {word} "
    length = len(padded)
    for size in range(1, 5):
        if size >= length:
            yield padded
            return
        for start in range(length - size + 1):
            yield padded[start : start + size]


def han_grams(text: str) -> Iterator[str]:
    """Single characters and pairs of neighbours of each run of Han characters."""
    for run in HAN_RUN.findall(text):
        yield from run
        yield from map(add, run, run[1:])


def grams(text: str) -> tuple[list[str], list[str], list[str]]:
    """All grams of a normalised text, by block, with repetition."""
    words = [shape(word) for word in words_of(text)]
    letters = [gram for word in words for gram in letter_grams(word)]
    return list(word_grams(words)), letters, list(han_grams(text))


class Features:
    """A vocabulary with its weights. Rows are numbered word grams first, then letters, then Han.

    The last row, one past the vocabulary, stands for every unknown gram and weighs nothing.
    """

    def __init__(self, vocabulary: Sequence[Sequence[str]], idf: Floats) -> None:
        if len(vocabulary) != BLOCKS or sum(map(len, vocabulary)) + 1 != len(idf):
            raise ValueError("the vocabulary and its weights do not fit each other")
        self.vocabulary = vocabulary
        self.idf = idf
        sizes = [len(block) for block in vocabulary]
        starts = [0, sizes[0], sizes[0] + sizes[1], sum(sizes)]
        self._bounds = np.array(starts, dtype=np.int32)
        self.unknown = starts[-1]
        words, self._letters, han = (
            {gram: start + place for place, gram in enumerate(block)}
            for block, start in zip(vocabulary, starts, strict=False)
        )
        self._words = {gram: row for gram, row in words.items() if " " not in gram}
        self._word_pairs = self._pairs_of(words, [gram.split(" ") for gram in words if " " in gram], " ")
        self._characters = np.full(_END_OF_HAN, self.unknown, dtype=np.int32)
        for gram, row in han.items():
            if len(gram) == 1:
                self._characters[ord(gram)] = row
        self._han_pairs = self._pairs_of(han, [list(gram) for gram in han if len(gram) == 2], "")
        # The letters of a word depend on it alone, and people repeat themselves. They are kept as bytes: joining those
        # costs a tenth of joining arrays.
        self._young: dict[str, tuple[int, bytes]] = {}
        self._old: dict[str, tuple[int, bytes]] = {}

    def row(self, text: str) -> tuple[Ids, Floats]:
        """A normalised text -> the rows of its grams, ascending, and their weights.

        Each block has length 1, times the root of its script's share of the text: else one number in a Chinese
        sentence would weigh as much as the sentence.
        """
        found, han = self._find(text)
        found.sort()
        first = np.empty(len(found), dtype=np.bool_)
        first[:1] = True
        np.not_equal(found[1:], found[:-1], out=first[1:])
        starts = first.nonzero()[0]
        ids = found[starts]
        counts = np.empty_like(starts)
        counts[:-1] = starts[1:] - starts[:-1]
        counts[-1:] = len(found) - starts[-1:]
        values = _LOG_TF[counts] * self.idf[ids]
        bounds = ids.searchsorted(self._bounds).tolist()
        for start, stop, share in zip(bounds, bounds[1:], (1.0 - han, 1.0 - han, han), strict=False):
            if stop > start:
                block = values[start:stop]
                block *= math.sqrt(share / block.dot(block))
        return ids, values

    def _find(self, text: str) -> tuple[Ids, float]:
        """The rows of all grams, with repetition, and the share of Han in the text."""
        found = [self._young.get(word) or self._learn(word) for word in words_of(text)]
        words = np.array([row for row, _ in found], dtype=np.int32)
        parts = [letters for _, letters in found]
        parts += (words.tobytes(), self._pairs(words, self._word_pairs).tobytes())
        han = 0.0
        if not text.isascii() and (runs := HAN_RUN.findall(text)):
            size = sum(map(len, runs)) / HAN_PER_WORD
            han = size / (size + len(found))
            # A pair across the gap between runs holds a space, which is no gram.
            points = np.frombuffer(" ".join(runs).encode("utf-32-le"), dtype=np.uint32)
            characters = self._characters[points]
            parts += (characters.tobytes(), self._pairs(characters, self._han_pairs).tobytes())
        return np.frombuffer(bytearray().join(parts), dtype=np.int32), han

    def _pairs(self, rows: Ids, known: tuple[Keys, Ids]) -> Ids:
        """The rows of neighbours: a binary search for all of them costs a third of a dict's look-ups."""
        keys, pairs = known
        wanted = rows[:-1] * np.int64(self.unknown + 1) + rows[1:]
        places = keys.searchsorted(wanted)
        found = pairs[places]
        found[keys[places] != wanted] = self.unknown
        return found

    def _pairs_of(self, rows: dict[str, int], pairs: list[list[str]], between: str) -> tuple[Keys, Ids]:
        """Keys of the pairs, ascending, and their rows; the last stands for whatever is greater."""
        keyed = sorted(
            (rows[one] * (self.unknown + 1) + rows[two], rows[f"{one}{between}{two}"])
            for one, two in pairs
            if one in rows and two in rows
        )
        keyed.append((1 << 62, self.unknown))
        return np.array([key for key, _ in keyed], dtype=np.int64), np.array([row for _, row in keyed], dtype=np.int32)

    def _learn(self, word: str) -> tuple[int, bytes]:
        known = self._old.get(word)
        if known is None:
            shaped = shape(word)
            if shaped != word:  # numbers seldom repeat, their shapes do
                return self._young.get(shaped) or self._learn(shaped)
            letters = array("i", [self._letters.get(gram, self.unknown) for gram in letter_grams(shaped)])
            known = (self._words.get(shaped, self.unknown), letters.tobytes())
        if len(self._young) >= _CACHED_WORDS:
            self._old, self._young = self._young, {}
        self._young[word] = known
        return known


def fit(texts: Iterable[str], *, min_df: int = 1) -> Features:
    """The features of normalised texts: every gram that `min_df` of them hold, with smooth idf."""
    held: tuple[Counter[str], ...] = tuple(Counter() for _ in range(BLOCKS))
    n = 0
    for text in texts:
        n += 1
        for counter, block in zip(held, grams(text), strict=True):
            counter.update(set(block))
    vocabulary = [sorted(gram for gram, count in counter.items() if count >= min_df) for counter in held]
    df = np.array(
        [counter[gram] for counter, block in zip(held, vocabulary, strict=True) for gram in block], dtype=np.float64
    )
    idf = np.append(np.log((1.0 + n) / (1.0 + df)) + 1.0, 0.0)
    return Features(vocabulary, idf.astype(np.float32))
