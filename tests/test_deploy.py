"""What is shipped to run Sluice elsewhere is true: the units, the image, the compose file."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

import app
import bot
from tests.deploy_files import (
    COMPOSE,
    OPERATIONS,
    ROOT,
    SECRETS,
    SHIPPED,
    UNITS,
    compose_environment,
    copied,
    environment_of,
    ignored,
    image_environment,
    instructions,
    load,
    parse_command,
    read_unit,
    rest_of,
    roles_of,
    running_from_image,
)
from tests.server_base import free_port

OURS = {"migrate", "web", "worker", "listen", "clock"}


def test_the_ways_to_call_a_command_are_told_apart() -> None:
    assert roles_of(["run", "--role", "web", "--role", "clock"]) == {"web", "clock"}
    for wrong in (["run", "--role", "cook"], ["fly"], ["user", "add", "x"], ["token", "lose", "x"]):
        with pytest.raises(click.UsageError):
            parse_command(wrong)


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_there_is_a_unit_for_one_process_and_one_for_each_role() -> None:
    assert [path.name for path in UNITS] == [
        "sluice-clock.service",
        "sluice-listen.service",
        "sluice-web@.service",
        "sluice-worker@.service",
        "sluice.service",
    ]
    for path in UNITS:
        assert path.stem in OPERATIONS


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_runs_what_exists(path: Path, tmp_path: Path) -> None:
    unit = read_unit(path)
    service = unit["Service"]
    python, script, *words = shlex.split(service["ExecStart"])
    assert Path(python) == Path(service["WorkingDirectory"]) / ".venv" / "bin" / "python"
    assert (ROOT / script).samefile(bot.__file__)
    roles = roles_of(words)
    named = path.stem.removeprefix("sluice").strip("-@")
    assert named in roles if named else roles == set(app.ROLES)
    loaded = load(environment_of(unit), tmp_path)
    assert loaded.state_dir == Path("/var/lib") / service["StateDirectory"]
    assert loaded.web.host == "127.0.0.1"
    if named == "web":
        assert loaded.web.port == 8081
    assert unit["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_may_do_little_and_holds_no_secret(path: Path) -> None:
    service = read_unit(path)["Service"]
    assert service["User"] not in ("root", "0", "")
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    # The reason of status 2 is the settings, which no restart cures: bot.py says so, and so must the unit.
    assert service["RestartPreventExitStatus"] == "2"
    assert service["EnvironmentFile"].removeprefix("-") == "/etc/sluice/sluice.env"
    assert not [name for name in environment_of(read_unit(path)) if re.search("SECRET|PASSWORD|TOKEN|URL", name)]


def test_the_units_of_the_roles_make_a_whole_and_share_no_port(tmp_path: Path) -> None:
    roles: set[str] = set()
    ports = [SHIPPED["web"]["port"]]
    for path in UNITS:
        if path.stem == "sluice":
            continue
        unit = read_unit(path)
        mine = roles_of(shlex.split(unit["Service"]["ExecStart"])[2:])
        roles |= mine
        if "web" in mine:
            ports.append(load(environment_of(unit), tmp_path).web.port)
    assert roles == set(app.ROLES)
    assert len(ports) == len(set(ports))


# --- the image --------------------------------------------------------------------------------------------------------


def test_what_the_image_copies_exists_and_is_not_held_back() -> None:
    for source, _target in copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source


@pytest.mark.parametrize(
    "path", ["var/secrets/database_url", ".venv/bin/python", ".git/config", "prod.env", "tests/x.py"]
)
def test_what_must_not_be_in_an_image_is_held_back(path: str) -> None:
    assert ignored(path)


def test_the_image_is_built_from_locked_packages_and_runs_without_rights() -> None:
    words = [word for word, _rest in instructions()]
    assert words[0] == "FROM"
    assert "ADD" not in words
    assert re.fullmatch(r"python:3\.11-slim(-\w+)?", rest_of("FROM")[0])
    pip = [line for line in rest_of("RUN") if "pip install" in line]
    assert pip
    assert all("--require-hashes -r requirements.txt" in line for line in pip)
    assert rest_of("USER")[-1] not in ("root", "0")
    assert "USER" in words[words.index("ENV") :]
    [train] = [re.search(r"bot\.py (train [^&]*)", line) for line in rest_of("RUN") if "bot.py train" in line]
    assert train is not None
    assert parse_command(train[1].split()).params["as_default"]
    assert json.loads(rest_of("ENTRYPOINT")[0])[-1] == "bot.py"
    assert roles_of(json.loads(rest_of("CMD")[0])) == set(app.ROLES)
    assert not [name for name in image_environment() if re.search("SECRET|PASSWORD|TOKEN", name)]


@pytest.fixture(scope="module")
def from_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """URL and environment of a server that runs from the image's files."""
    with running_from_image(tmp_path_factory.mktemp("image")) as running:
        yield running


def healthcheck(environment: Mapping[str, str]) -> int:
    [check] = rest_of("HEALTHCHECK")
    _python, *words = json.loads(check[check.index("CMD") + 3 :])
    done = subprocess.run([sys.executable, *words], env=dict(environment), capture_output=True, timeout=30, check=False)
    return done.returncode


def test_the_image_has_all_that_sluice_needs_to_serve(from_image: tuple[str, dict[str, str]]) -> None:
    url, _environment = from_image
    for path in ("/readyz", "/chat", "/widget.js", "/console/signin", "/api/docs", "/static/console.css"):
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            assert answer.status == 200, path


def test_the_health_check_knows_a_running_server_from_none(from_image: tuple[str, dict[str, str]]) -> None:
    _url, environment = from_image
    assert healthcheck(environment) == 0
    assert healthcheck({**environment, "SLUICE_WEB__PORT": str(free_port())}) != 0


# --- compose ----------------------------------------------------------------------------------------------------------


def test_compose_has_the_services_that_the_words_name() -> None:
    assert set(COMPOSE["services"]) == {"postgres", "redis", *OURS}
    section = OPERATIONS.partition("\n## Containers\n")[2].partition("\n## ")[0]
    for name in COMPOSE["services"]:
        assert f"`{name}`" in section
    for service in COMPOSE["services"].values():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert {each.partition(":")[0] for each in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    assert COMPOSE["services"]["postgres"]["image"] == "postgres:15"
    assert COMPOSE["services"]["redis"]["image"] == "redis:7"


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_runs_a_command_that_exists_in_settings_that_load(name: str, tmp_path: Path) -> None:
    service = COMPOSE["services"][name]
    environment = compose_environment(service)
    context = parse_command(service["command"])
    assert context.info_name == ("migrate" if name == "migrate" else "run")
    serves = name != "migrate" and "web" in roles_of(service["command"])
    assert name == "migrate" or name in roles_of(service["command"])
    # Without HTTP the image's own check would call a healthy worker sick.
    assert service.get("healthcheck", {}).get("disable", False) is not serves
    loaded = load({**image_environment(), **environment}, tmp_path)
    assert loaded.database_url == SECRETS["database_url"]
    assert loaded.web.secret == SECRETS["web_secret"]
    assert loaded.web.metrics_token == SECRETS["metrics_token"]
    assert loaded.queue.url.startswith("redis://redis:")
    assert loaded.web.trusted_proxies == [COMPOSE["networks"]["default"]["ipam"]["config"][0]["gateway"]]
    for variable, value in environment.items():
        if variable.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in service["secrets"]
    assert service["volumes"] == [f"state:{image_environment()['SLUICE_STATE_DIR']}"]


def test_compose_holds_no_secret_and_waits_for_the_schema() -> None:
    for name, service in COMPOSE["services"].items():
        for variable in compose_environment(service):
            assert variable.endswith("_FILE") or not re.search("SECRET|PASSWORD|TOKEN", variable), (name, variable)
        if name in OURS - {"migrate"}:
            assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    for secret in COMPOSE["secrets"].values():
        assert ignored(secret["file"].removeprefix("./"))
    roles = set(itertools.chain(*(roles_of(COMPOSE["services"][name]["command"]) for name in OURS - {"migrate"})))
    assert roles == set(app.ROLES)


def test_all_agree_on_the_port() -> None:
    port = str(SHIPPED["web"]["port"])
    assert image_environment()["SLUICE_WEB__PORT"] == port
    assert rest_of("EXPOSE") == [port]
    assert COMPOSE["services"]["web"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert re.findall(r"^ +server ([\d.]+:\d+);", OPERATIONS, re.M) == [f"127.0.0.1:{port}"]
    listen = environment_of(read_unit(ROOT / "deploy" / "systemd" / "sluice-listen.service"))["SLUICE_WEB__PORT"]
    assert f"port {listen}" in OPERATIONS
