"""Text in, tags out. Knows `domain` and nothing else of ours.

The port is `Tagger`. `nlu.embedded` fills it in the process itself, with numpy alone; `nlu.rasa` by a Rasa server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain import Tags
from nlu.certificate import Certificate


@dataclass(frozen=True, slots=True)
class Text:
    """What the tagger reads of a message."""

    text: str
    subject: str = ""
    channel: str = ""


class Tagger(Protocol):
    """Says what texts are about."""

    @property
    def version(self) -> str: ...

    @property
    def certificates(self) -> Mapping[str, Certificate]:
        """By language. A language that is not here is never routed without a person."""
        ...

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        """One `Tags` for each text, in order. Never raises because of what a text holds."""
        ...
