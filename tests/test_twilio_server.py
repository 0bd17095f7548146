"""The stand-in for Twilio: locked, installed by our own scripts, started and ended as the other servers are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import twilio_server
from tests.server_base import ServerError, listening
from tests.twilio_server import TwilioServer

FOLDER = Path(__file__).parent / "npm"


def test_it_ends_with_its_block() -> None:
    with TwilioServer() as server:
        port, folder = server.port, server.dir
        assert listening(port)
    assert not listening(port)
    assert not folder.exists()


def test_where_it_is_missing_tests_fail_and_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(twilio_server, "_EMULATE", tmp_path / "nowhere.js")
    with pytest.raises(ServerError, match=r"scripts/servers\.sh"), TwilioServer():
        pass


def test_its_programs_are_locked_by_digest_and_name_no_host() -> None:
    written = (FOLDER / "package-lock.json").read_text()
    assert "://" not in written  # nor the addresses of who asks for donations, which npm writes down
    lock = json.loads(written)
    wanted = json.loads((FOLDER / "package.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert packages.keys() >= {f"node_modules/{name}" for name in wanted["dependencies"]}
    for name, each in packages.items():
        assert each["integrity"].startswith("sha512-"), name
        assert "resolved" not in each, name
    for name, version in (wanted["dependencies"] | wanted["optionalDependencies"]).items():
        assert packages[f"node_modules/{name}"]["version"] == version
    settings = (FOLDER / ".npmrc").read_text().splitlines()
    assert {"omit-lockfile-registry-resolved=true", "ignore-scripts=true"} <= set(settings)
    assert not any("://" in line for line in settings)
