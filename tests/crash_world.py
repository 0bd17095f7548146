"""A world that is struck with `kill -9` under load: its processes, the customers who write to it, and the count."""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import sqlalchemy as sa

from domain import InState, OutState
from storage.database import Database
from storage.tables import Message, Outbox, Sighting, table
from tests.processes import Deployment, SluiceProcess, until
from tests.servers import Dovecot
from tests.smtp_sink import SmtpSink

TEXTS = (
    "What is the status of my claim? I reported the accident two weeks ago.",
    "I need an invoice for the premium that I paid in March.",
    "我忘记了密码，登录不了账号。",
    "请问退保能退多少钱？",
)
message, outbox, sighting = table(Message), table(Outbox), table(Sighting)


class World:
    """Processes by what they do; with all roles in one process, all three names mean that one."""

    def __init__(
        self, deployment: Deployment, processes: Mapping[str, SluiceProcess], sink: SmtpSink, dovecot: Dovecot
    ) -> None:
        self.deployment, self.processes, self.sink, self.dovecot = deployment, processes, sink, dovecot
        self.address = deployment.settings["SLUICE_MAIL__FROM_ADDRESS"]
        self.database = Database(deployment.database_url)
        self.strikes: Counter[str] = Counter()

    def url(self, path: str) -> str:
        return f"{self.processes['web'].url}/api/v1/{path}"

    def ask(self, query: sa.Select[Any]) -> Any:
        with self.database.reading() as connection:
            return connection.scalar(query)

    def revive(self, name: str, aim: str) -> None:
        """After a strike: start what was killed again."""
        process = self.processes[name]
        until(process.dead, f"{name} is dead")
        process.kill()
        self.strikes[aim] += 1
        process.start()

    def ended(self) -> int:
        """How many messages came to an end."""
        query = sa.select(sa.func.count()).where(message.c.direction == "in", message.c.state != InState.RECEIVED.value)
        return int(self.ask(query))

    def newest(self, column: sa.Column[int], *where: sa.ColumnElement[bool]) -> int:
        return int(self.ask(sa.select(sa.func.max(column)).where(*where)) or 0)

    def settled(self) -> bool:
        """Every message came to an end, and every answer went out or is given up."""
        on_its_way = sa.or_(outbox.c.state == OutState.QUEUED.value, outbox.c.state == OutState.SENDING.value)
        received = sa.select(sa.func.count()).where(message.c.state == InState.RECEIVED.value)
        return not self.ask(received) and not self.ask(sa.select(sa.func.count()).where(on_its_way))


class Load:
    """Customers who post and mail, and an agent who answers. Whatever got no answer is sent again under the same id."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.headers = {"Authorization": f"Bearer {world.deployment.token('customers', 'admin')}"}
        #: external id -> message id, once the answer to a post arrived
        self.accepted: dict[str, str] = {}
        self.mails: list[str] = []
        #: ticket number -> the agent's answer
        self.answers: dict[str, str] = {}
        self.redelivered = 0
        self.faults: list[str] = []
        #: posts without an answer yet, and answered ones that are posted once more
        self.again: deque[str] = deque()
        self._stop = threading.Event()
        self._given_up = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Until the end of the block, and then until nothing waits for an answer any more."""
        threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in (self._post, self._post, self._mail, self._answer)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        except BaseException:
            self._given_up.set()
            raise
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)
        if any(thread.is_alive() for thread in threads):
            self.faults.append("some posts found no answer")

    def _guarded(self, work: Callable[[httpx.Client], None]) -> None:
        try:
            with httpx.Client(timeout=5, headers=self.headers) as client:
                work(client)
        except Exception as error:
            self.faults.append(repr(error))

    # --- posts --------------------------------------------------------------------------------------------------------

    def body(self, name: str) -> dict[str, str]:
        text = TEXTS[hash(name) % len(TEXTS)]
        return {"external_id": name, "sender": f"{name}@customer.test", "text": f"{text} ({name})"}

    def post(self, client: httpx.Client, name: str) -> bool:
        """Whether it was acknowledged; if not, it waits to be posted again."""
        try:
            answer = client.post(self.world.url("messages"), json=self.body(name))
        except httpx.TransportError:
            self.again.append(name)
            return False
        if answer.status_code == 503:
            self.again.append(name)
            return False
        if answer.status_code not in (200, 202):
            self.faults.append(f"{name}: {answer.status_code} {answer.text}")
            return False
        given = answer.json()["message_id"]
        known = self.accepted.setdefault(name, given)
        if known != given:
            self.faults.append(f"{name} was message {known} and became {given}")
        return True

    def _post(self, client: httpx.Client) -> None:
        thread, number = threading.get_ident(), 0
        while (self.again or not self._stop.is_set()) and not self._given_up.is_set():
            try:
                name = self.again.popleft()
            except IndexError:
                number += 1
                name = f"p{thread % 9973}-{number}"
            if name in self.accepted:
                self.redelivered += 1
            if self.post(client, name):
                if self.random.random() < 0.2 and not self._stop.is_set():
                    self.again.append(name)
                self._stop.wait(0.03)
            else:
                self._given_up.wait(0.05)

    # --- mails --------------------------------------------------------------------------------------------------------

    def _mail(self, client: httpx.Client) -> None:
        del client
        deliver = self.world.dovecot.deliver
        while not self._stop.wait(0.1):
            number = len(self.mails) + 1
            name = f"m{number}@customer{number % 17}.test"
            mail = (
                f"From: Customer {number} <{name}>\r\nTo: {self.world.address}\r\nSubject: Question {number}\r\n"
                f"Message-ID: <{name}>\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
                f"Content-Type: text/plain; charset=utf-8\r\n\r\n{TEXTS[number % len(TEXTS)]}\r\n"
            ).encode()
            twice = self.random.random() < 0.25
            self.redelivered += twice
            deliver(self.world.address, *[mail] * (1 + twice))
            self.mails.append(name)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, client: httpx.Client) -> None:
        passed: set[str] = set()
        while not self._stop.wait(0.2):
            try:
                found = client.get(self.world.url("tickets"), params={"state": "new", "limit": 100}).json()["items"]
            except (httpx.TransportError, KeyError):
                continue
            for ticket in found:
                number = ticket["number"]
                if ticket["channel"] != "mail" or number in passed:
                    continue
                passed.add(number)
                if self.random.random() < 0.6:
                    self.answers[number] = f"This is the answer to {number}."
                    self._reply(client, number)

    def _reply(self, client: httpx.Client, number: str) -> None:
        while not self._given_up.wait(0.05):
            try:
                answer = client.post(
                    self.world.url(f"tickets/{number}/reply"),
                    json={"text": self.answers[number]},
                    headers={"Idempotency-Key": number},
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200:
                return
            if answer is not None and answer.status_code != 503:
                self.faults.append(f"reply to {number}: {answer.status_code} {answer.text}")
                return
            self.redelivered += 1


@dataclass
class Count:
    """What became of everything. `problems` names whatever breaks a promise."""

    posts: int = 0
    mails: int = 0
    redelivered: int = 0
    tickets: int = 0
    tickets_lost: int = 0
    tickets_doubled: int = 0
    receipts_arrived: int = 0
    receipts_doubled: int = 0
    receipts_missing: int = 0
    receipts_unknown: int = 0
    answers: int = 0
    answers_lost: int = 0
    answers_unknown: int = 0
    answers_repeated: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in vars(self).items() if name != "problems"
        )


def count(world: World, load: Load) -> Count:
    """From the exports and the mailbox alone."""
    tickets = {each["number"]: each for each in world.deployment.export("tickets")}
    rows = world.deployment.export("messages")
    made = Count(len(load.accepted), len(load.mails), load.redelivered, len(tickets), answers=len(load.answers))
    made.problems += load.faults
    _count_tickets(made, load, tickets, [row for row in rows if row["direction"] == "in"])
    out = [row for row in rows if row["direction"] == "out"]
    repeated = {row["ticket"] for row in world.deployment.export("events") if row["kind"] == "repeated"}
    _count_mailbox(made, load, world.sink, tickets, out, repeated)
    return made


def _count_tickets(made: Count, load: Load, tickets: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    wanted = set(load.accepted) | set(load.mails)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        # a mail's id is its Message-ID and a digest of the mail
        name = row["external_id"] if row["channel"] == "api" else row["external_id"].rpartition(":")[0]
        found.setdefault(name, []).append(row)
    for name in wanted:
        each = found.get(name, [])
        good = [row for row in each if row["state"] == InState.TICKETED.value and row["ticket"] in tickets]
        made.tickets_lost += not good
        made.tickets_doubled += max(0, len(each) - 1)
        if len(good) != 1 or len(each) != 1:
            made.problems.append(f"{name}: {each}")
    used = Counter(row["ticket"] for row in rows)
    if strange := set(found) - wanted:
        made.problems.append(f"nobody sent these: {sorted(strange)[:5]}")
    if set(used) != set(tickets) or max(used.values()) > 1:
        made.tickets_doubled += len(set(tickets) - set(used))
        made.problems.append("tickets and messages are not one to one")


def _count_mailbox(
    made: Count,
    load: Load,
    sink: SmtpSink,
    tickets: Mapping[str, Any],
    out: list[dict[str, Any]],
    repeated: set[str],
) -> None:
    by_mail = [number for number, ticket in tickets.items() if ticket["channel"] == "mail"]
    states = {(row["ticket"], row["kind"]): row["state"] for row in out if row["channel"] == "mail"}
    if len(states) != sum(row["channel"] == "mail" for row in out):
        made.problems.append("a ticket has two outgoing rows of one kind")
    receipts: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    for mail in sink.arrived:
        number = str(mail["Subject"]).rpartition("[")[2].rstrip("]")
        if mail["Auto-Submitted"]:
            receipts[number] += 1
            keys[str(mail["Message-ID"])] += 1
        elif load.answers.get(number) == mail.get_content().strip():
            answers[number] += 1
        else:
            made.problems.append(f"a strange mail arrived: {mail['Subject']}")
    made.receipts_arrived = sum(receipts.values())
    made.receipts_doubled = sum(n - 1 for n in receipts.values()) + sum(n - 1 for n in keys.values())
    made.receipts_unknown = sum(
        state == "unknown" for (_number, kind), state in states.items() if kind == "acknowledgement"
    )
    for number in by_mail:
        if not receipts[number]:
            made.receipts_missing += 1
            if states.get((number, "acknowledgement")) != "unknown":
                made.problems.append(f"{number}: no receipt, and it is {states.get((number, 'acknowledgement'))}")
    for number in load.answers:
        state = states.get((number, "reply"))
        made.answers_unknown += state == "unknown"
        made.answers_repeated += number in repeated
        if not answers[number] and state != "unknown":
            made.answers_lost += 1
            made.problems.append(f"{number}: the answer did not arrive, and it is {state}")
        if answers[number] > 2 or (answers[number] == 2 and number not in repeated):
            made.problems.append(
                f"{number}: the answer arrived {answers[number]} times; repeated: {number in repeated}"
            )
