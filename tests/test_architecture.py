"""The house stands as it was drawn: imports point one way.

The words (`domain`) know nobody. The edges are deaf to each other: a channel knows neither the tagger nor the tables,
the tagger neither channel nor table, the tables neither of them; so each can be read, tested and replaced alone. The
router stands in the middle and knows all three. The web speaks HTTP and comes last, and only the programs of the root
know everything. An import that points another way is a short cut that somebody pays for later; it fails here.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("channels", "nlu", "storage", "router", "web")
#: the programs of the root: they wire the parts
PROGRAMS = ("settings", "app", "app_channels", "serve", "bot", "bot_models", "bot_tools", "checks", "demo_day")
OURS = {*FOLDERS, *PROGRAMS, "domain", "tests"}

#: what may be imported of ours, by folder
MAY = {
    "domain": set(),
    "channels": {"channels", "domain"},
    "nlu": {"nlu", "domain"},
    "storage": {"storage", "domain"},
    "router": {"router", "channels", "nlu", "storage", "domain"},
    "web": {"web", "router", "storage", "channels", "nlu", "domain"},
    "bot": {*FOLDERS, *PROGRAMS, "domain"},
    "bot_models": {*FOLDERS, "settings", "app", "bot_tools", "domain"},
    "bot_tools": {*FOLDERS, "settings", "app", "domain"},
    "app": {*FOLDERS, "settings", "app_channels", "domain"},
    "app_channels": {"channels", "settings"},
    "serve": {*FOLDERS, "settings", "app", "domain"},
    "checks": {*FOLDERS, "settings", "app", "app_channels", "domain"},
    "demo_day": {*FOLDERS, "settings", "app", "app_channels", "domain"},
    "settings": {*FOLDERS, "domain"},
}
#: where an import waits inside a function, because what it loads is heavy and rarely needed
LATE = {"bot.py", "bot_models.py", "bot_tools.py", "app.py", "storage/schema.py", "nlu/commands.py"}


def files() -> list[Path]:
    inside = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")]
    return sorted([*ROOT.glob("*.py"), *inside])


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(module, line) of each import below a node; a relative one is named by its dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node.lineno


def wrong(path: str, source: str) -> list[str]:
    """The imports of a file that point where they may not."""
    place = path.partition("/")[0].removesuffix(".py")
    tree = ast.parse(source)
    found = []
    for module, line in imports(tree):
        head = module.partition(".")[0]
        if not head or (head in OURS and head not in MAY[place]):
            found.append(f"{path}:{line} imports {module}")
    if path not in LATE:
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        late = {(module, line) for function in functions for module, line in imports(function)}
        found += [f"{path}:{line} imports {module} late" for module, line in late if module.partition(".")[0] in OURS]
    return found


def test_every_file_of_the_root_has_its_place() -> None:
    assert {file.stem for file in ROOT.glob("*.py")} <= MAY.keys()


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    assert wrong(str(file.relative_to(ROOT)), file.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("domain.py", "import storage.tables"),
        ("channels/mail.py", "from nlu import Text"),
        ("channels/mail.py", "from storage.database import Database"),
        ("channels/mail.py", "def f():\n    import router.flow"),
        ("nlu/embedded.py", "from channels import Limits"),
        ("storage/search.py", "from router import sla"),
        ("router/flow.py", "from web.context import Web"),
        ("router/flow.py", "import settings"),
        ("web/api.py", "from app import App"),
        ("web/api.py", "def f():\n    from storage import tickets"),
        ("storage/chat.py", "from . import tickets"),
        ("settings.py", "import app"),
    ],
)
def test_a_wrong_import_would_be_seen(path: str, source: str) -> None:
    assert wrong(path, source)


#: what only some settings need. Redis' library looks whether there is a `cryptography`, which costs nothing yet
HEAVY = {
    "aiogram", "aiohttp", "aioimaplib", "aiosmtplib", "alembic", "cryptography.hazmat", "defusedxml", "httpx", "jwt",
    "matplotlib", "phonenumbers", "playwright", "pybreaker", "requests", "scipy", "sklearn", "stdnum", "twilio",
    "xmltodict",
}  # fmt: skip
#: the channels that have a provider, with all that a file of theirs is called
CHANNELS = ("sms", "phone", "telegram", "messenger", "instagram", "whatsapp", "meta", "wechat", "webhook", "twilio")
#: read whether or not the channel is on: by the settings, and by the console, which says what a text costs
ALWAYS = {"channels.phone_hours", "channels.sms_text"}


def loaded(**settings: str) -> tuple[set[str], set[str]]:
    """What is loaded once the application is wired with these settings: (heavy libraries, files of channels)."""
    code = "import sys, app, serve; from settings import load; app.build(load(), roles=['web', 'listen', 'clock']); "
    environment = {"SLUICE_STATE_DIR": "/nonexistent", **{f"SLUICE_{name}": value for name, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-c", code + "print(*sorted(sys.modules))"],
        cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    modules = set(done.stdout.split())
    of_channels = {f"channels.{file.stem}" for file in (ROOT / "channels").glob("*.py") if _is_of_channel(file.stem)}
    return HEAVY & modules, (of_channels - ALWAYS) & modules


def _is_of_channel(stem: str) -> bool:
    return stem.partition("_")[0] in CHANNELS


def test_starting_loads_nothing_heavy_that_the_settings_do_not_ask_for() -> None:
    assert loaded() == (set(), set())


META = {"APP_SECRETS__0": "a", "VERIFY_TOKENS__0": "b"}
TWILIO = {"ACCOUNT_SID": "AC1", "AUTH_TOKENS__0": "a"}
#: channel -> (settings, heavy libraries, the first words of its files' names)
ALONE: dict[str, tuple[dict[str, str], set[str], set[str]]] = {
    # Twilio's library brings requests, which is never used.
    "sms": (TWILIO, {"twilio", "aiohttp", "phonenumbers", "requests"}, {"sms", "twilio"}),
    "phone": (TWILIO, {"twilio", "aiohttp", "cryptography.hazmat", "stdnum", "requests"}, {"phone", "twilio"}),
    "telegram": ({"TOKEN": "123456789:AAFsecretsecretsecretsecretsecret_-1"}, {"aiogram", "aiohttp"}, {"telegram"}),
    "messenger": (META, {"httpx"}, {"messenger", "meta"}),
    "instagram": (META, {"httpx"}, {"instagram", "messenger", "meta"}),
    "whatsapp": (META, {"httpx"}, {"whatsapp", "meta"}),
    "wechat": (
        {"APP_ID": "a", "APP_SECRET": "b", "TOKENS__0": "c", "AES_KEYS__0": "d" * 43},
        {"httpx", "cryptography.hazmat", "defusedxml"},
        {"wechat"},
    ),
    "webhooks__app_reviews": ({"SECRETS__0": "a", "FIELDS": "{sender: b, text: c}"}, set(), {"webhook"}),
}


@pytest.mark.parametrize("channel", ALONE)
def test_a_channel_that_is_on_loads_its_own_libraries_and_no_others(channel: str) -> None:
    given, libraries, files = ALONE[channel]
    found, modules = loaded(
        **{f"{channel.upper()}__{name}": value for name, value in {"ENABLED": "true", **given}.items()}
    )
    assert found == libraries
    assert {each.removeprefix("channels.").partition("_")[0] for each in modules} == files
