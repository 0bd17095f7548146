"""What the words about operating Sluice promise exists: commands, settings, metrics, links."""

from __future__ import annotations

import re
import shlex
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
import bot
import settings
from tests.deploy_files import OPERATIONS, ROOT, SHIPPED, is_setting, load, parse_command, running_from_image

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


@pytest.fixture(scope="module")
def from_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """URL and environment of a server that runs from the image's files."""
    with running_from_image(tmp_path_factory.mktemp("image")) as running:
        yield running


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def spoken_commands(text: str) -> Iterator[list[str]]:
    """The words after `bot.py` or the shell function `sluice` in the shell examples."""
    for block in blocks(text, "sh"):
        for line in block.splitlines():
            line = re.sub(r"\s#.*|\s[|<>].*", "", line)
            for part in re.split(r"&&|;", line):
                if (found := re.search(r"(?:^|\s)(?:sluice|bot\.py) (?![\"$'@])(.+)", part)) and "sudo " not in part:
                    yield shlex.split(found[1])


@pytest.mark.parametrize("text", [OPERATIONS, CONTRIBUTING], ids=["operations", "contributing"])
def test_every_command_in_the_examples_exists(text: str) -> None:
    for words in spoken_commands(text):
        parse_command(words)


def test_the_examples_are_read_at_all() -> None:
    spoken = {words[0] for words in spoken_commands(OPERATIONS)}
    assert {"check", "user", "token", "migrate", "backup", "restore", "erase", "train", "evaluate", "ingest"} <= spoken


def test_operations_names_every_command_and_every_key() -> None:
    for name in bot.main.commands:
        assert f"`{name}" in OPERATIONS, name
    for key in SHIPPED:
        assert f"`{key}`" in OPERATIONS, key
    for role in app.ROLES:
        assert f"`{role}`" in OPERATIONS, role


@pytest.mark.parametrize("path", ["docs/operations.md", "CONTRIBUTING.md", "compose.yaml", "Dockerfile"])
def test_every_variable_that_is_named_is_a_setting(path: str) -> None:
    names = set(re.findall(r"SLUICE_[A-Z][A-Z0-9_]*(?:__n__[A-Z_]+)?", (ROOT / path).read_text("utf-8")))
    names = {name.replace("__n__", "__0__") for name in names if not name.endswith("_")} - {"SLUICE_CONFIG"}
    assert [name for name in names if not is_setting(name)] == []


def test_a_variable_that_is_no_setting_would_be_found() -> None:
    assert not is_setting("SLUICE_WEB__PROT")
    assert is_setting("SLUICE_WEB__PORT")


def test_the_settings_in_the_examples_load(tmp_path: Path) -> None:
    examples = blocks(OPERATIONS, "yaml")
    assert len(examples) >= 2
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example)
        assert settings.load({"SLUICE_CONFIG": str(file)}).mail.enabled
    for block in blocks(OPERATIONS, "ini"):
        given = dict(line.split("=", 1) for line in block.splitlines())
        given = {name: shlex.split(value)[0] for name, value in given.items()}
        if "SLUICE_CONFIG" in given:
            given["SLUICE_CONFIG"] = str(tmp_path / "0.yaml")
        load(given, tmp_path)


def test_paths_in_the_proxy_example_are_served(from_image: tuple[str, dict[str, str]]) -> None:
    url, _environment = from_image
    [example] = blocks(OPERATIONS, "nginx")
    paths = re.findall(r"location = (\S+)", example)
    assert paths == ["/chat/ws", "/console/events"]
    with pytest.raises(urllib.error.HTTPError) as nothing:
        urllib.request.urlopen(f"{url}/no/such/page", timeout=30)
    assert nothing.value.code == 404
    nothing.value.close()
    # Who is not signed in is led to the sign-in; the socket wants an upgrade.
    request = urllib.request.Request(f"{url}/console/events", headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert "/console/signin" in answer.url


def test_operations_explains_every_metric_and_no_other(from_image: tuple[str, dict[str, str]]) -> None:
    url, _environment = from_image
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        types = re.findall(r"^# TYPE (\w+) (\w+)$", answer.read().decode(), re.M)
    exported = {name for name, _kind in types}
    assert exported
    table = OPERATIONS.partition("| metric | labels |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(sluice_\w+)`", row.split("|")[1])}
    assert named == exported
    series = {name + suffix for name, kind in types if kind == "histogram" for suffix in ("_bucket", "_sum", "_count")}
    assert set(re.findall(r"\bsluice_\w+", OPERATIONS)) <= exported | series


def test_links_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", OPERATIONS, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", OPERATIONS):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (ROOT / "docs" / target).exists(), target


def test_decisions_are_numbered_and_short() -> None:
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        text = file.read_text("utf-8")
        assert text.startswith(f"# {int(file.name[:4])}. "), file.name
        assert len(text.splitlines()) <= 40, file.name
        for part in ("## Context", "## Decision", "## Consequences", "## Alternatives"):
            assert part in text, (file.name, part)


def test_what_a_build_server_runs_is_the_test_target() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "exec make test"
    assert re.search(r"^test:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("path", ["Dockerfile", "compose.yaml", ".dockerignore", ".ci/run", "docs/operations.md"])
def test_no_index_is_named(path: str) -> None:
    text = (ROOT / path).read_text("utf-8")
    assert not re.search(r"index-url|find-links|trusted-host|registry|pypi|PIP_INDEX", text, re.I)
