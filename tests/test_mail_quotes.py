"""Quotes and signatures: what is stripped for analysis, and what must survive."""

# ruff: noqa: E501  a quoted mail is read best as it stands

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import mail_quotes

_CORPUS = Path(__file__).parents[2] / "shared" / "data" / "mail" / "discourse__email_reply_trimmer" / "test"

#: style -> a reply in it; what the customer typed is always ANSWER
ANSWER = "我的理赔还没有到账，请尽快处理。"
QUOTED = "您好，您的理赔申请已收到。\n客服中心"

CHINESE = {
    "Gmail": f"{ANSWER}\n\n客服 <support@insurer.example> 于2024年3月5日周二 10:22写道：\n\n> 您好，您的理赔申请已收到。\n> 客服中心\n",
    "Gmail, unquoted": f"{ANSWER}\n\n客服 <support@insurer.example> 于2024年3月5日周二 10:22写道：\n\n{QUOTED}",
    "Gmail, wrapped": f"{ANSWER}\n\n客服中心 <\nsupport@insurer.example> 于2024年3月5日周二\n上午10:22写道：\n\n{QUOTED}",
    "Gmail, traditional": f"{ANSWER}\n\n客服 <support@insurer.example> 於 2024年3月5日 週二 上午10:22寫道：\n\n> 您好\n",
    "Apple Mail": f"{ANSWER}\n\n> 在 2024年3月5日，上午10:22，客服 <support@insurer.example> 写道：\n> \n> 您好\n",
    "Apple Mail, attribution outside": f"{ANSWER}\n\n在 2024年3月5日，10:22，客服 <support@insurer.example> 写道：\n\n{QUOTED}",
    "iPhone": f"{ANSWER}\n\n发自我的iPhone\n\n> 在 2024年3月5日，10:22，客服 <support@insurer.example> 写道：\n> \n> 您好\n",
    "163": f'{ANSWER}\n\n\n\n在 2024-03-05 10:22:11，"客服" <support@insurer.example> 写道：\n\n{QUOTED}',
    "163, English head": f'{ANSWER}\n\nAt 2024-03-05 10:22:11, "客服" <support@insurer.example> wrote:\n\n{QUOTED}',
    "163, old": f"{ANSWER}\n\n在2024-03-05 10:22:11，support@insurer.example 写道：\n>您好\n>客服中心",
    "163, separator": (
        f'{ANSWER}\n-----原始邮件-----\n发件人:"客服" <support@insurer.example>\n发送时间:2024-03-05 10:22:11 (星期二)\n'
        f"收件人: zhang@example.com\n抄送: \n主题: 理赔\n\n{QUOTED}"
    ),
    "NetEase Mail Master": (
        f"{ANSWER}\n\n---- 回复的原邮件 ----\n| 发件人 | 客服<support@insurer.example> |\n| 日期 | 2024年03月05日 10:22 |\n"
        f"| 收件人 | zhang@example.com |\n| 主题 | 理赔 |\n{QUOTED}"
    ),
    "Foxmail": (
        f"{ANSWER}\n\n\n\n张三\n \n发件人： 客服\n发送时间： 2024-03-05 10:22\n收件人： zhang@example.com\n主题： 理赔\n{QUOTED}"
    ).replace("\n张三\n \n", "\n"),
    "QQ": (
        f'{ANSWER}\n\n\n------------------ 原始邮件 ------------------\n发件人: "客服" <support@insurer.example>;\n'
        f'发送时间: 2024年3月5日(星期二) 上午10:22\n收件人: "张三"<zhang@qq.com>;\n\n主题: Re: 理赔\n\n\n\n{QUOTED}'
    ),
    "QQ, no-break spaces": (
        f'{ANSWER}\n\n------------------\xa0原始邮件\xa0------------------\n发件人:\xa0"客服" <support@insurer.example>;\n\n{QUOTED}'
    ),
    "QQ, English": f'{ANSWER}\n\n------------------ Original ------------------\nFrom:  "support";<s@i.example>;\n\n{QUOTED}',
    "Outlook": (
        f"{ANSWER}\n\n________________________________\n发件人: 客服 <support@insurer.example>\n发送时间: 2024年3月5日 10:22\n"
        f"收件人: 张三 <zhang@example.com>\n主题: 回复: 理赔\n\n{QUOTED}"
    ),
    "Outlook, separator": (
        f"{ANSWER}\n\n-----邮件原件-----\n发件人: 客服 [mailto:support@insurer.example] \n发送时间: 2024年3月5日 10:22\n"
        f"收件人: 张三\n主题: 理赔\n\n{QUOTED}"
    ),
    "Outlook, traditional": (
        f"{ANSWER}\n\n寄件者: 客服 <support@insurer.example>\n寄件日期: 2024年3月5日 上午 10:22\n收件者: 張三\n主旨: 理賠\n\n{QUOTED}"
    ),
    "Outlook, bold": f"{ANSWER}\n\n*发件人:* 客服\n*发送时间:* 2024年3月5日 10:22\n*收件人:* 张三\n*主题:* 理赔\n\n{QUOTED}",
}

ENGLISH = {
    "Gmail": "Not paid yet.\n\nOn Tue, Mar 5, 2024 at 10:22 AM Support <s@i.example> wrote:\n\n> Hello\n",
    "Gmail, wrapped": "Not paid yet.\n\nOn Tue, Mar 5, 2024 at 10:22 AM Support Of The Insurer <\ns@i.example> wrote:\n\n> Hello\n",
    "Gmail, wrapped twice": "Not paid yet.\n\nOn Tue, Mar 5, 2024 at 10:22 AM\nSupport <s@i.example>\nwrote:\n\nHello",
    "Apple Mail": "Not paid yet.\n\nOn Mar 5, 2024, at 10:22 AM, Support <s@i.example> wrote:\n\nHello",
    "Outlook": "Not paid yet.\n\nFrom: Support <s@i.example>\nSent: Tuesday, March 5, 2024 10:22 AM\nTo: Li\nSubject: RE: Claim\n\nHello",
    "Outlook, original": "Not paid yet.\n\n-----Original Message-----\nFrom: Support\nSent: Tuesday, March 5, 2024\nTo: Li\n\nHello",
    "quote marks alone": "Not paid yet.\n\n> Hello\n> Support\n",
    "iPhone": "Not paid yet.\n\nSent from my iPhone\n\n> On Mar 5, 2024, at 10:22 AM, Support <s@i.example> wrote:\n> \n> Hello",
    "signature": "Not paid yet.\n\n-- \nLi Wei\n12 Long Road\n",
}


@pytest.mark.parametrize("style", CHINESE)
def test_chinese_quotes(style: str) -> None:
    assert mail_quotes.own_words(CHINESE[style]) == ANSWER


@pytest.mark.parametrize("style", ENGLISH)
def test_english_quotes(style: str) -> None:
    assert mail_quotes.own_words(ENGLISH[style]) == "Not paid yet."


@pytest.mark.parametrize(
    "line",
    [
        "发自我的iPhone",
        "发自我的 iPhone",
        "發自我的iPhone",
        "發自我的手機",
        "從我的 iPhone 傳送",
        "从我的iPhone发送",
        "来自我的华为手机",
        "发自我的小米手机",
        "发自网易邮箱大师",
        "来自 网易邮箱大师",
        "发自新浪邮箱客户端",
        "从 Windows 版邮件发送",
        "发送自 Windows 10 版邮件应用",
        "获取 Outlook for iOS",
        "Get Outlook for Android<https://aka.ms/AAb9ysg>",
        "Sent from my Huawei phone",
        "Sent from Mail for Windows",
        "祝商祺",
        "顺颂商祺！",
        "祝工作顺利！\n\n张三\n电话：13800138000",
        "此致\n敬礼\n\n张三",
        "-- \n张三\n某某公司\n电话：010-12345678",
    ],
)
def test_signatures(line: str) -> None:
    assert mail_quotes.own_words(f"{ANSWER}\n\n{line}\n") == ANSWER


@pytest.mark.parametrize(
    "text",
    [
        "From: the start this was bad\nand it got worse.",
        "From: the start this was bad\nTo: the end it stayed so",
        "My journey\nFrom: Beijing\nTo: Shanghai\nDate: 2024-03-05 10:20\nThe flight came four hours late.",
        "客服小王在3月5日10:22写道：你们的理赔被拒绝了，我不服。",
        "你们客服昨天写道：不予理赔。\n请给我书面的理由。",
        "On 5 March 2024 your agent wrote:\nThe claim is refused.\nI want to know why.",
        "时间：2024年3月5日\n地点：北京\n车牌：京A12345\n我的车被撞了。",
        "保单号：PA20240305001\n姓名：张三\n邮箱：zhang@example.com\n请帮我退保。",
        "从手机客户端提交不了理赔申请",
        "来自北京的客户，想咨询重疾险",
        "Please see: sent from my bank account on 3 March",
        "我要投诉\n---------\n第一，没有人接电话。\n---------\n第二，没有人回邮件。",
        "祝工作顺利！\n另外我的保单号是 PA20240305001，请查一下理赔到哪一步了",
        "金额 > 5000 元的部分不赔吗？",
        "价格\n20 元和 30 元有什么区别？",
        "Hi,\nmy e-mail is zhang@example.com and I wait since 2024.\nPlease answer.",
    ],
)
def test_a_person_s_own_words_survive(text: str) -> None:
    assert mail_quotes.own_words(text) == text


def test_answers_between_quotes_survive() -> None:
    text = "客服 <support@insurer.example> 于2024年3月5日周二 10:22写道：\n\n> 请问事故发生在哪里？\n在北京朝阳区。\n\n> 有人受伤吗？\n没有人受伤。\n"
    kept = mail_quotes.own_words(text)
    assert "在北京朝阳区。" in kept
    assert "没有人受伤。" in kept
    assert "写道" not in kept


def test_an_answer_below_the_quote_survives_alone() -> None:
    text = "On Tue, Mar 5, 2024 at 10:22 AM Support <s@i.example> wrote:\n> Was anybody hurt?\n> Support\n\nNobody was hurt.\n"
    assert mail_quotes.own_words(text) == "Nobody was hurt."


def test_what_is_passed_on_survives_without_its_frame() -> None:
    text = "请处理。\n\n---------- 转发的邮件 ----------\n发件人: 李四 <li@example.com>\n日期: 2024年3月5日\n主题: 车祸\n收件人: 张三\n\n我的车被撞了。"
    kept = mail_quotes.own_words(text)
    assert kept.startswith("请处理。")
    assert kept.endswith("我的车被撞了。")
    assert "发件人" not in kept


def test_nothing_left_is_said_so() -> None:
    assert mail_quotes.own_words("> nur ein Zitat\n> sonst nichts\n") == ""


@given(
    st.lists(
        st.sampled_from(
            [
                "> a",
                "",
                "On 5 Mar 2024, at 10:22, B <b@c.example> wrote:",
                "From: a@b.example",
                "--",
                "text",
                "发件人：x",
            ]
        )
    )
)
@settings(deadline=None)
def test_any_mixture_is_survived(lines: list[str]) -> None:
    kept = mail_quotes.own_words("\n".join(lines))
    assert all(line in {*lines, ""} for line in kept.split("\n"))


@given(st.text(max_size=2_000))
@settings(deadline=None)
def test_any_text_is_survived(text: str) -> None:
    assert len(mail_quotes.own_words(text)) <= len(text)


def test_third_party_expectations() -> None:
    """All 49 pairs come out exactly on the day of writing; 40 are demanded."""
    if not _CORPUS.is_dir():
        pytest.skip("the shared mail corpus is not beside this repository")

    def text(path: Path) -> str:
        return path.read_bytes().decode().replace("\r\n", "\n").replace("\r", "\n").strip()

    wanted = sorted((_CORPUS / "trimmed").iterdir())
    exact = 0
    for path in wanted:
        mail = text(_CORPUS / "emails" / path.name)
        exact += (mail_quotes.own_words(mail) or mail).strip() == text(path)
    assert len(wanted) == 49
    assert exact >= 40, f"{exact} of {len(wanted)} exact"
