"""The console without script: who may do what, what each form does, and that typed text comes back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from domain import ticket_id_of
from settings import Settings
from storage import labels, people, tables, tickets
from storage.database import Database
from storage.types import AnyRow
from tests.console_world import BASE, PASSWORD, Console, both, make_console
from tests.worlds import make_world
from web.auth import local_path

pytest_plugins = ["tests.console_fixtures"]


async def _row(console: Console, number: str) -> AnyRow:
    ticket_id = ticket_id_of(number)
    assert ticket_id is not None
    return await console.world.database.read(lambda connection: tickets.get(connection, ticket_id))


# --- coming in --------------------------------------------------------------------------------------------------------


async def test_sign_in_gives_a_cookie_that_scripts_cannot_read(console: Console) -> None:
    browser = console.browser()
    wrong = await browser.client.post("/console/signin", data={"name": "li", "password": "wrong"})
    assert wrong.status_code == 401
    assert "Name or password is wrong" in wrong.text
    assert "set-cookie" not in wrong.headers
    right = await browser.client.post(
        "/console/signin", data={"name": "li", "password": PASSWORD, "next": "/console/q/mine"}
    )
    assert right.status_code == 303
    assert right.headers["location"] == "/console/q/mine"
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie  # this world is reached by http


async def test_the_cookie_is_secure_where_customers_come_by_https(console_url: str, settings: Settings) -> None:
    database = Database(console_url)
    console = await make_console(make_world(database, settings, public_url="https://desk.example"))
    answer = await console.browser().client.post("/console/signin", data={"name": "li", "password": PASSWORD})
    assert "; secure" in answer.headers["set-cookie"].lower()
    database.close()


@pytest.mark.parametrize(
    "path",
    ["//evil.example/console", "https://evil.example", "/\\evil.example", "/consoles", "console", "/console\n//x"],
)
def test_the_way_back_never_leaves_the_console(path: str) -> None:
    assert local_path(path) == "/console"


def test_the_way_back_keeps_the_place() -> None:
    assert local_path("/console/q/claims?view=due&page=2") == "/console/q/claims?view=due&page=2"


async def test_who_is_signed_out_is_led_to_the_sign_in(console: Console) -> None:
    browser = console.browser()
    answer = await browser.get("/console/q/claims?view=due")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/signin?next=/console/q/claims%3Fview%3Ddue"
    fragment = await browser.get("/console/rows?ids=S-123456", headers={"HX-Request": "true"})
    assert fragment.status_code == 401
    assert fragment.headers["x-sign-in"].startswith("/console/signin")
    stream = await browser.get("/console/events", headers={"Accept": "text/event-stream"})
    assert stream.status_code == 401


async def test_signing_out_ends_the_session(console: Console) -> None:
    browser = await console.signed_in("li")
    assert (await browser.post("/console/signout")).headers["location"] == "/console/signin"
    cookie = browser.client.cookies
    assert "sluice_session" not in cookie
    assert (await browser.get("/console/me")).status_code == 303


async def test_guessing_is_slowed_by_name_and_by_address(console: Console) -> None:
    allowed = console.web.settings.sign_ins_per_minute
    browser = console.browser()
    for _ in range(allowed):
        answer = await browser.client.post("/console/signin", data={"name": "li", "password": "guess"})
        assert answer.status_code == 401
    held = await browser.client.post("/console/signin", data={"name": "li", "password": PASSWORD})
    assert held.status_code == 429
    assert int(held.headers["retry-after"]) >= 1
    assert "Too many attempts" in held.text
    # Another name from the same address is held too, another address and name is not.
    same = await browser.client.post("/console/signin", data={"name": "sun", "password": PASSWORD})
    assert same.status_code == 429
    other = console.browser(client=("127.0.0.9", 1))
    assert (await other.client.post("/console/signin", data={"name": "zhao", "password": PASSWORD})).status_code == 303
    assert (await other.client.post("/console/signin", data={"name": "li", "password": PASSWORD})).status_code == 429


async def test_a_one_time_link_signs_in_once_and_looking_at_it_does_not_use_it(console: Console) -> None:
    now = datetime.now(UTC)
    secret = await console.world.database.write(lambda c: people.make_link(c, 1, now, timedelta(hours=1)))
    browser = console.browser()
    for _ in range(2):
        assert (await browser.get(f"/console/link/{secret}")).status_code == 200
    used = await browser.client.post(f"/console/link/{secret}")
    assert used.status_code == 303
    assert (await browser.get("/console/q/mine")).status_code == 200
    again = await console.browser().client.post(f"/console/link/{secret}")
    assert again.status_code == 403
    assert (await console.browser().get(f"/console/link/{secret}")).status_code == 403


async def test_the_first_link_founds_the_administrator(console: Console) -> None:
    database = console.world.database
    await database.write(lambda connection: connection.execute(sa.delete(tables.table(tables.Person))))
    now = datetime.now(UTC)
    secret = await database.write(lambda c: people.make_link(c, None, now, timedelta(hours=1)))
    browser = console.browser()
    short = await browser.client.post(f"/console/link/{secret}", data={"name": "wang", "password": "short"})
    assert short.status_code == 422
    assert 'value="wang"' in short.text
    made = await browser.client.post(f"/console/link/{secret}", data={"name": "wang", "password": "long enough 1"})
    assert made.status_code == 303
    assert (await browser.get("/console")).headers["location"] == "/console/intake/health"
    second = await browser.client.post(f"/console/link/{secret}", data={"name": "eve", "password": "long enough 1"})
    assert second.status_code == 403


async def test_a_form_without_the_token_or_from_another_site_changes_nothing(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    path, fields = f"/console/t/{number}/assign", {"to": "me"}
    assert (await browser.client.post(path, data=fields)).status_code == 403
    assert (await browser.client.post(path, data={**fields, "csrf": "x" * 32})).status_code == 403
    good = {**fields, "csrf": browser.csrf}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert (await browser.client.post(path, data=good, headers=headers)).status_code == 403
    assert (await _row(console, number)).owner is None
    headers = {"Origin": BASE, "Sec-Fetch-Site": "same-origin", "X-CSRF-Token": browser.csrf}
    assert (await browser.client.post(path, data=fields, headers=headers)).status_code == 303
    assert (await _row(console, number)).owner == "li"


async def test_the_token_of_another_session_is_worth_nothing(console: Console) -> None:
    number = await console.ticket()
    mine, other = await console.signed_in("li"), await console.signed_in("sun")
    mine.csrf = other.csrf
    assert (await mine.post(f"/console/t/{number}/assign", to="me")).status_code == 403


# --- roles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"), [("li", "/console/q/claims"), ("sun", "/console/review"), ("root", "/console/intake/health")]
)
async def test_the_first_page_is_the_role_s(console: Console, name: str, path: str) -> None:
    assert (await (await console.signed_in(name)).get("/console")).headers["location"] == path


async def test_an_agent_sees_only_their_departments(console: Console) -> None:
    number = await console.ticket("#payment_problem taken twice, secret words", subject="Private")
    mine = await console.ticket("#claim_status mine")
    browser = await console.signed_in("li")
    foreign = await browser.get(f"/console/t/{number}")
    assert foreign.status_code == 403
    assert number in foreign.text
    assert "Billing" in foreign.text
    assert "secret words" not in foreign.text
    assert "Private" not in foreign.text
    assert (await browser.get("/console/q/billing")).status_code == 403
    assert (await browser.get("/console/q/all")).status_code == 403
    assert (await browser.get(f"/console/t/{number}/live")).status_code == 403
    assert (await browser.post(f"/console/t/{number}/say", text="hello")).status_code == 403
    assert (await browser.post(f"/console/t/{number}/assign", to="me")).status_code == 403
    assert (await browser.get(f"/console/m/{ticket_id_of(number)}/raw")).status_code == 403
    listed = (await browser.get(f"/console/rows?ids={number},{mine}&from=q/claims")).text
    assert mine in listed
    assert number not in listed
    for path in ("/console/review", f"/console/review/{mine}", "/console/intake/mail", "/console/intake/quarantine",
                 "/console/intake/health"):  # fmt: skip
        assert (await browser.get(path)).status_code == 403
    assert (await browser.post(f"/console/review/{mine}", intent="praise", sentiment="neutral")).status_code == 403


async def test_what_does_not_exist_is_a_page_too(console: Console) -> None:
    browser = await console.signed_in("sun")
    for path in ("/console/t/S-999999", "/console/t/nonsense", "/console/q/nowhere", "/console/q/claims?view=x",
                 "/console/m/999/raw", "/console/a/abc", "/console/review?why=x"):  # fmt: skip
        answer = await browser.get(path)
        assert answer.status_code == 404, path
        assert "There is nothing here" in answer.text


# --- lists ------------------------------------------------------------------------------------------------------------


async def test_a_queue_shows_what_is_most_urgent_first_and_can_be_searched(console: Console) -> None:
    calm = await console.ticket("#claim_status 请问理赔款什么时候到账", sender_name="王芳")
    danger = await console.ticket("#claim_dispute #self_harm help")
    hurt = await console.ticket("#claim_status #injury my leg")
    browser = await console.signed_in("sun")
    everything = (await browser.get("/console/q/all")).text
    places = [everything.index(f'id="row-{number}"') for number in (danger, hurt, calm)]
    assert places == sorted(places)
    found = (await browser.get("/console/q/all?q=到账")).text
    assert f"row-{calm}" in found
    assert f"row-{hurt}" not in found
    assert "Two characters at least" in (await browser.get("/console/q/all?q=账")).text
    nothing = (await browser.get("/console/q/all?q=nonsenseword")).text
    assert "Nothing fits this filter" in nothing
    by_number = await browser.get(f"/console/q/all?q={calm.lower()}")
    assert by_number.headers["location"] == f"/console/t/{calm}?from=q/all"
    fragment = await browser.get("/console/q/all", headers={"HX-Request": "true"})
    assert "<html" not in fragment.text
    assert fragment.headers["cache-control"] == "no-store"


async def test_filters(console: Console) -> None:
    waiting, due, looked = [await console.ticket(f"#claim_status {n}", sender=f"{n}@example.com") for n in range(3)]
    browser = await console.signed_in("li")
    await browser.post(f"/console/t/{waiting}/pending")
    await browser.post(f"/console/t/{looked}/assign", to="me")
    table = tables.table(tables.Ticket)
    await console.world.database.write(
        lambda c: c.execute(sa.update(table).where(table.c.id == ticket_id_of(due)).values(alarm="warned"))
    )
    for view, expected in {
        "pending": {waiting}, "due": {due}, "mine": {looked}, "resolved": set(), "active": {waiting, due, looked},
    }.items():  # fmt: skip
        page = (await browser.get(f"/console/q/claims?view={view}")).text
        assert set(re.findall(r'id="row-(S-\d+)"', page)) == expected, view
    assert set(re.findall(r'id="row-(S-\d+)"', (await browser.get("/console/q/mine")).text)) == {looked}


async def test_long_lists_come_in_pages(console: Console) -> None:
    numbers = {await console.ticket(f"#claim_status {n}", sender=f"{n}@example.com") for n in range(53)}
    browser = await console.signed_in("li")
    first = set(re.findall(r'id="row-(S-\d+)"', (await browser.get("/console/q/claims")).text))
    second = set(re.findall(r'id="row-(S-\d+)"', (await browser.get("/console/q/claims?page=2")).text))
    assert len(first) == 50
    assert first | second == numbers
    assert not first & second


async def test_a_row_that_left_the_list_comes_back_as_gone(console: Console) -> None:
    number = await console.ticket()
    browser = await console.signed_in("li")
    path = f"/console/rows?ids={number}&from=q/claims"
    assert 'class="row"' in (await browser.get(path)).text
    await browser.post(f"/console/t/{number}/resolve", code="done")
    assert 'class="row gone"' in (await browser.get(path)).text


# --- the triage desk --------------------------------------------------------------------------------------------------


@both
async def test_a_label_moves_the_ticket_and_is_kept_for_training(console: Console) -> None:
    number = await console.ticket("#claim_status=0.3 my invoice please", sender="a@example.com")
    after = await console.ticket("#claim_status=0.2 the next one", sender="b@example.com")
    browser = await console.signed_in("sun")
    listed = (await browser.get("/console/review")).text
    assert number in listed
    assert after in listed
    missing = await browser.post(f"/console/review/{number}", sentiment="neutral", intent="nonsense")
    assert missing.status_code == 422
    assert "Choose what the message is about." in missing.text
    answer = await browser.post(f"/console/review/{number}", intent="invoice_request", sentiment="negative")
    assert answer.headers["location"] == f"/console/review/{after}"
    row = await _row(console, number)
    assert (row.department, row.intent, row.look_first) == ("billing", "invoice_request", False)
    [kept] = await console.world.database.read(lambda connection: list(labels.newest(connection)))
    assert kept["intent"] == "invoice_request"
    assert kept["metadata"]["labelled_by"] == "sun"
    assert kept["metadata"]["said"]["intent"] == "claim_status"
    assert number not in (await browser.get("/console/review")).text


async def test_review_by_reason(console: Console) -> None:
    moved = await console.ticket("#claim_status moved", sender="a@example.com")
    risky = await console.ticket("#claim_status #legal threat", sender="b@example.com")
    agent, browser = await console.signed_in("li"), await console.signed_in("sun")
    await agent.post(f"/console/t/{moved}/transfer", department="billing", reason="about a payment")
    for why, expected in {"transferred": {moved}, "risk": {risky}}.items():
        page = (await browser.get(f"/console/review?why={why}")).text
        assert set(re.findall(r'id="row-(S-\d+)"', page)) == expected


# --- one's own settings -----------------------------------------------------------------------------------------------


async def test_language_is_the_person_s_then_the_browser_s_then_chinese(console: Console) -> None:
    plain = console.browser(headers={"Accept-Language": ""})
    assert 'lang="zh-Hans"' in (await plain.get("/console/signin")).text
    assert 'html lang="en"' in (await console.browser().get("/console/signin")).text
    german = console.browser(headers={"Accept-Language": "de, en;q=0.7, zh;q=0.8"})
    assert 'html lang="zh-Hans"' in (await german.get("/console/signin")).text
    await plain.get("/console/language/en")
    assert 'html lang="en"' in (await plain.get("/console/signin")).text
    browser = await console.signed_in("li")
    answer = await browser.post("/console/me/language", language="zh", next="/console/q/mine")
    assert answer.headers["location"] == "/console/q/mine"
    assert 'html lang="zh-Hans"' in (await browser.get("/console/q/mine")).text
    assert (await browser.post("/console/me/language", language="xx")).status_code == 404


async def test_a_new_password_signs_the_other_browsers_out(console: Console) -> None:
    here, there = await console.signed_in("li"), await console.signed_in("li")
    assert (await here.post("/console/me/password", old="wrong", password="a new long one")).status_code == 422
    assert (await here.post("/console/me/password", old=PASSWORD, password="short")).status_code == 422
    assert (await there.get("/console/me")).status_code == 200
    assert (await here.post("/console/me/password", old=PASSWORD, password="a new long one")).status_code == 303
    assert (await here.get("/console/me")).status_code == 200
    assert (await there.get("/console/me")).status_code == 303
    with_old = await console.browser().client.post("/console/signin", data={"name": "li", "password": PASSWORD})
    assert with_old.status_code == 401


# --- files ------------------------------------------------------------------------------------------------------------


async def test_files_asked_for_by_their_content_are_kept_for_ever_and_others_are_not(console: Console) -> None:
    browser = console.browser()
    addresses = re.findall(r'"(/static/[\w.-]+\?v=\w+)', (await browser.get("/console/signin")).text)
    assert len(addresses) >= 3
    for address in addresses:
        answer = await browser.get(address)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        again = await browser.get(address, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, answer.headers["cache-control"])
        # Another version's address may be asked of this one while both serve.
        for other in (address.partition("?")[0], address.partition("?")[0] + "?v=000000000000"):
            assert "cache-control" not in (await browser.get(other)).headers
