"""Sentence encoders: texts in, directions out, so that like meanings lie near each other. Optional.

The port is `Encoder`; `OnnxEncoder` fills it with a folder that holds model.onnx and tokenizer.json. onnxruntime and
tokenizers (requirements-encoder.txt) are imported only when a folder is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from domain import Language, SettingsError
from nlu.features import HEAD, SUBJECT, Floats

#: tokens that are read of a text; attention costs more than proportionally
TOKENS = 128
#: texts a pass of the network
BATCH = 32

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"
INSTALL = "pip install -r requirements-encoder.txt"


class Encoder(Protocol):
    """Turns texts into directions."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Of all that its results hang on: what was trained on one encoder is worthless on another."""
        ...

    @property
    def languages(self) -> frozenset[Language]:
        """What it is good for."""
        ...

    @property
    def dimension(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Floats:
        """float32 (texts, dimension), each row of length 1. Never raises because of what a text holds."""
        ...


class OnnxEncoder:
    """An encoder from a folder: mean of the last layer over the text's tokens (Reimers and Gurevych, 2019)."""

    def __init__(self, folder: Path, languages: Iterable[Language]) -> None:
        """Raises `SettingsError`, which says what is missing and what to do."""
        missing = [name for name in (GRAPH, TOKENIZER) if not (folder / name).is_file()]
        if missing:
            raise SettingsError(
                f"nlu.encoder: {folder} has no {' and no '.join(missing)}."
                " Fetch an encoder with: bot.py encoder fetch NAME, or copy one there"
            )
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise SettingsError(f"nlu.encoder needs {error.name}: {INSTALL}") from error
        options = onnxruntime.SessionOptions()
        # Threads of its own would take the cores from the other roles, and gain little on texts of this length.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Neither library names its errors' types in its interface.
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(folder / GRAPH), options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:
            raise SettingsError(f"nlu.encoder: {folder} cannot be opened: {' '.join(str(error).split())}") from error
        padding = self._tokenizer.padding or {}
        self._pad = int(padding.get("pad_id", self._tokenizer.token_to_id("<pad>") or 0))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS)
        self._inputs = frozenset(each.name for each in self._session.get_inputs())
        self.name = folder.name
        self.digest = _digest(folder / GRAPH, folder / TOKENIZER)
        self.languages = frozenset(languages)
        self.dimension = int(self._run([[self._pad]]).shape[1])

    def embed(self, texts: Sequence[str]) -> Floats:
        # A lone surrogate is no Unicode, and no text to the tokenizer.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        ids = [each.ids or [self._pad] for each in self._tokenizer.encode_batch(clean)]
        result = np.empty((len(ids), self.dimension), dtype=np.float32)
        # Like lengths together: little of a pass is spent on padding.
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            result[places] = self._run([ids[place] for place in places])
        return result

    def _run(self, rows: Sequence[Sequence[int]]) -> Floats:
        """Token numbers -> float32 (rows, dimension) of length 1."""
        width = max(map(len, rows))
        tokens = np.array([[*row, *[self._pad] * (width - len(row))] for row in rows], dtype=np.int64)
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=np.int64)
        given = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        last = self._session.run(None, {name: given[name] for name in self._inputs & given.keys()})[0]
        if last.ndim == 3:
            last = (last * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        lengths = np.sqrt(np.einsum("ij,ij->i", last, last))[:, None]
        directions: Floats = (last / np.maximum(lengths, 1e-12)).astype(np.float32)
        return directions


def read_by_encoder(text: str, subject: str = "") -> str:
    """The part of a message that an encoder is given, as it was written: many know upper case from lower."""
    text = text[:HEAD]
    return f"{subject[:SUBJECT]}\n{text}" if subject else text


def folder_of(name: str, home: Path) -> Path:
    """Where the encoder lies that `nlu.encoder` names: a folder, or below `home` what `encoder fetch` brought."""
    own = Path(name).expanduser()
    return own if own.is_dir() else home / name.replace("/", "--")


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
