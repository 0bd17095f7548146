"""Each channel's story in the real process: a message comes in, is tagged, routed and answered, and its fate is seen.

All channels are on at the same time. Their providers are stand-ins that others wrote where there are any, and strict
ones of ours elsewhere; what they are asked to send is looked at as their APIs want it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

from tests import meta_server as meta
from tests.meta_server import Said, happened, instagram, page, said, status, whatsapp, wrote
from tests.phone_world import Caller, verbs
from tests.samples import phone as calls
from tests.samples import webhook as reviews
from tests.samples import wechat as sealed
from tests.story_world import PASSWORD, PATIENCE, Door, Post, World, sent, until, world
from tests.telegram_server import blocked
from tests.twilio_server import TwilioServer

#: a red dot
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
)
SORRY = "您好，已为您查到，三个工作日内到账。"


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory, twilio: TwilioServer) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("stories"), twilio) as made:
        yield made


def is_tagged(ticket: dict[str, Any], channel: str, department: str, intent: str, language: str) -> None:
    """Routed, and its first words are tagged."""
    assert (ticket["channel"], ticket["department"], ticket["intent"]) == (channel, department, intent)
    tags = next(each["tags"] for each in ticket["messages"] if each["direction"] == "in" and each["text"])
    assert (tags["intent"], tags["language"]) == (intent, language)
    assert tags["confidence"] > 0.5
    assert tags["sentiment"] in ("negative", "neutral", "positive")


# --- text messages ----------------------------------------------------------------------------------------------------


def texted(sluice: World, customer: str) -> list[dict[str, Any]]:
    """What Twilio took from us for a customer, oldest first."""
    found = sluice.providers.aside.run(sluice.providers.twilio.messages(To=customer))
    return [each for each in found if each["direction"] == "outbound-api"][::-1]


def text_in(sluice: World, customer: str, words: str) -> None:
    made = sluice.providers
    made.aside.run(made.twilio.text_in(made.number, customer, words))


def text_status(sluice: World, sid: str, state: str) -> None:
    sluice.providers.aside.run(sluice.providers.twilio.text_status(sid, state))


def test_a_text_message_is_answered_and_followed_to_the_phone(sluice: World) -> None:
    customer = "+8613900139001"
    text_in(sluice, customer, "我的理赔款什么时候到账？")
    ticket = sluice.ticket(customer)
    is_tagged(ticket, "sms", "claims", "claim_status", "zh")
    number = ticket["number"]
    [receipt] = sent(lambda: texted(sluice, customer), "Twilio has the receipt")
    assert number in receipt["body"]
    assert receipt["from"] == sluice.providers.number

    sluice.mei.answer(number, SORRY)
    _receipt, answer = sent(lambda: texted(sluice, customer), "Twilio has the answer", 2)
    assert (answer["from"], answer["to"], answer["body"]) == (sluice.providers.number, customer, SORRY)
    ours = sluice.out(number, "reply", state="sent")
    assert sluice.mei.shows(number, ours["id"]).words == "Sent"
    text_status(sluice, answer["sid"], "delivered")
    assert sluice.shown(number, ours["id"], "delivered").words == "Delivered"
    assert sluice.get(f"tickets/{number}")["state"] == "open"


def test_a_text_message_that_does_not_arrive_says_why(sluice: World) -> None:
    customer = "+8613900139002"
    text_in(sluice, customer, "请问你们客服几点上班")
    number = sluice.ticket(customer)["number"]
    sent(lambda: texted(sluice, customer), "Twilio has the receipt")
    sluice.mei.answer(number, "早九点到晚六点。")
    answer = sent(lambda: texted(sluice, customer), "Twilio has the answer", 2)[-1]
    ours = sluice.out(number, "reply", state="sent")
    text_status(sluice, answer["sid"], "undelivered")
    shown = sluice.shown(number, ours["id"], "failed")
    assert shown.words.startswith("Not sent The message did not arrive")
    assert shown.words.endswith("Send again")


def test_who_says_stop_is_left_alone_until_they_say_start(sluice: World) -> None:
    customer = "+8613900139003"
    text_in(sluice, customer, "我要开具去年的保费发票")
    number = sluice.ticket(customer)["number"]
    sent(lambda: texted(sluice, customer), "Twilio has the receipt")
    text_in(sluice, customer, "退订")
    until(lambda: "The customer takes no messages there." in sluice.mei.page(number), "the console says so")
    assert "Call them, or write a note." in sluice.mei.page(number)
    refused = sluice.mei.say(number, "发票已经寄出。")
    assert refused.status_code == 409
    assert "The customer takes no messages there." in refused.text
    assert len(texted(sluice, customer)) == 1

    text_in(sluice, customer, "恢复")
    until(lambda: "Call them, or write a note." not in sluice.mei.page(number), "the way is open again")
    sluice.mei.answer(number, "发票已经寄出。")
    bodies = sent(lambda: [each["body"] for each in texted(sluice, customer)], "the answer went out", 2)
    assert bodies[-1] == "发票已经寄出。"


def test_where_text_messages_are_unwanted_the_answer_goes_by_whatsapp(sluice: World) -> None:
    """Two providers vouch for the number: it is one customer, who is answered where they still listen."""
    customer = "+8613900139004"
    text_in(sluice, customer, "I was charged twice this month")
    ticket = sluice.ticket(customer)
    is_tagged(ticket, "sms", "billing", "payment_problem", "en")
    number = ticket["number"]
    contact = meta.contact(customer[1:], "Ada Stone")
    sluice.from_meta("whatsapp", whatsapp(wrote("text", "Hello, it is me", sender=customer[1:]), contacts=[contact]))
    text_in(sluice, customer, "STOP")
    until(lambda: "instead" in sluice.mei.page(number), "the console offers WhatsApp")
    before = len(texted(sluice, customer))
    sluice.mei.answer(number, "One of the two was sent back today.")
    [answer] = sent(
        lambda: [each for each in whatsapped(sluice, customer[1:]) if "sent back" in each.body["text"]["body"]],
        "WhatsApp has the answer",
    )
    assert answer.body["type"] == "text"
    assert len(texted(sluice, customer)) == before
    ours = sluice.out(number, "reply", state="sent")
    sluice.from_meta("whatsapp", whatsapp(statuses=[status(answer.id, "delivered")]))
    sluice.shown(number, ours["id"], "delivered")


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_is_taken_down_and_somebody_is_told_to_call_back(sluice: World) -> None:
    made = sluice.providers
    recording = calls.recording(41)
    path = f"/2010-04-01/Accounts/{calls.ACCOUNT}/Recordings/{recording['RecordingSid']}"
    made.aside.do(made.voice.body, f"{path}.mp3", b"ID3 hello", "audio/mpeg")
    made.aside.do(made.voice.json, "DELETE", f"{path}.json", {}, 204)
    caller = Caller(Door(sluice.url), number=41, caller="+8613900139005", base=sluice.url)

    async def call() -> None:
        assert verbs(await caller.call()) == ["Gather"]
        await caller.press("1")
        await caller.say("我要报案，我的车被撞了")
        assert "Record" in verbs(await caller.press("0")), "nobody takes calls: a message is taken"
        later = caller.twiml
        await caller.leave(41)
        await caller.end()
        caller.twiml = later
        await caller.told("recordingStatusCallback", recording)

    made.aside.run(call())
    ticket = sluice.ticket(caller.caller)
    number = ticket["number"]
    ticket = until(
        lambda: found if (found := sluice.get(f"tickets/{number}"))["department"] == "claims" else {}, "it is claims'"
    )
    is_tagged(ticket, "phone", "claims", "file_claim", "zh")
    assert sluice.messages(number, "out") == [], "nothing is sent to a phone"
    until(lambda: "<audio" in sluice.mei.page(number), "the recording can be heard")
    shown = sluice.mei.page(number)
    assert "A call came in" in shown
    assert "The call ended (35 s)" in shown
    assert "Call them, or write a note." in shown
    until(lambda: f"{path}.json" in made.voice.paths("DELETE"), "Twilio keeps no copy")
    refused = sluice.mei.say(number, "您好")
    assert refused.status_code == 409
    assert "takes no answers" in refused.text


# --- Telegram ---------------------------------------------------------------------------------------------------------


def told(sluice: World, chat: int) -> list[dict[str, Any]]:
    return [each for each in list(sluice.providers.bot.sent) if each["chat"]["id"] == chat]


def says(sluice: World, chat: int, words: str | None = None, **values: Any) -> None:
    sluice.providers.aside.do(sluice.providers.bot.says, words, chat=chat, **values)


def test_a_telegram_message_is_answered_and_a_block_is_seen(sluice: World) -> None:
    chat = 7001
    says(sluice, chat, "退款什么时候到账")
    ticket = sluice.ticket(str(chat))
    is_tagged(ticket, "telegram", "billing", "refund_status", "zh")
    number = ticket["number"]
    [receipt] = sent(lambda: told(sluice, chat), "Telegram has the receipt")
    assert number in receipt["text"]
    assert len(receipt["reply_markup"]["inline_keyboard"]) == 2

    sluice.mei.answer(number, SORRY)
    _receipt, answer = sent(lambda: told(sluice, chat), "Telegram has the answer", 2)
    assert answer["text"] == SORRY
    assert "reply_markup" not in answer, "a person's answer has no buttons"
    ours = sluice.out(number, "reply", state="sent")
    assert sluice.mei.shows(number, ours["id"]).words == "Sent", "more is never told by Telegram"

    sluice.providers.aside.do(sluice.providers.bot.fail, "sendMessage", blocked())
    sluice.mei.answer(number, "请问还有别的问题吗？")
    ours = sluice.out(number, "reply", state="failed")
    assert "The customer has blocked the bot. Use another channel." in sluice.mei.shows(number, ours["id"]).words


def test_who_asks_in_telegram_where_the_ticket_is_hears_it_and_nobody_else_does(sluice: World) -> None:
    chat, stranger = 7002, 7003
    says(sluice, chat, "I forgot my password and cannot log in to my account")
    ticket = sluice.ticket(str(chat))
    is_tagged(ticket, "telegram", "digital_support", "account_access", "en")
    number = ticket["number"]
    sent(lambda: told(sluice, chat), "Telegram has the receipt")
    says(sluice, chat, f"Where is my ticket {number}?")
    answer = sent(lambda: told(sluice, chat), "Telegram has the state", 2)[-1]["text"]
    assert answer.startswith(f"Ticket {number}: received and waiting for a colleague, with Digital support.")
    assert sluice.out(number, "status", state="sent")["text"].strip() == answer

    says(sluice, stranger, f"Where is my ticket {number}?")
    [receipt] = sent(lambda: told(sluice, stranger), "the stranger has a receipt")
    assert number not in receipt["text"]


def test_a_picture_in_telegram_is_fetched_by_its_reference_and_shown_in_the_ticket(sluice: World) -> None:
    chat = 7004
    sluice.providers.bot.files["F7004"] = PNG
    size = {"file_id": "F7004", "file_unique_id": "U7004", "width": 5, "height": 5, "file_size": len(PNG)}
    says(sluice, chat, photo=[size], caption="我要报案，我的车被追尾了")
    ticket = sluice.ticket(str(chat))
    is_tagged(ticket, "telegram", "claims", "file_claim", "zh")
    number = ticket["number"]
    shown = until(lambda: found if "<img" in (found := sluice.mei.page(number)) else "", "the picture is shown")
    place = shown.partition('<img src="')[2].partition('"')[0]
    picture = sluice.mei.client.get(place)
    assert (picture.headers["content-type"], picture.content) == ("image/png", PNG)


# --- Meta -------------------------------------------------------------------------------------------------------------


def whatsapped(sluice: World, customer: str) -> list[Post]:
    return sluice.posts(f"{meta.NUMBER}/messages", customer)


def test_a_messenger_conversation_is_answered_and_its_delivery_seen(sluice: World) -> None:
    customer = "4004004004004011"
    sluice.from_meta("messenger", page(said("The app crashes every time I open it", sender=customer)))
    ticket = sluice.ticket(customer)
    is_tagged(ticket, "messenger", "digital_support", "app_problem", "en")
    number = ticket["number"]
    [receipt] = sent(lambda: sluice.posts(f"{meta.PAGE}/messages", customer), "the page has the receipt")
    assert number in receipt.body["message"]["text"]
    assert receipt.body["messaging_type"] == "RESPONSE"

    sluice.mei.answer(number, "Please update it; the fault is mended.")
    answer = sent(lambda: sluice.posts(f"{meta.PAGE}/messages", customer), "the page has the answer", 2)[-1]
    assert answer.body["recipient"] == {"id": customer}
    assert answer.body["message"]["text"] == "Please update it; the fault is mended."
    ours = sluice.out(number, "reply", state="sent")
    delivered = happened(sender=customer, delivery={"mids": [answer.id], "watermark": 1})
    sluice.from_meta("messenger", page(delivered))
    assert sluice.shown(number, ours["id"], "delivered").words == "Delivered"


def test_an_instagram_message_is_answered_and_its_reading_seen(sluice: World) -> None:
    customer = "9009009009009011"
    there = {"sender": customer, "to": meta.INSTAGRAM}
    sluice.from_meta("instagram", instagram(said("我想把保单的地址改一下", **there)))
    ticket = sluice.ticket(customer)
    is_tagged(ticket, "instagram", "policy_service", "policy_change", "zh")
    number = ticket["number"]
    [receipt] = sent(lambda: sluice.posts("me/messages", customer), "the account has the receipt")
    assert number in receipt.body["message"]["text"]

    sluice.mei.answer(number, "请把新地址发给我们。")
    answer = sent(lambda: sluice.posts("me/messages", customer), "the account has the answer", 2)[-1]
    assert answer.body["message"] == {"text": "请把新地址发给我们。"}
    ours = sluice.out(number, "reply", state="sent")
    sluice.from_meta("instagram", instagram(happened(read={"mid": answer.id}, **there)))
    assert sluice.shown(number, ours["id"], "delivered").words == "Delivered"


def test_a_whatsapp_picture_is_seen_and_answered_in_the_browser_and_its_fate_shown_there(
    sluice: World, chromium: str
) -> None:
    customer, made = "8613900139011", sluice.providers
    made.graph.objects["1003383421387256"] = {
        "messaging_product": "whatsapp",
        "url": f"{made.graph.url}/files/1",
        "mime_type": "image/png",
        "file_size": len(PNG),
    }
    made.graph.files["/files/1"] = Said(200, PNG, {"Content-Type": "image/png"})
    picture = {"id": "1003383421387256", "mime_type": "image/png", "caption": "How do I file a claim? My car was hit"}
    contact = meta.contact(customer, "Li Lei")
    sluice.from_meta("whatsapp", whatsapp(wrote("image", picture, sender=customer), contacts=[contact]))
    ticket = sluice.ticket(customer)
    is_tagged(ticket, "whatsapp", "claims", "file_claim", "en")
    number = ticket["number"]
    [receipt] = sent(lambda: whatsapped(sluice, customer), "WhatsApp has the receipt")
    assert number in receipt.body["text"]["body"]

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE * 1000)
        console = context.new_page()
        console.goto(f"{sluice.url}/console/signin")
        console.fill("[name=name]", "mei")
        console.fill("[name=password]", PASSWORD)
        console.click("button.first")
        console.goto(f"{sluice.url}/console/t/{number}")
        shown = console.locator(".msg.in .part img")
        expect(shown).to_be_visible(timeout=PATIENCE * 1000)
        assert shown.evaluate("each => each.decode().then(() => each.naturalWidth)") == 5
        fetched = [each for each in list(made.graph.asked) if each.path == "/files/1"]
        assert [each.headers["authorization"] for each in fetched] == [f"Bearer {meta.TOKEN}"]
        console.fill("#composer #text", "Thank you. Please send us the police report too.")
        console.click("#send")
        answer = sent(lambda: whatsapped(sluice, customer), "WhatsApp has the answer", 2)[-1]
        assert answer.body["text"]["body"] == "Thank you. Please send us the police report too."
        sluice.out(number, "reply", state="sent")
        for state in ("delivered", "read", "sent"):  # in any order
            sluice.from_meta("whatsapp", whatsapp(statuses=[status(answer.id, state)]))
        ours = console.locator("#timeline .msg.out", has_text="police report")
        expect(ours.locator(".out.delivered")).to_have_text("Delivered", timeout=PATIENCE * 1000)
        browser.close()


# --- WeChat -----------------------------------------------------------------------------------------------------------


def test_a_wechat_message_is_answered_within_what_wechat_allows(sluice: World) -> None:
    customer, wechat = "oIDrpjqASyTPnxRmpS9O_story001", sluice.providers.wechat
    wechat.followers[customer] = 2
    written = sealed.xml(FromUserName=customer, Content="我要退保，怎么办理？", MsgId=7001001)
    assert sluice.hook("wechat", sealed.sealed(written)).text == "success"
    ticket = sluice.ticket(customer)
    is_tagged(ticket, "wechat", "policy_service", "policy_cancel", "zh")
    number = ticket["number"]

    def heard() -> list[str]:
        return [text for to, text in list(wechat.sent) if to == customer]

    [receipt] = sent(heard, "WeChat has the receipt")
    assert number in receipt
    sluice.mei.answer(number, "请携带身份证到任一网点办理。")
    assert sent(heard, "WeChat has the answer", 2)[-1] == "请携带身份证到任一网点办理。"
    assert json.loads(wechat.bodies[-1])["msgtype"] == "text"
    ours = sluice.out(number, "reply", state="sent")
    assert sluice.mei.shows(number, ours["id"]).words == "Sent", "more is never told by WeChat"

    sluice.mei.answer(number, "您还有别的问题吗？")
    ours = sluice.out(number, "reply", state="failed")
    assert "until the customer writes again" in sluice.mei.shows(number, ours["id"]).words


# --- a webhook of anybody's -------------------------------------------------------------------------------------------


def test_a_review_becomes_a_ticket_and_nothing_is_sent_to_who_takes_no_answers(sluice: World) -> None:
    review = reviews.review(71, author={"id": "u-71", "name": "Wang"}, title="差评", body="我要投诉你们的服务态度")
    content = reviews.body(review)
    assert sluice.hook("app_reviews", reviews.signed(content)).json() == {"records": 1, "unreadable": 0}
    ticket = sluice.ticket("u-71")
    is_tagged(ticket, "app_reviews", "consumer_protection", "complaint_service", "zh")
    number = ticket["number"]
    assert sluice.messages(number, "out") == []
    shown = sluice.mei.page(number)
    assert "This channel only brings messages and takes no answers." in shown
    refused = sluice.mei.say(number, "抱歉")
    assert refused.status_code == 409
    sluice.hook("app_reviews", reviews.signed(content))
    assert len(sluice.get("tickets", q="u-71")["items"]) == 1


# --- behind all of them -----------------------------------------------------------------------------------------------


def test_all_this_left_no_fault_and_no_secret_in_the_log(sluice: World) -> None:
    log = (sluice.process.dir / "output").read_text("utf-8")
    assert [line for line in log.splitlines() if '"level": "error"' in line or "Traceback" in line] == []
    secrets = [value for name, value in sluice.deployment.settings.items() if "TOKEN" in name or "SECRET" in name]
    assert len(secrets) > 12
    assert [value for value in secrets if value in log] == []
    assert [customer for customer in ("13900139", "7001", "oIDrpjqASyTPnxRmpS9O") if customer in log] == []
