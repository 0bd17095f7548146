"""Where the web's own files lie."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"
TEMPLATES = FOLDER / "templates"
LOCALE = FOLDER / "locale"
