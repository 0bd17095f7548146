"""Sluice's door: the commands. `python bot.py --help` lists them.

Exit status: 0 done, 1 the work failed (one clear line on stderr), 2 used wrongly.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

import bot_models
from bot_tools import Door, fail, load, world
from domain import Role, UsageError
from settings import Settings

LINK_LASTS = timedelta(hours=24)


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Sluice: a customer's message becomes a routed, tracked ticket, and the answer goes back."""


def checked_name(name: str) -> str:
    """A name as it may stand in the trail and in a sign-in form. Raises `UsageError`."""
    if not (name == name.strip() and name.isprintable() and 1 <= len(name) <= 64):
        raise UsageError("A name has 1 to 64 characters, none of them invisible.")
    return name


# --- running ----------------------------------------------------------------------------------------------------------


@main.command()
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(["all", "web", "worker", "listen", "clock"]),
    help="What this process does; may be given several times. Default: all.",
)
def run(roles: tuple[str, ...]) -> None:
    """Start Sluice: all roles in one process, or some of them."""
    import app

    settings = load(serving=True)
    chosen = app.ROLES if not roles or "all" in roles else tuple(dict.fromkeys(roles))
    serve(settings, chosen)


def serve(
    settings: Settings, roles: tuple[str, ...], *, greeting: Iterable[str] = (), pretended: Collection[str] = ()
) -> None:
    import uvloop

    import app
    import serve as serving
    from storage.database import Database

    database = Database(settings.database_url)
    try:
        app.ready_schema(settings, database)
    finally:
        database.close()
    listener = serving.bound(settings.web) if "web" in roles else None
    if listener is not None:
        # Port 0 is any free one: from here on its number is known, which the links to customers need.
        port = listener.getsockname()[1]
        settings = settings.model_copy(update={"web": settings.web.model_copy(update={"port": port})})
    built = app.build(settings, roles=roles, pretended=pretended)

    async def started(url: str) -> None:
        click.echo(f"Sluice is at {url}")
        base = settings.web.public_url.rstrip("/") or url
        for line in greeting:
            click.echo(line.format(url=base))
        if link := await built.database.write(first_link):
            click.echo(f"Nobody can sign in yet. Make the first account within a day: {base}/console/link/{link}")
        sys.stdout.flush()

    async def go() -> None:
        await serving.run(built, listener, started=started)

    uvloop.run(go())


def first_link(connection: Any) -> str | None:
    """A one-time sign-in link's secret in a world without users."""
    from storage import people

    if people.any_at_all(connection):
        return None
    return people.make_link(connection, None, datetime.now(UTC), LINK_LASTS)


@main.command()
@click.option("--fresh", is_flag=True, help="Throw the last demo away first.")
@click.option("--no-run", is_flag=True, help="Only make the demo's world.")
def demo(fresh: bool, no_run: bool) -> None:
    """Start in <state_dir>/demo with a simulated day, never in the real world."""
    import demo_day

    settings = load(serving=True)
    folder = settings.state_dir / "demo"
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    own = demo_day.settings_of(settings, folder)
    logins = asyncio.run(demo_day.make(own))
    lines = ["This is a demo: every customer in it is simulated."]
    lines += [f"  {role}: {{url}}/console/link/{secret}" for role, secret in logins]
    if not no_run:
        serve(own, ("web", "worker", "clock"), greeting=lines, pretended=demo_day.PRETENDED)


# --- messages ---------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def ingest(paths: tuple[Path, ...]) -> None:
    """Read mails and JSON lines from files and folders, as if they came in now."""
    from tqdm import tqdm

    import app
    from channels import replay
    from router import ingest as ingesting

    settings = load()
    found, ignored = replay.find(paths)
    for path in ignored:
        click.echo(f"not read: {path}", err=True)
    with world(settings):
        pass
    built = app.build(settings, roles=("worker",), serving=False)
    app.settle_memory()
    domains = settings.mail.domains

    def items() -> Iterator[Any]:
        for file in found:
            try:
                for kind, raw in replay.raw_items(file):
                    yield replay.parse(kind, raw, domains)
            except OSError as error:
                unread.append(file.path)
                click.echo(f"could not be read: {file.path}: {error.strerror}", err=True)

    async def go() -> Any:
        try:
            with tqdm(desc="ingest", unit="msg", disable=None) as bar:
                return await ingesting.ingest(built.flow, built.database, items(), progress=bar.update)
        finally:
            await built.close()

    unread: list[Path] = []
    summary = asyncio.run(go())
    click.echo(json.dumps(summary.as_dict()))
    if unread:
        fail(f"{len(unread)} files could not be read", 1)


# --- the model --------------------------------------------------------------------------------------------------------

for _command in (bot_models.classify, bot_models.train, bot_models.evaluate, bot_models.models, bot_models.encoder):
    main.add_command(_command)


# --- keeping it -------------------------------------------------------------------------------------------------------


@main.command()
def check() -> None:
    """Try each setting, channel and server, and say what works and what to do about the rest."""
    import checks

    settings = load()
    lines = asyncio.run(checks.check(settings))
    for line in lines:
        click.echo(str(line))
    if any(not line.ok for line in lines):
        fail(f"{sum(not line.ok for line in lines)} of {len(lines)} checks failed", 1)


@main.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    from storage import schema
    from storage.database import Database

    settings = load()
    database = Database(settings.database_url)
    try:
        before, after = schema.migrate(database)
    finally:
        database.close()
    click.echo(
        f"The schema is {after}." if before == after else f"The schema went from {before or 'nothing'} to {after}."
    )


@main.command()
@click.argument("what", type=click.Choice(["tickets", "messages", "events"]))
@click.option("--jsonl", is_flag=True, help="JSON lines, which is the only form.")
def export(what: str, jsonl: bool) -> None:
    """Write all tickets, messages or events to stdout."""
    from storage import counts, tickets

    del jsonl
    settings = load()
    sources = {"tickets": tickets.export, "messages": counts.export_messages, "events": counts.export_events}
    with world(settings) as database, database.reading() as connection:
        for row in sources[what](connection):
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@main.command()
@click.argument("customer")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(customer: str, yes: bool) -> None:
    """Remove all words and addresses of a customer (an address, or a customer's id). It cannot be undone."""
    from storage import customers
    from storage import erase as erasing

    settings = load()
    with world(settings) as database:
        with database.reading() as connection:
            ids = customers.named(connection, customer)
        if not ids:
            fail("no customer has this address or id", 1)
        if len(ids) > 1:
            fail(f"several customers have this address; name one by id: {', '.join(map(str, ids))}", 1)
        if sys.stdin.isatty() and not yes:
            click.confirm(f"Erase customer {ids[0]} for ever?", abort=True)
        erased = database.submit(
            partial(erasing.customer, customer_id=ids[0], now=datetime.now(UTC), actor="command")
        ).result()
        erasing.compact(database)
    click.echo(json.dumps(erased))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Write a consistent copy of the running world to FILE."""
    from storage import backup as backups

    settings = load()
    with world(settings) as database:
        size = backups.backup(database, settings.state_dir, file)
    click.echo(f"{file}: {size} bytes")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def restore(file: Path) -> None:
    """Fill an empty world from a backup."""
    from storage import backup as backups
    from storage.database import Database

    settings = load()
    database = Database(settings.database_url)
    try:
        manifest = backups.restore(database, settings.state_dir, file)
    finally:
        database.close()
    with world(settings):
        pass
    click.echo(f"Restored the world of {manifest['at']}.")


# --- people and programs ----------------------------------------------------------------------------------------------


@main.group()
def user() -> None:
    """People who sign in to the console."""


@user.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["agent", "supervisor", "admin"]), required=True)
@click.option("--department", "departments", multiple=True, help="May be given several times.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin; else a one-time link is printed.")
def user_add(name: str, role: str, departments: tuple[str, ...], password_stdin: bool) -> None:
    """Add a person."""
    from storage import people
    from web import passwords

    settings = load()
    checked_name(name)
    for department in departments:
        if department not in settings.departments:
            raise UsageError(f"There is no department {department!r}. Known: {', '.join(settings.departments)}.")
    hashed = passwords.hashed(sys.stdin.readline().rstrip("\r\n")) if password_stdin else ""
    now = datetime.now(UTC)

    def unit(connection: Any) -> str | None:
        person_id = people.add(connection, name, Role(role), departments, hashed, now)
        return None if hashed else people.make_link(connection, person_id, now, LINK_LASTS)

    with world(settings) as database:
        link = database.submit(unit).result()
    click.echo(f"{name} can sign in." if link is None else f"{settings.public_url}/console/link/{link}")


@user.command("link")
@click.argument("name")
def user_link(name: str) -> None:
    """Print a one-time sign-in link, also for who forgot the password: a new one can be set there."""
    from storage import people

    settings = load()
    now = datetime.now(UTC)
    with world(settings) as database:
        link = database.submit(
            lambda connection: people.make_link(connection, people.named(connection, name).id, now, LINK_LASTS)
        ).result()
    click.echo(f"{settings.public_url}/console/link/{link}")


@user.command("remove")
@click.argument("name")
def user_remove(name: str) -> None:
    """Take a person's access away at once. What they did stays in the trail, their tickets stay theirs."""
    from storage import people

    settings = load()
    with world(settings) as database:
        database.submit(lambda connection: people.remove(connection, name)).result()
    click.echo(f"{name} can no longer sign in.")


@main.group()
def token() -> None:
    """Keys for programs that use the API."""


@token.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
def token_add(name: str, role: str) -> None:
    """Make a token; it is printed once, alone on the last line."""
    from storage import people

    settings = load()
    checked_name(name)
    with world(settings) as database:
        secret = database.submit(lambda connection: people.add_token(connection, name, Role(role), datetime.now(UTC)))
        click.echo(secret.result())


@token.command("remove")
@click.argument("name")
def token_remove(name: str) -> None:
    """Take a token away; it stops within seconds."""
    from storage import people

    settings = load()
    with world(settings) as database:
        database.submit(lambda connection: people.remove_token(connection, name)).result()
    click.echo(f"{name} is gone.")


if __name__ == "__main__":
    main()
