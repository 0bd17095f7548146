"""The house stands as it was drawn: imports point one way.

The words (`domain`) know nobody. The edges are deaf to each other: a channel knows neither the tagger nor the tables,
the tagger neither channel nor table, the tables neither of them; so each can be read, tested and replaced alone. The
router stands in the middle and knows all three. The web speaks HTTP and comes last, and only the programs of the root
know everything. An import that points another way is a short cut that somebody pays for later; it fails here.
"""

from __future__ import annotations

import ast
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
    "demo_day": {*FOLDERS, "settings", "app", "domain"},
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


def test_starting_loads_nothing_heavy_that_the_settings_do_not_ask_for() -> None:
    code = "import sys, app, serve; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {
        "aiogram", "twilio", "sklearn", "scipy", "matplotlib", "alembic", "aioimaplib", "aiosmtplib", "playwright",
        "httpx", "pybreaker", "phonenumbers", "stdnum",
    }  # fmt: skip
    assert heavy & set(done.stdout.split()) == set()
