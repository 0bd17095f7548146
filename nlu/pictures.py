"""An evaluation as pictures. Needs matplotlib, which the running Sluice does not load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from domain import TRIAGE, Taxonomy
from nlu import Tagger
from nlu.evaluate import Floats, Pair, coverage, eligible, threshold_of

NAMES = ("confusion.png", "reliability.png", "coverage.png")
_BINS = 10
_INCHES = 7.0
#: a curve over fewer messages says nothing
_LEAST = 20

Counts = npt.NDArray[np.int64]


def draw(tagger: Tagger, pairs: Sequence[Pair], taxonomy: Taxonomy, folder: Path) -> list[Path]:
    """Write `NAMES` into a folder; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in NAMES]
    _confusion(tagger, pairs, taxonomy, paths[0])
    _reliability(tagger, pairs, taxonomy, paths[1])
    _coverage(tagger, pairs, taxonomy, paths[2])
    return paths


def confusion(pairs: Sequence[Pair], taxonomy: Taxonomy) -> tuple[list[str], Counts]:
    """Departments, and how many messages of each (row) went to each (column)."""
    names = [name for name in taxonomy.departments if name != TRIAGE] + [TRIAGE]
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for tags, example in pairs:
        counts[names.index(taxonomy.owner(example.intent)), names.index(tags.department)] += 1
    return names, counts


def reliability(confidences: Floats, right: npt.NDArray[np.bool_]) -> list[tuple[float, float, int]]:
    """(mean confidence, share right, messages) of each tenth of the confidences that has any."""
    places = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    return [
        (float(confidences[places == i].mean()), float(right[places == i].mean()), int((places == i).sum()))
        for i in range(_BINS)
        if (places == i).any()
    ]


def _confusion(tagger: Tagger, pairs: Sequence[Pair], taxonomy: Taxonomy, path: Path) -> None:
    names, counts = confusion(pairs, taxonomy)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(f"Departments, model {tagger.version}, {len(pairs)} messages")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right")
    axes.set_yticks(places, names)
    axes.set_xlabel("department given")
    axes.set_ylabel("true department")
    for row in places:
        for column in places:
            if counts[row, column]:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    _save(figure, path)


def _reliability(tagger: Tagger, pairs: Sequence[Pair], taxonomy: Taxonomy, path: Path) -> None:
    figure, axes = _figure(f"Reliability, model {tagger.version}")
    axes.plot([0, 1], [0, 1], linestyle="--", color="grey", label="honest")
    for name, group in _languages(pairs):
        confidences = np.array([tags.confidence for tags, _ in group])
        found = reliability(confidences, _right(group, taxonomy))
        xs, ys, sizes = zip(*found, strict=True)
        (line,) = axes.plot(xs, ys, label=f"{name} ({len(group)})")
        axes.scatter(xs, ys, s=[4 + 200 * size / len(group) for size in sizes], color=line.get_color())
    _unit(axes, "confidence", "share of right departments")
    _save(figure, path)


def _coverage(tagger: Tagger, pairs: Sequence[Pair], taxonomy: Taxonomy, path: Path) -> None:
    figure, axes = _figure(f"Coverage against accuracy, model {tagger.version}")
    for name, group in _languages(pairs):
        confidences = np.array([eligible(tags) for tags, _ in group])
        right = _right(group, taxonomy)
        xs, ys = coverage(confidences, right)
        (line,) = axes.plot(xs, ys, label=f"{name} ({len(group)})")
        threshold = threshold_of(tagger, name)
        sure = confidences >= threshold if threshold is not None else np.zeros(len(group), dtype=np.bool_)
        if sure.any():
            axes.plot([sure.mean()], [right[sure].mean()], marker="o", color=line.get_color())
    _unit(axes, "share routed without a person (dot: at the threshold)", "share of it with the right department")
    axes.set_ylim(0.5, 1.01)
    _save(figure, path)


def _languages(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    names = sorted({example.language for _, example in pairs})
    groups = [(name or "?", [pair for pair in pairs if pair[1].language == name]) for name in names]
    return [(name, group) for name, group in groups if len(group) >= _LEAST] or [("all", list(pairs))]


def _right(pairs: Sequence[Pair], taxonomy: Taxonomy) -> npt.NDArray[np.bool_]:
    return np.array([tags.department == taxonomy.owner(example.intent) for tags, example in pairs], dtype=np.bool_)


def _figure(title: str) -> tuple[Figure, Axes]:
    # Without pyplot there is no global state and no display is looked for.
    figure = Figure(figsize=(_INCHES, _INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def _unit(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")


def _save(figure: Figure, path: Path) -> None:
    # No date and no program in the file: the same evaluation gives the same bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
