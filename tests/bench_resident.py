"""What one tagger costs in a process of its own: `python -m tests.bench_resident MODEL EXAMPLES [ENCODER]` -> JSON.

ENCODER is a folder. Neither scikit-learn nor an HTTP client is loaded, so that the memory is what tagging takes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from domain import Language
from nlu import Tagger, Text
from nlu.data import read_folder
from nlu.embedded import EmbeddedTagger
from nlu.encoder import OnnxEncoder
from nlu.second_stage import SecondStageTagger
from tests.bench_tools import latencies, quantile, resident

_BATCH = 256
_TURNS = 3


def opened(model: Path, encoder: str = "") -> Tagger:
    """With the heads beside the model where there is an encoder, which knows English."""
    if encoder:
        return SecondStageTagger.load(model, OnnxEncoder(Path(encoder), [Language.EN]))
    return EmbeddedTagger.load(model)


def main(model: str, examples: str, encoder: str = "") -> dict[str, float]:
    """Milliseconds a message one by one, messages a second in batches as a worker takes them, and MB."""
    tag = opened(Path(model), encoder).tag
    texts = [Text(example.text) for example in read_folder(Path(examples))]
    took = latencies(lambda text: tag([text]), texts)
    began = time.perf_counter()
    for _ in range(_TURNS):
        for start in range(0, len(texts), _BATCH):
            tag(texts[start : start + _BATCH])
    rate = _TURNS * len(texts) / (time.perf_counter() - began)
    return {"p50": quantile(took, 0.5) * 1e3, "p99": quantile(took, 0.99) * 1e3, "rate": rate, "resident": resident()}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
