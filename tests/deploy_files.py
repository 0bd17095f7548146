"""The files that run Sluice elsewhere, read for the tests of them."""

from __future__ import annotations

import configparser
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml

import app
import bot
import settings
from domain import SettingsError
from tests.server_base import free_port

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text("utf-8"))
#: what a secret of the compose file would hold
SECRETS = {"database_url": "postgresql://sluice:x@postgres/sluice", "web_secret": "w" * 32, "metrics_token": "m" * 32}


def parse_command(words: Iterable[str]) -> click.Context:
    """The command as click would run it, without running it. Raises `click.UsageError`."""
    command: click.Command = bot.main
    context, rest = click.Context(command), list(words)
    name: str | None = None
    while isinstance(command, click.Group) and (rest or not command.invoke_without_command):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        command, context = found, click.Context(found, parent=context)
    return command.make_context(name, rest, parent=context.parent)


def roles_of(words: list[str]) -> set[str]:
    context = parse_command(words)
    assert context.info_name == "run", words
    return set(context.params["roles"] or app.ROLES)


def load(environment: Mapping[str, str], folder: Path) -> settings.Settings:
    """The settings in this environment; files that it names are made with what they would hold."""
    given = {}
    for name, value in environment.items():
        if name.startswith("SLUICE_") and name.endswith("_FILE") and not name.endswith("__TOKEN_FILE"):
            file = folder / Path(value).name
            file.write_text(SECRETS.get(file.name, "secret"))
            value = str(file)
        given[name] = value
    return settings.load(given)


def is_setting(name: str) -> bool:
    """Whatever else may be wrong with the value."""
    try:
        settings.load({name: "1"})
    except SettingsError as error:
        return "names no setting" not in str(error)
    return True


def read_unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=True, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text("utf-8").replace("%i", "8081"))
    return unit


def environment_of(unit: configparser.ConfigParser) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(unit["Service"]["Environment"]))


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n(#.*\n)*", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def rest_of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in rest_of("ENV") for pair in shlex.split(rest))


def copied() -> list[tuple[str, Path]]:
    """(source, place under the working directory) of every COPY."""
    pairs: list[tuple[str, Path]] = []
    for rest in rest_of("COPY"):
        *sources, target = shlex.split(rest)
        pairs += [(source, Path(source if target == "./" else target)) for source in sources]
    return pairs


def ignored(path: str) -> bool:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    parents = [*map(str, Path(path).parents), path]
    names = {each.removeprefix("**/") for each in patterns}
    return any(fnmatch.fnmatch(each, pattern) for each in parents for pattern in names)


@contextmanager
def running_from_image(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Sluice run from the files of the image alone, with its environment but a folder and port of ours."""
    for source, target in copied():
        if (ROOT / source).is_dir():
            leave = shutil.ignore_patterns("__pycache__", "model" if source == "nlu" else "")
            shutil.copytree(ROOT / source, folder / target, ignore=leave)
        else:
            shutil.copy(ROOT / source, folder / target)
    (folder / "nlu" / "model").mkdir()
    shutil.copy(ROOT / "nlu" / "model" / "default.npz", folder / "nlu" / "model")
    port = free_port()
    own = {"SLUICE_STATE_DIR": str(folder / "state"), "SLUICE_WEB__HOST": "127.0.0.1", "SLUICE_WEB__PORT": str(port)}
    environment = {**os.environ, **image_environment(), **own}
    script, command = json.loads(rest_of("ENTRYPOINT")[0])[-1], json.loads(rest_of("CMD")[0])
    process = subprocess.Popen(
        [sys.executable, script, *command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        try:
            greeting = process.stdout.readline()
            assert "Sluice is at" in greeting
            yield f"http://127.0.0.1:{port}", environment
            process.terminate()
            process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0


def compose_environment(service: Mapping[str, Any]) -> dict[str, str]:
    """With the defaults of its interpolations."""
    given = service.get("environment", {})
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in given.items()}
