"""A real Rasa server with a small model, trained on a part of nlu/data. Needs `scripts/rasa.sh install`.

`python -m tests.rasa_server` writes down what it answers: tests/rasa_answers.json, for tests without a server.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.server_base import HOST, Server, ServerError

ROOT = Path(__file__).parents[1]
RASA = ROOT / ".venv-rasa" / "bin" / "rasa"
CONFIG = ROOT / "nlu" / "rasa_config.yml"
DATA = ROOT / "nlu" / "data"
ANSWERS = Path(__file__).with_name("rasa_answers.json")
#: examples of each intent, by folder
PART = {"zh": 15, "en": 15, "mixed": 5}
TEXTS = (
    "我的理赔到哪一步了，都两个星期了",
    "怎么还没给我开发票",
    "where is my claim? it has been two weeks",
    "please cancel my policy and refund the rest",
    "what is the capital of France",
    "/praise@0.99",
)


class RasaServer(Server):
    """Trains where it has no model yet, then serves it."""

    name = "rasa"
    #: its environment is the user's own
    unprivileged = False
    started_within = 180.0
    #: what it learns by
    config = CONFIG
    #: training takes all cores for a minute
    niceness = 10

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def prepare(self) -> None:
        if not RASA.exists():
            raise ServerError("Rasa is not installed: run scripts/rasa.sh install")
        if (self.dir / "small.tar.gz").exists():
            return
        self.write(self.dir / "data")
        names = ["--config", str(self.config), "--nlu", "data", "--out", ".", "--fixed-model-name", "small"]
        done = subprocess.run(
            [*self._quiet(), str(RASA), "train", "nlu", *names], check=False, capture_output=True, cwd=self.dir
        )
        if done.returncode:
            raise ServerError(f"rasa train: {done.stderr[-4000:].decode(errors='replace')}")

    def write(self, folder: Path) -> None:
        """What it learns from."""
        write_part(folder)

    def command(self) -> list[str]:
        where = ["--interface", HOST, "--port", str(self.port)]
        return [*self._quiet(), str(RASA), "run", "--enable-api", "--model", str(self.dir / "small.tar.gz"), *where]

    def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/status", timeout=5).status_code == 200
        return False

    def _quiet(self) -> list[str]:
        """It tells Rasa's maker about each training unless told not to."""
        return ["nice", "-n", str(self.niceness), "env", "RASA_TELEMETRY_ENABLED=false"]


def write_part(folder: Path) -> None:
    """The first examples of each intent, untouched, metadata and all."""
    for language, most in PART.items():
        for path in sorted((DATA / language).glob("*.yml")):
            content = yaml.safe_load(path.read_text("utf-8"))
            taken: Counter[str] = Counter()
            for item in content["nlu"]:
                item["examples"] = item["examples"][: max(most - taken[item["intent"]], 0)]
                taken[item["intent"]] += len(item["examples"])
            content["nlu"] = [item for item in content["nlu"] if item["examples"]]
            target = folder / language / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), "utf-8")


def answers(url: str) -> dict[str, Any]:
    """What a server says of itself and of the texts."""
    with httpx.Client(base_url=url, timeout=10) as client:
        return {
            "version": client.get("/version").json(),
            "status": client.get("/status").json(),
            "parse": {text: client.post("/model/parse", json={"text": text}).json() for text in TEXTS},
            "without_text": client.post("/model/parse", json={"words": "hello"}).json(),
        }


if __name__ == "__main__":
    with RasaServer() as server:
        found = answers(server.url)
    ANSWERS.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
