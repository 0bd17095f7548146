"""The tables of the contract: which adapter passed which check, collected from the tests that made them.

A test says where its result belongs by `cell(record_property, ...)`; the tables are printed at the end of each run, and

    python -m tests.contract > docs/channels/contract.md

runs the contract and the faults and writes them down.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from typing import cast

import pytest

import tests.samples
from tests.samples import Samples

Property = Callable[[str, object], None]
#: table -> row -> column -> what stands there
Tables = dict[str, dict[str, dict[str, str]]]

TABLES: Tables = {}
GOOD, NONE = "yes", "-"
_CELL = "cell"


def adapters() -> list[str]:
    """The channels that have samples."""
    return sorted(each.name for each in pkgutil.iter_modules(tests.samples.__path__))


def samples_of(adapter: str) -> Samples:
    """Made afresh: what is signed with a time is of now."""
    made: Samples = importlib.import_module(f"tests.samples.{adapter}").samples()
    return made


def cell(note: Property, table: str, row: str, column: str, text: str = GOOD) -> None:
    """Where this test's result belongs. The last word on a cell counts; a failure beats all."""
    note(_CELL, (table, row, column, text))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        return
    for name, value in report.user_properties:
        if name == _CELL:
            table, row, column, text = cast(tuple[str, str, str, str], value)
            cells = TABLES.setdefault(table, {}).setdefault(row, {})
            if report.failed:
                cells[column] = "NO"
            elif cells.get(column) != "NO" and report.when == "call":
                cells[column] = text


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in written(TABLES):
        terminalreporter.write_line(line)


def written(tables: Tables) -> Iterator[str]:
    """The tables in Markdown."""
    for title, rows in sorted(tables.items()):
        columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
        lines = [["", *columns], *([row, *(cells.get(each, NONE) for each in columns)] for row, cells in rows.items())]
        widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
        lines.insert(1, ["-" * width for width in widths])
        yield from ("", f"## {title}", "")
        for line in lines:
            yield f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |"


_TESTS = [f"tests/test_channel_{name}.py" for name in ("contract", "doors", "faults", "fuzz")]
_HEAD = """# What every channel was put to

Made by `python -m tests.contract`, which runs `tests/test_channel_contract.py`, `..._doors.py`, `..._faults.py` and
`..._fuzz.py` on both databases. "yes" = it was tried and holds; "-" = the channel has no such thing; "NO" = it failed.

In the table of faults on the way out, "sent twice (shown)" is a person's answer whose fate nobody can know: it goes out
once more, and the console says so. What the bot says by itself is never said twice; it stays "unknown". The table of
fuzzing counts the requests of this run; `--hypothesis-profile long` makes them 20,000 for each webhook."""


def main(options: list[str]) -> int:
    with contextlib.redirect_stdout(sys.stderr):
        status = pytest.main(["-q", "-p", "no:cacheprovider", *options, *_TESTS])
    # Pytest collects in a module of its own, which is not this `__main__`.
    print("\n".join([_HEAD, *written(sys.modules["tests.contract"].TABLES)]))
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
