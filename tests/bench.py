"""The benchmarks: `python -m tests.bench [a b c d e f hooks]`. docs/benchmarks.md says what each measures, and how."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator

from tests import bench_api, bench_big, bench_ingest, bench_workers
from tests.bench_tools import CORE, Row, disk, fdatasync_p50, may_use_real_time


def part_hooks() -> Iterator[Row]:
    """What signs for eight providers takes seconds to import, which the others need not wait for."""
    from tests import bench_hooks

    yield from bench_hooks.part_hooks()


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "a": bench_ingest.part_a,
    "b": bench_api.part_b,
    "c": bench_api.part_c,
    "d": bench_workers.part_d,
    "e": bench_big.part_e,
    "f": bench_api.part_f,
    "hooks": part_hooks,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"unknown: {' '.join(unknown)}; known: {' '.join(PARTS)}", file=sys.stderr)
        return 2
    real_time = "real-time priority" if may_use_real_time() else "NO real-time priority (not permitted)"
    print(f"Python {platform.python_version()}, all on core {CORE} except d, {real_time}")
    print(f"{disk()}, append {fdatasync_p50(append=True):.2f} ms\n")
    print(f"{'':2} {'what':58} {'figure':>34} {'aim':>8}")
    began = time.perf_counter()
    for name in names or PARTS:
        for row in PARTS[name]():
            print(f"{row.part:2} {row.what:58} {row.figure:>34} {row.aim:>8}", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
