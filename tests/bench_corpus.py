"""Mails and API bodies for the benchmarks: an insurer's post, made from our own sentences by a seeded draw.

Half Chinese, half English; three in ten have an HTML part; the mean size is about 1.9 kB. Names, numbers, dates and
amounts differ from mail to mail, so that no cache of words sees the same text twice.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

MAILS, AGAIN = 1000, 50
_WITH_HTML = 0.3

_EN_OPEN = ("Hello,", "Dear Sir or Madam,", "Good morning,", "Hi there,", "To whom it may concern,", "Dear team,")
_EN_MATTERS: dict[str, tuple[str, ...]] = {
    "My claim {number}": (
        "I filed a claim on {date} and have heard nothing since then.",
        "The garage on {street} has finished the repair and wants {amount} before I can have the car back.",
        "Could you tell me where the claim stands and when the payment will be made?",
        "The adjuster promised to call me within three days, which was {days} days ago.",
        "I have attached the invoice and the photographs of the damage once more.",
    ),
    "Accident on {date}": (
        "On {date} a lorry ran into the back of our car at the crossing near {street}.",
        "Nobody was hurt, but the boot no longer closes and the exhaust is bent.",
        "The police took down the details of both drivers under reference {number}.",
        "What do you need from me so that the repair can begin?",
        "The other driver is insured elsewhere and has admitted that it was his mistake.",
    ),
    "Premium collected twice": (
        "My bank statement shows that {amount} was collected twice for policy {number}.",
        "The first collection was on {date}, and the second came two days later.",
        "Please return the second payment to the account that it came from.",
        "I checked the app as well, and only one payment is listed there.",
        "If there is a reason for the second collection, I would like to know it.",
    ),
    "Change of address": (
        "We have moved house, and the new address is {days} {street}.",
        "Please change it for policy {number} and for my wife's policy too.",
        "The phone number stays the same, but letters should go to the new place from {date}.",
        "Will the premium change because we live in another district now?",
        "We also need a new certificate of insurance for the landlord.",
    ),
    "Cancelling my policy": (
        "I would like to cancel policy {number} at the end of the month.",
        "The premium went up by {amount} this year without any explanation.",
        "Please tell me how much I get back and when it will be paid.",
        "I have found a cheaper offer with the same cover.",
        "Kindly confirm the cancellation in writing by {date}.",
    ),
    "Quote for the family": (
        "We are looking for health cover for two adults and a child of {days} months.",
        "Could you send us a quote with and without dental treatment?",
        "A colleague pays about {amount} a year and is content with you.",
        "We would like the cover to begin on {date} if that is possible.",
        "Does the plan pay for treatment in a private hospital near {street}?",
    ),
    "Cannot sign in to the app": (
        "Since the update of {date} the app closes as soon as I type my password.",
        "I reset the password twice, and the code never arrives on my phone.",
        "The phone is a year old and everything else on it works.",
        "I only want to download the policy document {number} for the tax office.",
        "Is there another way to see my documents until this is repaired?",
    ),
    "A complaint about your service": (
        "I have called your hotline {days} times and was cut off each time.",
        "The agent was rude and put the phone down when I asked for a supervisor.",
        "I want this complaint to be answered by somebody who is responsible.",
        "When I bought the policy, nobody told me about the waiting period.",
        "If I get no answer by {date}, I shall write to the ombudsman.",
    ),
}
_EN_CLOSE = ("Kind regards,", "Yours faithfully,", "Thank you very much,", "Best wishes,", "Many thanks in advance,")
_EN_FIRST = ("Alice", "Brian", "Catherine", "Derek", "Emma", "Frank", "Grace", "Henry", "Irene", "Jack", "Laura", "Max")
_EN_LAST = (
    "Archer",
    "Baxter",
    "Collins",
    "Dawson",
    "Ellis",
    "Foster",
    "Graham",
    "Hudson",
    "Irwin",
    "Jennings",
    "Keane",
)
_STREETS = (
    "Mill Lane",
    "Station Road",
    "Harbour Street",
    "Park Avenue",
    "Orchard Close",
    "Bridge Street",
    "High Street",
)

_ZH_OPEN = ("您好：", "你好，", "客服您好，", "尊敬的客服人员：", "各位老师好，", "贵公司您好：")
_ZH_MATTERS: dict[str, tuple[str, ...]] = {
    "理赔进度咨询 {number}": (
        "我在{date}提交了理赔申请，到现在已经{days}天了，一直没有消息。",
        "报案号是{number}，请帮忙查一下现在到了哪一步。",
        "医院的发票和出院小结我都上传过了，系统显示资料齐全。",
        "一共花了{amount}元，麻烦告诉我大概什么时候可以到账。",
        "之前客服说三个工作日之内会有人联系我，但是没有人打电话来。",
    ),
    "车险报案": (
        "{date}早上我在{street}路口被后面的车追尾了，人没有受伤。",
        "后保险杠和尾灯都坏了，交警已经出了责任认定书，对方全责。",
        "请问接下来需要准备什么材料，可以先去修车吗？",
        "修理厂报价是{amount}元，我想先确认一下能不能赔。",
        "我的保单号是{number}，车牌和行驶证照片都在手机里。",
    ),
    "重复扣费": (
        "我的银行卡在{date}被扣了两次保费，每次{amount}元。",
        "保单号{number}，麻烦核实一下为什么会重复扣款。",
        "请把多扣的那一笔原路退回，谢谢。",
        "手机银行里两条记录都在，我可以提供截图。",
        "如果是系统的问题，希望以后不要再发生。",
    ),
    "变更联系地址": (
        "我们搬家了，新的地址是{street}{days}号。",
        "请把保单{number}的通讯地址和手机号一起改过来。",
        "另外受益人也想改成我的女儿，需要填写什么表格？",
        "从{date}开始，纸质账单请寄到新地址。",
        "是不是一定要本人去柜台办理，网上可以办吗？",
    ),
    "申请退保": (
        "我想把{number}这份保单退掉，不打算继续交了。",
        "请问现在退的话现金价值是多少，大概能拿回{amount}元吗？",
        "当初业务员说随时可以退，没有说会有损失。",
        "需要哪些手续，钱多久能到账？",
        "希望在{date}之前办完，因为下一期又要扣费了。",
    ),
    "咨询投保": (
        "我想给父母买一份医疗险，他们今年六十二岁，有高血压。",
        "请问这种情况可以投保吗，一年大概要多少钱？",
        "同事说你们家的产品大约{amount}元一年，不知道有没有等待期。",
        "住院和门诊都能报销吗，{street}的医院在不在范围里？",
        "最好能在{date}之前生效，麻烦发一份报价单给我。",
    ),
    "手机应用无法登录": (
        "从{date}更新以后，打开应用输入密码就闪退。",
        "验证码等了很久都收不到，换了{days}次网络也一样。",
        "我只是想下载保单{number}的电子版，单位报销要用。",
        "手机型号比较新，其他软件都正常。",
        "能不能先用别的办法把文件发给我？",
    ),
    "投诉服务态度": (
        "我打了{days}次客服电话，每次都是排队很久然后断线。",
        "昨天接电话的人态度很差，没等我说完就挂了。",
        "我要求有一位负责人给我答复，不要再互相推诿。",
        "买的时候业务员说什么都赔，现在理赔又说不在范围内。",
        "如果{date}之前还没有结果，我会向监管部门反映。",
    ),
}
_ZH_CLOSE = ("谢谢！", "祝好！", "麻烦尽快回复，谢谢。", "此致敬礼", "等待您的回复。")
_ZH_LAST = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗"
_ZH_FIRST = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红梅建国文博"
_ZH_STREETS = ("人民路", "中山北路", "建设大道", "解放街", "滨江路", "学院路", "南京东路")
_HOSTS = (
    "mail.example.com",
    "example.net",
    "post.example.org",
    "mx.example.cn",
    "home.example.com",
    "work.example.net",
)


@dataclass(frozen=True, slots=True)
class Letter:
    """What somebody wrote, before it is a mail or an API body."""

    chinese: bool
    name: str
    address: str
    subject: str
    text: str


def letters(count: int, seed: str) -> list[Letter]:
    """`count` letters of different senders, Chinese and English in turn. Another seed gives other ones."""
    draw = random.Random(seed)
    mark = f"{draw.getrandbits(32):08x}"
    return [_letter(draw, index % 2 == 0, f"{mark}{index}") for index in range(count)]


def _letter(draw: random.Random, chinese: bool, mark: str) -> Letter:
    matters = _ZH_MATTERS if chinese else _EN_MATTERS
    holes = {
        "number": f"{draw.choice('PCL')}{draw.randrange(10**9):09d}",
        "date": f"{draw.randint(1, 12)}月{draw.randint(1, 28)}日" if chinese else f"2026-{draw.randint(1, 12):02}-14",
        "amount": f"{draw.randint(100, 99999)}.{draw.randrange(100):02}",
        "days": str(draw.randint(4, 99)),
        "street": draw.choice(_ZH_STREETS if chinese else _STREETS),
    }
    subject = draw.choice(list(matters))
    said = draw.sample(matters[subject], k=draw.randint(3, 5))
    # People also speak of something else: mostly a little, some at length.
    others = [sentence for matter in matters.values() for sentence in matter if sentence not in said]
    said += draw.sample(others, k=draw.choice((1, 2, 4, 10, 18)))
    between = "" if chinese else " "
    paragraphs = [between.join(said[start : start + 4]) for start in range(0, len(said), 4)]
    if chinese:
        name = draw.choice(_ZH_LAST) + "".join(draw.sample(_ZH_FIRST, k=draw.randint(1, 2)))
        parts = [
            draw.choice(_ZH_OPEN),
            *paragraphs,
            draw.choice(_ZH_CLOSE),
            name,
            f"电话 138{draw.randrange(10**8):08}",
        ]
    else:
        name = f"{draw.choice(_EN_FIRST)} {draw.choice(_EN_LAST)}"
        phone = f"Tel. 020 {draw.randrange(10**8):08}"
        parts = [draw.choice(_EN_OPEN), *paragraphs, draw.choice(_EN_CLOSE), name, phone]
    address = f"{draw.choice(_EN_LAST).lower()}.{mark}@{draw.choice(_HOSTS)}"
    return Letter(chinese, name, address, subject.format(**holes), "\n\n".join(parts).format(**holes))


# --- as mails ---------------------------------------------------------------------------------------------------------


def mails(seed: str, count: int = MAILS, again: int = AGAIN) -> list[bytes]:
    """`count` mails, and `again` of them once more, byte for byte, somewhere behind their first delivery."""
    draw = random.Random(f"{seed} mails")
    result = [_mail(draw, letter, seed, index) for index, letter in enumerate(letters(count, seed))]
    for raw in draw.sample(result[: count // 2], k=again):
        result.insert(draw.randint(count // 2, len(result)), raw)
    return result


def write_mails(folder: Path, mails_: Sequence[bytes]) -> Path:
    folder.mkdir(parents=True)
    for index, raw in enumerate(mails_):
        (folder / f"{index:05}.eml").write_bytes(raw)
    return folder


def _mail(draw: random.Random, letter: Letter, seed: str, index: int) -> bytes:
    host = letter.address.partition("@")[2]
    charset = ("gb18030" if draw.random() < 0.2 else "utf-8") if letter.chinese else "us-ascii"
    mark = f"{draw.getrandbits(64):016x}"
    lines = [
        f"Return-Path: <{letter.address}>",
        f"Received: from {host} ({host} [192.0.2.{draw.randint(1, 254)}])",
        f"\tby mx1.insurer.example (Postfix) with ESMTPS id {mark[:12].upper()}",
        "\tfor <support@insurer.example>; Mon, 12 Oct 2026 08:14:09 +0000 (UTC)",
        f"From: {_encoded(letter.name)} <{letter.address}>",
        "To: support@insurer.example",
        f"Subject: {_encoded(letter.subject)}",
        f"Date: Mon, 12 Oct 2026 {index // 3600 % 24:02}:{index // 60 % 60:02}:{index % 60:02} +0800",
        f"Message-ID: <{mark}.{index}@{host}>",
        "User-Agent: Mozilla Thunderbird",
        "MIME-Version: 1.0",
    ]
    if draw.random() >= _WITH_HTML:
        return "\r\n".join([*lines, *_part("text/plain", letter.text, charset), ""]).encode()
    boundary = f"=_{mark}"
    html = "".join(f"<p>{escape(part)}</p>\r\n" for part in letter.text.split("\n\n"))
    html = f'<html><head><style>p {{ margin: 0 0 1em 0 }}</style></head><body dir="auto">{html}</body></html>'
    lines += [
        f'Content-Type: multipart/alternative; boundary="{boundary}"',
        "",
        f"--{boundary}",
        *_part("text/plain", letter.text, charset),
        f"--{boundary}",
        *_part("text/html", html, charset),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(lines).encode()


def _encoded(text: str) -> str:
    return text if text.isascii() else f"=?UTF-8?B?{base64.b64encode(text.encode()).decode()}?="


def _part(media_type: str, text: str, charset: str) -> list[str]:
    head = f"Content-Type: {media_type}; charset={charset}"
    if charset == "us-ascii":
        return [head, "Content-Transfer-Encoding: 7bit", "", text.replace("\r\n", "\n").replace("\n", "\r\n")]
    encoded = base64.encodebytes(text.encode(charset)).decode().replace("\n", "\r\n")
    return [head, "Content-Transfer-Encoding: base64", "", encoded.rstrip()]


# --- as API bodies ----------------------------------------------------------------------------------------------------

#: what stands in a template for the external id, which is of the same length
ID_HOLE = b"@" * 24


def body_templates(count: int, seed: str) -> list[bytes]:
    """JSON bodies with a hole for the external id, so that a client makes a new one by one `replace`."""
    return [
        json.dumps(
            {
                "external_id": ID_HOLE.decode(),
                "sender": letter.address,
                "sender_name": letter.name,
                "subject": letter.subject,
                "text": letter.text,
            },
            ensure_ascii=False,
        ).encode()
        for letter in letters(count, seed)
    ]
