"""The files that a training wrote as one value, for the database: `model.npz` and what lies beside it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from domain import SettingsError

#: the file that is loaded; it finds by itself what lies beside it
MAIN = "model.npz"


def packed(folder: Path) -> bytes:
    """All files of a folder; the same bytes for the same files."""
    buffer = io.BytesIO()
    # Weights are as good as random: to deflate them takes long and saves little.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return buffer.getvalue()


def unpacked(content: bytes, folder: Path) -> Path:
    """Write the files into a folder; the path of `MAIN`. Raises `SettingsError` for what `packed` did not make."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SettingsError(f"The stored model cannot be read: {error}") from error
    return folder / MAIN
