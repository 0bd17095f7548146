"""A trained model as one file: vocabulary, weights and what was calibrated."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from domain import SettingsError
from nlu.certificate import Certificate
from nlu.features import BLOCKS, Features, Floats

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What is not an array."""

    version: str
    #: columns of the weights: intents (out of scope among them), then sentiments, then risk flags
    intents: tuple[str, ...]
    sentiments: tuple[str, ...]
    risks: tuple[str, ...]
    #: intent -> department, as it was when the model was trained
    owners: Mapping[str, str]
    intent_beta: float
    sentiment_beta: float
    #: probability of the department -> confidence
    knots: tuple[tuple[float, ...], tuple[float, ...]]
    #: least raw score of the best intent
    gate: float
    risk_thresholds: tuple[float, ...]
    #: `folds` or `dev`: what all that was fitted on
    calibrated_on: str
    #: examples by language
    trained_on: Mapping[str, int]
    certificates: Mapping[str, Certificate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that the tagger needs."""

    features: Features
    #: one row a gram and a last one of zeros; one column a class
    weights: Floats
    bias: Floats
    meta: Meta

    def with_certificates(self, certificates: Mapping[str, Certificate]) -> Model:
        return replace(self, meta=replace(self.meta, certificates=certificates))

    def save(self, path: Path) -> None:
        """Write the file in one step, the same bytes for the same model."""
        meta = {"format": FORMAT, **asdict(self.meta)}
        vocabulary = self.features.vocabulary
        arrays: dict[str, Any] = {f"grams{i}": pack("\n".join(block)) for i, block in enumerate(vocabulary)}
        arrays |= {"idf": self.features.idf, "weights": self.weights, "bias": self.bias}
        arrays["meta"] = pack(json.dumps(meta, ensure_ascii=False, sort_keys=True))
        write(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Model:
        """Raises `SettingsError` where there is no model, or none that this version reads."""
        try:
            # Opened here: numpy leaves its own file open when it cannot read it.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                meta = json.loads(unpack(arrays["meta"]))
                if meta.pop("format") != FORMAT:
                    raise SettingsError(f"{path}: made by another version of the program; train again")
                vocabulary = [text.split("\n") if (text := unpack(arrays[f"grams{i}"])) else [] for i in range(BLOCKS)]
                features = Features(vocabulary, arrays["idf"])
                return cls(features, arrays["weights"], arrays["bias"], _meta(meta))
        except FileNotFoundError as error:
            raise SettingsError(f"{path}: no trained model; run: python bot.py train --default") from error
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise SettingsError(f"{path}: not a model of this program: {error}") from error


def write(path: Path, arrays: Mapping[str, Any]) -> None:
    """Arrays -> one file, in one step; the same bytes for the same arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def pack(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A text as an array, uint8 of its UTF-8."""
    return np.frombuffer(text.encode(), dtype=np.uint8)


def unpack(array: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    """The text that `pack` made an array of."""
    return array.tobytes().decode()


def _meta(values: dict[str, Any]) -> Meta:
    x, y = values.pop("knots")
    certificates = {name: Certificate.from_json(value) for name, value in values.pop("certificates").items()}
    for name in ("intents", "sentiments", "risks", "risk_thresholds"):
        values[name] = tuple(values[name])
    return Meta(**{**values, "knots": (tuple(x), tuple(y)), "certificates": certificates})
