"""The embedded model in use: the promoted one of the database, else the shipped file. Workers follow a promotion."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from domain import SettingsError, SluiceError, Tags
from nlu import Tagger, Text
from nlu.bundle import unpacked
from nlu.certificate import Certificate
from storage import models
from storage.database import Database

#: seconds between two looks: within 10 s of a promotion no message is tagged by the model before it
LOOK_EVERY = 5.0

Load = Callable[[Path | None], Tagger]

log = structlog.get_logger("model")


def load_stored(content: bytes, load: Load) -> Tagger:
    """The tagger of a stored model. Raises `SettingsError`."""
    with tempfile.TemporaryDirectory(prefix="sluice-model-") as folder:
        return load(unpacked(content, Path(folder)))


class FollowingTagger:
    """`nlu.Tagger`. Looks for a promotion before it tags, so in the worker's thread and never on the event loop.

    What cannot be followed (the database is away, a stored model is broken) leaves the model as it is. Raises
    `SettingsError` where there is not even a shipped one.
    """

    def __init__(self, database: Database, load: Load) -> None:
        """`load`: a path -> its tagger, None -> the shipped one."""
        self._database, self._load = database, load
        self._lock = threading.Lock()
        self._wanted: str | None = None
        #: by the version that tagged: a message that was tagged before a promotion is routed by that model's threshold
        self._certificates: dict[str, Mapping[str, Certificate]] = {}
        self._tagger: Tagger | None = None
        #: why the promoted model is not in use, or ""
        self.problem = ""
        self._look()

    @property
    def current(self) -> Tagger:
        """What tags now."""
        if self._tagger is None:
            self._tagger = self._load(None)
            self._certificates[self._tagger.version] = self._tagger.certificates
        return self._tagger

    @property
    def version(self) -> str:
        return self.current.version

    @property
    def certificates(self) -> Mapping[str, Certificate]:
        return self.current.certificates

    def certificates_of(self, model: str) -> Mapping[str, Certificate]:
        """Those of the model that tagged a message; of one that this process does not know, those in use."""
        return self._certificates.get(model, self.certificates)

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        # While one thread takes over another model, the others go on with the one before.
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self.current.tag(texts)

    def _look(self) -> None:
        self._look_at = time.monotonic() + LOOK_EVERY
        try:
            with self._database.reading() as connection:
                wanted = models.in_use(connection)
                if wanted == self._wanted:
                    return
                content = None if wanted is None else models.content(connection, wanted)
        except (SluiceError, SQLAlchemyError) as error:
            log.warning("promotions_unknown", error=type(error).__name__)
            return
        # Also where it cannot be loaded: to fetch it again every few seconds would not mend it.
        self._wanted = wanted
        try:
            self._take(self._load(None) if content is None else load_stored(content, self._load))
        except SettingsError as error:
            self.problem = f"the promoted model {wanted} cannot be loaded: {error}"
            log.error("model_not_loaded", model=wanted, error=str(error))
            return
        log.info("model_in_use", model=self.version)

    def _take(self, tagger: Tagger) -> None:
        self._certificates[tagger.version] = tagger.certificates
        self._tagger, self.problem = tagger, ""
