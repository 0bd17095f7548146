"""The load client of (hooks): `python -m tests.bench_hooks_client PORT RATE SECONDS`, whole requests pickled on stdin.

It signs nothing itself, so that neither a provider's library nor its own work stands between a request and its answer.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Sequence
from typing import Any

import uvloop

from tests.bench_load import Load, run


class Whole(Load):
    """Sends each of the requests once, in order."""

    def __init__(self, requests: Sequence[bytes], rate: float, seconds: float) -> None:
        super().__init__("", "", rate, seconds)
        self._requests = requests

    def request(self) -> bytes:
        whole = self._requests[self.issued]
        self.issued += 1
        return whole


def main(port: str, rate: str, seconds: str) -> dict[str, Any]:
    load = Whole(pickle.load(sys.stdin.buffer), float(rate), float(seconds))
    found = uvloop.run(run(int(port), load))
    return found | {"sent": len(load.took), "max_ms": max(load.took, default=0.0) * 1000}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
