"""What is said to callers, in Chinese and English, and what callers say when they want a person. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spoken:
    """One language of the menu."""

    #: as `<Gather>` knows it, which recognises speech
    heard_as: str
    #: as `<Say>` knows it, and a voice that speaks it
    spoken_as: str
    voice: str
    #: {key}: what to press for this language
    choose: str
    hello: str
    person_key: str
    #: said before the first words, and again before a recording
    consent: str
    ask: str
    #: an anonymous caller cannot be called back without it
    ask_number: str
    again: str
    unclear: str
    noted: str
    connecting: str
    closed: str
    nobody: str
    danger: str
    record: str
    nothing_heard: str
    goodbye: str
    goodbye_anonymous: str
    #: when nothing works
    trouble: str
    #: what stands in the ticket when the caller pressed 0
    wants_person: str


WORDS: Mapping[str, Spoken] = {
    "zh": Spoken(
        heard_as="cmn-Hans-CN",
        spoken_as="cmn-CN",
        voice="Polly.Zhiyu",
        choose="中文服务请按 {key}。",
        hello="您好，这里是客户服务热线。",
        person_key="需要人工服务，请随时按 0。",
        consent="您说的话会被转成文字并保存，用于处理您的诉求；如不同意，请直接挂机。请不要说出银行卡号和密码。",
        ask="请用一句话说明您的问题。",
        ask_number="您的号码没有显示，请同时说出可以联系到您的电话号码。",
        again="抱歉，没有听到您说话。",
        unclear="抱歉，可能没有听清楚，请您再说一遍。",
        noted="好的，已经记下了。如果还有补充，请继续说；没有的话，直接挂机就可以，我们会尽快联系您。",
        connecting="正在为您转接人工服务，请稍候。",
        closed="现在没有同事可以接听。",
        nobody="抱歉，同事暂时无法接听。",
        danger="如果有人身危险，请立即挂机并拨打当地的急救或报警电话。",
        record="请在提示音后留言，说完请按井号键。留言会被录音并保存，用于处理您的诉求；如不同意，请直接挂机。",
        nothing_heard="没有听到留言。",
        goodbye="感谢您的来电，我们会尽快给您回电。再见。",
        goodbye_anonymous="感谢您的来电。您的号码没有显示，如果没有留下电话号码，请再次来电或通过其他方式联系我们。再见。",
        trouble="抱歉，系统暂时出现故障，请稍后再次来电。",
        wants_person="转人工",
    ),
    "en": Spoken(
        heard_as="en-US",
        spoken_as="en-US",
        voice="Polly.Joanna",
        choose="For English, press {key}.",
        hello="Hello, this is customer service.",
        person_key="To talk to a person, press 0 at any time.",
        consent="What you say is written down and kept, so that we can deal with it. If you do not agree, please hang "
        "up. Please do not say card numbers or passwords.",
        ask="Please tell us in a sentence what it is about.",
        ask_number="Your number is hidden. Please also say a number where we can reach you.",
        again="Sorry, we did not hear anything.",
        unclear="Sorry, we may not have understood you well. Please say it once more.",
        noted="Thank you, we have it. If there is more, please go on. If not, you can simply hang up, and we will get "
        "back to you as soon as possible.",
        connecting="We are putting you through. One moment, please.",
        closed="No colleague can take calls at the moment.",
        nobody="Sorry, no colleague can answer right now.",
        danger="If anybody is in danger, please hang up now and call your local emergency number.",
        record="Please leave a message after the tone, and press the pound key when you are done. It is recorded and "
        "kept, so that we can deal with it. If you do not agree, please hang up.",
        nothing_heard="We did not hear a message.",
        goodbye="Thank you for your call. We will call you back as soon as possible. Goodbye.",
        goodbye_anonymous="Thank you for your call. Your number is hidden: unless you left one, please call again or "
        "contact us in another way. Goodbye.",
        trouble="Sorry, something is wrong on our side. Please call again in a little while.",
        wants_person="Talk to a person",
    ),
}

#: somebody is, or may be, in danger now
_DANGER = re.compile(
    r"救命|救护车|救護車|急救|快死了|报警|報警|\b(?:emergency|ambulance|help me|dying|call the police)\b", re.I
)
#: 人工 is also what joints, hearts and fertilisations are, of which insurers hear
_PERSON_ZH = re.compile(
    r"转人工|轉人工|找人工|要人工|接人工|人工(?:服务|服務|客服|坐席|座席|接听|接聽)|真人|转接|轉接|(?:跟|和|找)(?:客服|人)(?:说|說|讲|講|谈|談|聊)"
)
_ALONE_ZH = re.compile(r"(?:我?(?:要|想|找|转|轉|请|請)?)?(?:人工|客服|接线员|接線員)(?:人员|人員)?")
#: an agent is also who sells policies
_PERSON_EN = re.compile(
    r"\b(?:human|real person|live (?:agent|person)|operator|representative"
    r"|(?:speak|talk|connect me|put me through|transfer me) (?:to|with) (?:a|an|any|some|your|the)?\s?"
    r"(?:agent|person|someone|somebody|anyone|people|colleague))\b",
    re.I,
)
_ALONE_EN = re.compile(r"(?:an? )?(?:agent|person|someone)(?: please)?", re.I)


def in_danger(text: str) -> bool:
    return bool(_DANGER.search(text))


def wants_person(text: str) -> bool:
    """Whether a caller asks to be put through, or must be."""
    plain = " ".join(unicodedata.normalize("NFKC", text).strip(" 。.，,!！?？").split())
    if in_danger(plain) or _PERSON_ZH.search(plain) or _PERSON_EN.search(plain):
        return True
    return bool(_ALONE_ZH.fullmatch(plain.removesuffix("谢谢").strip("，, ")) or _ALONE_EN.fullmatch(plain))
