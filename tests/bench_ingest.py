"""(a) Mails to routed tickets, and (e) the same in a large database.

Run as a module it is the measured process: it ingests a folder and prints what that took, without the start.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import app
import settings
from channels import replay
from domain import Incoming
from router import ingest
from tests import bench_corpus
from tests.bench_tools import Row, World, disk, fresh_world, one_core

RUNS = 3


def measured(folder: Path) -> dict[str, Any]:
    """Ingest a folder in this process: seconds and CPU seconds from its first message to the last one's end."""
    given = settings.load()
    app.configure_logging(given, sys.stderr)
    built = app.build(given, roles=("worker",), serving=False)
    app.settle_memory()  # as the command does
    files, _ignored = replay.find([folder])

    def items() -> Iterator[Incoming]:
        for file in files:
            for kind, raw in replay.raw_items(file):
                yield replay.parse(kind, raw, given.mail.domains)

    async def go() -> tuple[dict[str, int], float, float]:
        try:
            began, cpu = time.perf_counter(), time.process_time()
            summary = await ingest.ingest(built.flow, built.database, items())
            return summary.as_dict(), time.perf_counter() - began, time.process_time() - cpu
        finally:
            await built.close()

    summary, seconds, cpu = asyncio.run(go())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"summary": summary, "seconds": seconds, "cpu": cpu, "peak_mb": peak}


def check(summary: dict[str, int], world: World) -> None:
    """A fast wrong answer is none: every mail is one ticket, and no redelivery is another."""
    expected = {"read": bench_corpus.MAILS + bench_corpus.AGAIN, "duplicates": bench_corpus.AGAIN}
    expected |= {"accepted": bench_corpus.MAILS, "ticketed": bench_corpus.MAILS}
    wrong = {name: summary[name] for name, value in expected.items() if summary[name] != value}
    if wrong or world.backlog():
        raise RuntimeError(f"wrong counts: {wrong}, backlog {world.backlog()}")


def part_a() -> Iterator[Row]:
    inside: list[dict[str, Any]] = []
    whole: list[float] = []
    mails = bench_corpus.mails("a")
    size = statistics.mean(map(len, mails)) / 1000
    for run in range(RUNS + 1):
        with fresh_world() as world:
            folder = bench_corpus.write_mails(world.folder / "mails", mails)
            with one_core():
                found = world.child("tests.bench_ingest", str(folder))
            check(found["summary"], world)
        with fresh_world() as world:
            folder = bench_corpus.write_mails(world.folder / "mails", mails)
            with one_core():
                began = time.perf_counter()
                summary = json.loads(world.command("ingest", str(folder)))
                took = time.perf_counter() - began
            check(summary, world)
        if run:  # the first one compiles and fills caches
            inside.append(found)
            whole.append(took)
    count = len(mails)
    seconds = statistics.median(each["seconds"] for each in inside)
    cpu = statistics.median(each["cpu"] for each in inside)
    yield Row(
        "a", f"{count} mails of {size:.1f} kB to tickets, first to last", f"{count / seconds:,.0f} msg/s", "1,000"
    )
    yield Row("a", "CPU a message", f"{cpu / count * 1000:.2f} ms")
    yield Row("a", "the whole command, start included", f"{count / statistics.median(whole):,.0f} msg/s")
    yield Row("a", "runs", ", ".join(f"{count / each['seconds']:,.0f}" for each in inside))
    yield Row("a", "the disk", disk())


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]))))
