"""A few words that say a risk by themselves, so that no model can miss them.

Only what hardly ever stands in a harmless message. A regulator's name alone does not: people ask who supervises the
house, or say that they will not complain. Nor does suicide as a word: life policies have a clause of that name.
"""

from __future__ import annotations

import re

from domain import Risk

#: a pattern is tried only where one of its words stands: looking for a word costs a fiftieth of it
_NAMED: dict[Risk, tuple[tuple[str, ...], re.Pattern[str]]] = {
    Risk.REGULATOR: (
        ("12378", "银保监", "銀保監", "金融监管", "金融監管", "ombuds"),
        re.compile(
            r"(?<!不)(?<!别)(?:打了?|拨了?|投诉[到至给]?|举报[到至给]?|反映[到至给]?|已向|去找|要找|告到)[^,。!?不没]{0,3}"
            r"(?:12378|银保监|銀保監|金融监管|金融監管)"
            r"|\b(?:complain(?:ed|ing)?|complaint|report(?:ed|ing)?|escalat(?:e|ed|ing)|went|going|taking (?:it|this))"
            r" (?:\w+ ){0,3}?(?:to|with|before) (?:the )?(?:\w+ )?ombuds"
        ),
    ),
    Risk.LEGAL: (
        (
            *("律师", "律師", "法院", "法庭", "法律途径", "法律程序", "起诉", "起訴"),
            *("lawyer", "solicitor", "attorney", "court", "legal action", "sue you"),
        ),
        re.compile(
            r"(?:我[会要就已]|我们[会要]|否则|不然|只[好能有]|准备|打算|已经)[^,。!?不没是]{0,5}"
            r"(?:(?:请|找|委托|咨询)(?:了)?(?:一?个|位)?律[师師]|起[诉訴](?!书)|走法律(?:途径|程序)|法[院庭]见|去法院|上法[院庭])"
            r"|法[院庭]见|律[师師]函(?:已|会|就|明天|这周|寄)"
            r"|\b(?:my|our) (?:lawyer|solicitor|attorney) (?:will|is|has|says|told)\b|\bsee you in court\b"
            r"|\b(?:i|we)(?: am|'m| are|'re|'ll| will| have|'ve)? ?(?:\w+ ){0,2}?"
            r"(?:tak(?:e|ing) legal action|sue you|suing you)\b"
        ),
    ),
    Risk.SELF_HARM: (
        (
            *("自杀", "自殺", "轻生", "輕生", "想活", "活不下去", "一死了之", "寻死", "生命", "了结自己", "割腕"),
            *("my life", "own life", "myself", "to die", "to live", "it all"),
        ),
        re.compile(
            r"(?:[我想要去]|打算|准备)(?:自杀|自殺|轻生|輕生)|不想活(?!动|動|跃)|活不下去|一死了之|寻死|结束(?:自己的?)?生命|了结自己|割腕"
            r"|\b(?:kill(?:ing)? myself|end(?:ing)? my (?:own )?life|tak(?:e|ing) my own life|i (?:just )?want to die"
            r"|(?:don't|do not|dont) want to live|end(?:ing)? it all)\b"
        ),
    ),
}


def named_risks(text: str) -> set[Risk]:
    """The risks that a normalised text (lower case) names outright."""
    found: set[Risk] = set()
    for risk, (words, pattern) in _NAMED.items():
        for word in words:
            if word in text:
                if pattern.search(text):
                    found.add(risk)
                break
    return found
