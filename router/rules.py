"""Where a message goes, and why. Pure: functions of values.

The order is fixed, and each step has a name that stands on the ticket:

1. `risk.self_harm`: the triage desk, top priority, a person at once;
2. `risk.injury`, `emergency`: claims at top priority, also when the model is unsure but claims is among its best two;
3. the first rule of `config.yaml` whose conditions hold;
4. `triage.out_of_scope`, `triage.unsure`, `triage.uncertified`: below the threshold, people sort;
5. `model`: the department that owns the intent.

A risk of regulator, legal or media raises the priority and tells supervisors, whichever step decided. No message with a
risk flag is ever routed without a person looking first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from domain import OUT_OF_SCOPE, TRIAGE, Language, Priority, Risk, Route, SettingsError, Tags, Taxonomy
from router.settings import RoutingSettings, Rule

EMERGENCY = "emergency_assistance"
CLAIMS = "claims"
_RAISING = (Risk.REGULATOR, Risk.LEGAL, Risk.MEDIA)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a message besides its tags."""

    channel: str
    customer: str  # the address


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which confidence the bot routes alone, and what that rests on."""

    confidence: float | None
    #: `synthetic`, `confirmed`, `setting` or `none`
    kind: str = "none"


def uncertified(_language: str, _model: str) -> Threshold:
    return Threshold(None)


class Rules:
    """The routing table with the taxonomy that it speaks of. Raises `SettingsError` for names that do not exist.

    `certified`: (language, version of the model that tagged) -> threshold. Asked each time, since models are promoted.
    """

    def __init__(
        self,
        settings: RoutingSettings,
        taxonomy: Taxonomy,
        certified: Callable[[str, str], Threshold] = uncertified,
    ) -> None:
        self.taxonomy = taxonomy
        self._rules = settings.rules
        self._setting = settings.threshold
        self._certified = certified
        self.new_matter_confidence = settings.new_matter_confidence
        for rule in settings.rules:
            _check(rule, taxonomy)

    def threshold(self, language: Language, model: str) -> Threshold:
        """The threshold in force for what a model said of a text in a language."""
        if self._setting is not None:
            return Threshold(self._setting, "setting")
        return self._certified(language.value, model)

    def trusted(self, tags: Tags) -> bool:
        """The bot may believe the intent without a person."""
        least = self.threshold(tags.language, tags.model).confidence
        return least is not None and tags.in_scope and tags.intent != OUT_OF_SCOPE and tags.confidence >= least

    def auto_routed(self, tags: Tags) -> bool:
        """The model alone would route it: what `classify` answers. Rules of one channel or customer do not count."""
        return not decide(tags, Facts("", ""), self).look_first


def _check(rule: Rule, taxonomy: Taxonomy) -> None:
    named = {
        "department": [*(rule.when.department or []), *([rule.department] if rule.department else [])],
        "intent": [name for name in rule.when.intent or [] if name != OUT_OF_SCOPE],
    }
    for kind, known in (("department", taxonomy.departments), ("intent", taxonomy.intents)):
        for name in named[kind]:
            if name not in known:
                raise SettingsError(
                    f"routing.rules: rule {rule.name!r} names the {kind} {name!r}, which does not exist"
                )


def decide(tags: Tags, facts: Facts, rules: Rules) -> Route:
    """Tags and facts -> Route. No clock, no I/O."""
    threshold = rules.threshold(tags.language, tags.model)
    why: dict[str, Any] = {
        "intent": tags.intent,
        "confidence": round(tags.confidence, 4),
        "threshold": threshold.confidence,
        "certificate": threshold.kind,
        "model": tags.model,
        "engine": tags.engine,
        "risk": [flag.value for flag in tags.risk],
        "alternatives": [[guess.intent, round(guess.confidence, 4)] for guess in tags.alternatives],
    }
    if Risk.SELF_HARM in tags.risk:
        return Route(
            department=TRIAGE, priority=Priority.URGENT, look_first=True, rule="risk.self_harm", why=why, alert=True
        )
    emergency = tags.intent == EMERGENCY and rules.trusted(tags)
    if emergency or ((Risk.INJURY in tags.risk or tags.intent == EMERGENCY) and _claims_near(tags, rules.taxonomy)):
        return Route(
            department=CLAIMS,
            priority=Priority.URGENT,
            look_first=True,
            rule="risk.injury" if Risk.INJURY in tags.risk else "emergency",
            why=why,
            alert=any(flag in tags.risk for flag in _RAISING),
        )
    route = _by_table(tags, facts, rules, why) or _by_model(tags, rules, threshold, why)
    return _raised(route, tags)


def _claims_near(tags: Tags, taxonomy: Taxonomy) -> bool:
    """Claims owns the best intent or the next best one."""
    nearest = [tags.department, *(taxonomy.owner(guess.intent) for guess in tags.alternatives)]
    best_two = list(dict.fromkeys(nearest))[:2]
    return CLAIMS in best_two


def _by_table(tags: Tags, facts: Facts, rules: Rules, why: dict[str, Any]) -> Route | None:
    for rule in rules._rules:
        if not _holds(rule, tags, facts, rules):
            continue
        # A rule that names no department leaves the choice to the model, and so to its threshold.
        sure = rule.department is not None or rules.trusted(tags)
        return Route(
            department=(rule.department or tags.department) if sure else TRIAGE,
            priority=rule.priority or Priority.NORMAL,
            look_first=rule.look_first or not sure or bool(tags.risk),
            rule=rule.name,
            why=why if sure else why | {"unsure": True},
            tags=tuple(rule.tags),
            alert=rule.alert,
        )
    return None


def _holds(rule: Rule, tags: Tags, facts: Facts, rules: Rules) -> bool:
    when = rule.when
    if when.confidence is not None:
        least, below = when.confidence.at_least, when.confidence.below
        if (least is not None and tags.confidence < least) or (below is not None and tags.confidence >= below):
            return False
    elif (when.intent or when.department) and rule.department is not None and not rules.trusted(tags):
        # An intent that the model only guesses must not pull a message past the threshold into a department,
        # unless the rule says how sure it wants the model to be.
        return False
    return (
        (when.intent is None or tags.intent in when.intent)
        and (when.department is None or tags.department in when.department)
        and (when.sentiment is None or tags.sentiment in when.sentiment)
        and (when.risk is None or any(flag in when.risk for flag in tags.risk))
        and (when.channel is None or facts.channel in when.channel)
        and (when.language is None or tags.language in when.language)
        and (when.entity is None or any(entity.type in when.entity for entity in tags.entities))
        and (when.customer is None or any(fnmatchcase(facts.customer.lower(), each.lower()) for each in when.customer))
    )


def _by_model(tags: Tags, rules: Rules, threshold: Threshold, why: dict[str, Any]) -> Route:
    if rules.trusted(tags):
        return Route(
            department=tags.department,
            priority=Priority.NORMAL,
            look_first=bool(tags.risk),
            rule="model",
            why=why,
        )
    if tags.intent == OUT_OF_SCOPE or not tags.in_scope:
        rule = "triage.out_of_scope"
    elif threshold.confidence is None:
        rule = "triage.uncertified"
    else:
        rule = "triage.unsure"
    return Route(department=TRIAGE, priority=Priority.NORMAL, look_first=True, rule=rule, why=why)


def _raised(route: Route, tags: Tags) -> Route:
    if not any(flag in tags.risk for flag in _RAISING):
        return route
    return Route(
        department=route.department,
        priority=route.priority.raised(),
        look_first=True,
        rule=route.rule,
        why=route.why,
        tags=route.tags,
        alert=True,
    )
