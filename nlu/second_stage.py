"""The second stage: a sentence encoder is asked about the messages on which the embedded tagger is unsure.

Its heads read the TF-IDF row and the embedding side by side. A message that the first stage is sure of, or whose
language the encoder does not know, never reaches it: so the mean cost stays near that of the first stage.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from domain import SettingsError, Tags, Taxonomy
from nlu import Text
from nlu.calibration import Knots
from nlu.certificate import Certificate
from nlu.embedded import EmbeddedTagger, by_language
from nlu.encoder import Encoder, read_by_encoder
from nlu.entities import DEFAULT, Patterns
from nlu.features import Features, Floats, normalise
from nlu.judge import Judge
from nlu.weights import Model, pack, unpack, write

FORMAT = 1
#: below this confidence a message is judged again where the first stage has no certificate
UNSURE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsMeta:
    """What is not an array."""

    #: version of the first stage's model, whose vocabulary the rows are made of
    first: str
    #: the encoder that the heads were trained on
    encoder: str
    digest: str
    #: confidence of the first stage below which the second is asked, by language; no other language is
    bounds: Mapping[str, float]
    intents: tuple[str, ...]
    #: intent -> department, as it was at the training
    owners: Mapping[str, str]
    beta: float
    #: probability of the department -> confidence, among messages that the first stage is unsure of
    knots: Knots
    #: least raw score of the best intent
    gate: float
    #: of both stages together, by language
    certificates: Mapping[str, Certificate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heads:
    """What the second stage has learned."""

    #: (grams + 1, intents), as in `Model`: the last row is of zeros
    weights: Floats
    #: (dimension of the encoder, intents)
    meaning: Floats
    #: (intents)
    bias: Floats
    meta: HeadsMeta

    def scores(self, features: Features, analysed: Sequence[str], embeddings: Floats) -> Floats:
        """Normalised texts and their embeddings (texts, dimension) -> raw scores (texts, intents)."""
        result: Floats = embeddings @ self.meaning + self.bias
        for place, text in enumerate(analysed):
            ids, values = features.row(text)
            result[place] += values @ self.weights.take(ids, axis=0)
        return result

    def save(self, path: Path) -> None:
        """Write the file in one step, the same bytes for the same heads."""
        meta = json.dumps({"format": FORMAT, **asdict(self.meta)}, ensure_ascii=False, sort_keys=True)
        write(path, {"weights": self.weights, "meaning": self.meaning, "bias": self.bias, "meta": pack(meta)})

    @classmethod
    def load(cls, path: Path) -> Heads:
        """Raises `SettingsError` where there are none, or none that this version reads."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                meta = json.loads(unpack(arrays["meta"]))
                if meta.pop("format") != FORMAT:
                    raise SettingsError(f"{path}: made by another version of the program; run: python bot.py train")
                (x, y), certificates = meta.pop("knots"), meta.pop("certificates")
                known = {name: Certificate.from_json(value) for name, value in certificates.items()}
                meta["intents"] = tuple(meta["intents"])
                own = HeadsMeta(**meta, knots=(tuple(x), tuple(y)), certificates=known)
                return cls(arrays["weights"], arrays["meaning"], arrays["bias"], own)
        except FileNotFoundError as error:
            raise SettingsError(
                f"{path}: nlu.encoder is set, but nothing was trained with it; run: python bot.py train"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise SettingsError(f"{path}: not what this program trained: {error}") from error


def beside(model: Path) -> Path:
    """Where the heads of a model lie."""
    return model.with_name(f"{model.stem}.encoder.npz")


class SecondStageTagger:
    """`nlu.Tagger`: the embedded tagger, and for what it is unsure of the joined features."""

    def __init__(
        self,
        first: EmbeddedTagger,
        features: Features,
        heads: Heads,
        encoder: Encoder,
        *,
        taxonomy: Taxonomy | None = None,
    ) -> None:
        """Raises `SettingsError`: the heads were trained on another model or another encoder."""
        meta = heads.meta
        if (meta.first, meta.digest) != (first.version, encoder.digest):
            raise SettingsError(
                f"The second stage was trained with the model {meta.first} and the encoder {meta.encoder}; in use are"
                f" {first.version} and {encoder.name}, or other files of that name. Run: python bot.py train"
            )
        self._first, self._features, self._heads, self._encoder = first, features, heads, encoder
        self._bounds = meta.bounds
        self._judge = Judge(
            meta.intents,
            taxonomy.intents if taxonomy else meta.owners,
            beta=meta.beta,
            knots=meta.knots,
            gate=meta.gate,
        )
        self.version = f"{first.version}+{encoder.name}"
        joined = by_language(meta.certificates)
        # A language that the encoder does not know is the first stage's alone, and so is its certificate.
        self.certificates: Mapping[str, Certificate] = {
            **first.certificates,
            **{language: joined[language] for language in meta.bounds.keys() & joined.keys()},
        }

    @classmethod
    def load(
        cls, path: Path, encoder: Encoder, *, taxonomy: Taxonomy | None = None, patterns: Patterns = DEFAULT
    ) -> SecondStageTagger:
        """The model of a path with the heads beside it. Raises `SettingsError`."""
        model = Model.load(path)
        first = EmbeddedTagger(model, taxonomy=taxonomy, patterns=patterns)
        return cls(first, model.features, Heads.load(beside(path)), encoder, taxonomy=taxonomy)

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        """One `Tags` for each text, in order; `model` says which stages judged it."""
        tags = self._first.tag(texts)
        places = [
            place
            for place, (text, each) in enumerate(zip(texts, tags, strict=True))
            if is_unsure(each, self._bounds) and (text.text.strip() or text.subject.strip())
        ]
        if not places:
            return tags
        asked = [texts[place] for place in places]
        embeddings = self._encoder.embed([read_by_encoder(text.text, text.subject) for text in asked])
        analysed = [normalise(text.text, text.subject) for text in asked]
        found = self._judge(self._heads.scores(self._features, analysed, embeddings))
        for place, fields in zip(places, found, strict=True):
            tags[place] = replace(tags[place], **fields, model=self.version)
        return tags


def is_unsure(tags: Tags, bounds: Mapping[str, float]) -> bool:
    """Whether the second stage is asked, by the bounds of `HeadsMeta`."""
    bound = bounds.get(tags.language)
    return bound is not None and (tags.confidence < bound or not tags.in_scope)
