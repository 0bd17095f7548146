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
