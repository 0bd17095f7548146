"""Files that visitors send: what they are is read from their first bytes, never from their name."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Protocol

from domain import Attachment, InvalidInput

#: (offset, bytes) -> media type and extension; all parts of a signature must stand there
_SIGNATURES: tuple[tuple[tuple[tuple[int, bytes], ...], str, str], ...] = (
    (((0, b"\xff\xd8\xff"),), "image/jpeg", "jpg"),
    (((0, b"\x89PNG\r\n\x1a\n"),), "image/png", "png"),
    (((0, b"GIF87a"),), "image/gif", "gif"),
    (((0, b"GIF89a"),), "image/gif", "gif"),
    (((0, b"RIFF"), (8, b"WEBP")), "image/webp", "webp"),
    (((4, b"ftypheic"),), "image/heic", "heic"),
    (((4, b"ftypheix"),), "image/heic", "heic"),
    (((4, b"ftypmif1"),), "image/heic", "heic"),
    (((4, b"ftypisom"),), "video/mp4", "mp4"),
    (((4, b"ftypmp42"),), "video/mp4", "mp4"),
    (((4, b"ftypqt  "),), "video/quicktime", "mov"),
    (((0, b"%PDF-"),), "application/pdf", "pdf"),
)
#: what the file dialogue offers
ACCEPT = ".jpg,.jpeg,.png,.gif,.webp,.heic,.mp4,.mov,.pdf"

_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Scanner(Protocol):
    """Looks for malware before a file is stored."""

    async def scan(self, content: bytes, name: str) -> str:
        """What was found, by name; "" for a clean file. An exception refuses the file for now."""
        ...


def kind_of(content: bytes) -> tuple[str, str] | None:
    """Media type and extension by content; None for what we do not take."""
    for parts, media_type, extension in _SIGNATURES:
        if all(content[at : at + len(mark)] == mark for at, mark in parts):
            return media_type, extension
    return None


def attachment(name: str, content: bytes) -> Attachment:
    """The file as kept: its type and extension are those of its content. Raises `InvalidInput`."""
    if not content:
        raise InvalidInput("file", "empty")
    kind = kind_of(content)
    if kind is None:
        raise InvalidInput("file", "type")
    media_type, extension = kind
    # A browser may send a whole path; only the last part is a name.
    stem = PurePosixPath(PureWindowsPath(name).name).stem
    stem = _UNSAFE.sub("", stem).strip(". ")[:100] or "file"
    return Attachment(name=f"{stem}.{extension}", media_type=media_type, content=content)
