"""Where a message goes: pure decisions, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from domain import (
    OUT_OF_SCOPE,
    TRIAGE,
    Entity,
    Guess,
    Language,
    Priority,
    Risk,
    Route,
    Sentiment,
    SettingsError,
    Tags,
    Taxonomy,
)
from router.rules import Facts, Rules, Threshold, decide
from router.settings import RoutingSettings
from settings import load

SHIPPED = load({})
TAXONOMY: Taxonomy = SHIPPED.taxonomy
FACTS = Facts("mail", "li@example.com")


def tags(intent: str = "claim_status", confidence: float = 0.9, **values: Any) -> Tags:
    given: dict[str, Any] = {"department": TAXONOMY.owner(intent), "language": Language.ZH}
    return Tags(intent=intent, confidence=confidence, **(given | values))


def rules(*table: dict[str, Any], threshold: float | None = 0.5) -> Rules:
    named = [{"name": f"rule {index}"} | rule for index, rule in enumerate(table)]
    return Rules(RoutingSettings.model_validate({"rules": named, "threshold": threshold}), TAXONOMY)


def route(given: Tags, *table: dict[str, Any], facts: Facts = FACTS, threshold: float | None = 0.5) -> Route:
    return decide(given, facts, rules(*table, threshold=threshold))


def brief(found: Route) -> tuple[str, Priority, bool, str]:
    return found.department, found.priority, found.look_first, found.rule


EVERYTHING: dict[str, Any] = {"name": "all", "department": "sales", "priority": "low"}


# --- the steps in their order -----------------------------------------------------------------------------------------


def test_the_model_alone_routes_to_the_owner_of_the_intent() -> None:
    assert brief(route(tags())) == ("claims", Priority.NORMAL, False, "model")


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (tags(confidence=0.49), "triage.unsure"),
        (tags(OUT_OF_SCOPE, 0.99), "triage.out_of_scope"),
        (tags(in_scope=False), "triage.out_of_scope"),
    ],
)
def test_what_the_model_is_not_sure_of_goes_to_people(given: Tags, rule: str) -> None:
    assert brief(route(given)) == (TRIAGE, Priority.NORMAL, True, rule)


def test_the_threshold_itself_suffices() -> None:
    assert route(tags(confidence=0.5)).rule == "model"


def test_a_rule_comes_before_the_model_and_before_its_threshold() -> None:
    for given in (tags(), tags(confidence=0.1), tags(OUT_OF_SCOPE, 0.1)):
        assert brief(route(given, EVERYTHING)) == ("sales", Priority.LOW, False, "all")


def test_the_first_rule_that_holds_decides() -> None:
    found = route(tags(), {"when": {"intent": "praise"}, "tags": ["a"]}, {"tags": ["b"]}, {"tags": ["c"]})
    assert (found.rule, found.tags) == ("rule 1", ("b",))


def test_self_harm_comes_before_everything() -> None:
    for given in (tags(), tags("emergency_assistance"), tags(OUT_OF_SCOPE, 0.1)):
        danger = Tags(
            **{name: getattr(given, name) for name in Tags.__slots__} | {"risk": (Risk.INJURY, Risk.SELF_HARM)}
        )
        found = route(danger, EVERYTHING)
        assert brief(found) == (TRIAGE, Priority.URGENT, True, "risk.self_harm")
        assert found.alert


def test_somebody_hurt_goes_to_claims_at_once_where_claims_is_near() -> None:
    unsure = tags("policy_change", 0.3, risk=(Risk.INJURY,), alternatives=(Guess("claim_status", 0.2),))
    for given in (tags(risk=(Risk.INJURY,)), unsure, tags(OUT_OF_SCOPE, 0.1, risk=(Risk.INJURY,),
                  alternatives=(Guess("file_claim", 0.1),))):  # fmt: skip
        assert brief(route(given, EVERYTHING)) == ("claims", Priority.URGENT, True, "risk.injury")


def test_somebody_hurt_far_from_claims_goes_where_the_matter_belongs_and_a_person_looks() -> None:
    far = tags(
        "policy_change", risk=(Risk.INJURY,), alternatives=(Guess("invoice_request", 0.1), Guess("file_claim", 0))
    )
    assert brief(route(far)) == ("policy_service", Priority.NORMAL, True, "model")


def test_an_emergency_goes_to_claims_at_once() -> None:
    assert brief(route(tags("emergency_assistance"), EVERYTHING)) == ("claims", Priority.URGENT, True, "emergency")
    assert brief(route(tags("emergency_assistance", 0.2))) == ("claims", Priority.URGENT, True, "emergency")


@pytest.mark.parametrize("flag", [Risk.REGULATOR, Risk.LEGAL, Risk.MEDIA])
def test_a_threat_raises_the_priority_and_tells_supervisors_whoever_decided(flag: Risk) -> None:
    by_model, by_rule = route(tags(risk=(flag,))), route(tags(risk=(flag,)), EVERYTHING)
    assert brief(by_model) == ("claims", Priority.HIGH, True, "model")
    assert brief(by_rule) == ("sales", Priority.NORMAL, True, "all")
    assert by_model.alert
    assert by_rule.alert
    assert route(tags(confidence=0.1, risk=(flag,))).department == TRIAGE
    assert route(tags(risk=(flag, Risk.INJURY))).alert


@pytest.mark.parametrize("flag", list(Risk))
@pytest.mark.parametrize("given", [tags(), tags("praise"), tags(confidence=0.1), tags(OUT_OF_SCOPE, 0.2)])
def test_no_message_with_a_risk_is_routed_without_a_person(given: Tags, flag: Risk) -> None:
    risky = Tags(**{name: getattr(given, name) for name in Tags.__slots__} | {"risk": (flag,)})
    for table in ([], [EVERYTHING]):
        assert route(risky, *table).look_first
    assert not rules().auto_routed(risky)


# --- conditions -------------------------------------------------------------------------------------------------------

_FULL = tags(sentiment=Sentiment.NEGATIVE, risk=(Risk.LEGAL,), entities=(Entity("policy_number", "P1", "P1", 0, 2),))


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({}, True),
        ({"intent": "claim_status"}, True),
        ({"intent": ["praise", "claim_status"]}, True),
        ({"intent": "praise"}, False),
        ({"department": "claims"}, True),
        ({"department": "sales"}, False),
        ({"sentiment": "negative"}, True),
        ({"sentiment": ["positive", "neutral"]}, False),
        ({"risk": ["media", "legal"]}, True),
        ({"risk": "media"}, False),
        ({"channel": "mail"}, True),
        ({"channel": ["api", "chat"]}, False),
        ({"language": "zh"}, True),
        ({"language": "en"}, False),
        ({"entity": "policy_number"}, True),
        ({"entity": "phone"}, False),
        ({"customer": "li@example.com"}, True),
        ({"customer": "*@EXAMPLE.com"}, True),
        ({"customer": ["l?@example.com"]}, True),
        ({"customer": "*@example.org"}, False),
        ({"confidence": {"at_least": 0.9}}, True),
        ({"confidence": {"at_least": 0.91}}, False),
        ({"confidence": {"below": 0.91}}, True),
        ({"confidence": {"below": 0.9}}, False),
        ({"confidence": {"at_least": 0.5, "below": 0.95}}, True),
        ({"intent": "claim_status", "channel": "mail", "sentiment": "negative"}, True),
        ({"intent": "claim_status", "channel": "chat"}, False),
    ],
)
def test_a_rule_holds_when_all_its_conditions_do(when: dict[str, Any], holds: bool) -> None:
    found = route(_FULL, {"when": when, "department": "sales"})
    assert (found.rule == "rule 0") is holds


def test_a_guessed_intent_pulls_no_message_past_the_threshold() -> None:
    guessed = tags("fraud_report", 0.2)
    by_intent = {"when": {"intent": "fraud_report"}, "department": "compliance"}
    by_department = {"when": {"department": "compliance"}, "department": "compliance"}
    assert brief(route(guessed, by_intent, by_department)) == (TRIAGE, Priority.NORMAL, True, "triage.unsure")
    assert route(tags("fraud_report", 0.9), by_intent).rule == "rule 0"


def test_a_rule_may_say_for_itself_how_sure_the_model_must_be() -> None:
    early = {"when": {"intent": "fraud_report", "confidence": {"at_least": 0.2}}, "department": "compliance"}
    assert brief(route(tags("fraud_report", 0.2), early)) == ("compliance", Priority.NORMAL, False, "rule 0")


def test_a_rule_without_a_department_leaves_the_choice_to_the_model_and_its_threshold() -> None:
    urgent = {"when": {"sentiment": "neutral"}, "priority": "urgent", "tags": ["x"], "alert": True}
    sure, unsure = route(tags(), urgent), route(tags(confidence=0.1), urgent)
    assert brief(sure) == ("claims", Priority.URGENT, False, "rule 0")
    assert brief(unsure) == (TRIAGE, Priority.URGENT, True, "rule 0")
    assert unsure.why["unsure"] is True
    assert "unsure" not in sure.why
    assert (sure.tags, sure.alert) == (("x",), True)


def test_a_rule_may_ask_for_a_person() -> None:
    assert route(tags(), {"department": "claims", "look_first": True}).look_first


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_each_language_has_the_threshold_of_its_certificate() -> None:
    certified = {"zh": Threshold(0.8, "confirmed"), "en": Threshold(None, "synthetic")}
    table = Rules(RoutingSettings(), TAXONOMY, lambda language, _model: certified.get(language, Threshold(None)))
    sure = decide(tags(confidence=0.85), FACTS, table)
    assert (sure.rule, sure.why["threshold"], sure.why["certificate"]) == ("model", 0.8, "confirmed")
    assert decide(tags(confidence=0.75), FACTS, table).rule == "triage.unsure"
    for language in (Language.EN, Language.MIXED, Language.OTHER):
        found = decide(tags(confidence=0.999, language=language), FACTS, table)
        assert brief(found) == (TRIAGE, Priority.NORMAL, True, "triage.uncertified")


def test_a_message_is_held_to_the_threshold_of_the_model_that_tagged_it() -> None:
    """Also where another model was promoted before it is routed."""
    certified = {"old": Threshold(0.8, "synthetic"), "new": Threshold(0.6, "confirmed")}
    table = Rules(RoutingSettings(), TAXONOMY, lambda _language, model: certified[model])
    assert decide(tags(confidence=0.7, model="old"), FACTS, table).rule == "triage.unsure"
    found = decide(tags(confidence=0.7, model="new"), FACTS, table)
    assert (found.rule, found.why["threshold"], found.why["certificate"]) == ("model", 0.6, "confirmed")


def test_a_threshold_of_the_settings_holds_for_every_language() -> None:
    table = Rules(RoutingSettings(threshold=0.6), TAXONOMY, lambda _language, _model: Threshold(0.99, "confirmed"))
    found = decide(tags(confidence=0.7, language=Language.OTHER), FACTS, table)
    assert (found.rule, found.why["certificate"]) == ("model", "setting")


def test_the_reason_says_what_it_is_made_of() -> None:
    why = route(tags(risk=(Risk.LEGAL,), alternatives=(Guess("praise", 0.05),), model="m1")).why
    assert why == {
        "intent": "claim_status", "confidence": 0.9, "threshold": 0.5, "certificate": "setting", "model": "m1",
        "engine": "embedded", "risk": ["legal"], "alternatives": [["praise", 0.05]],
    }  # fmt: skip


def test_what_classify_calls_auto_routed_is_routed_without_a_person_on_any_channel() -> None:
    table = rules({"when": {"channel": "mail"}, "look_first": True})
    assert table.auto_routed(tags())
    assert not table.auto_routed(tags(confidence=0.4))


# --- the table itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [{"department": "nowhere"}, {"when": {"department": "nowhere"}}, {"when": {"intent": "nonsense"}}],
)
def test_a_rule_that_names_what_does_not_exist_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"rule 'rule 0' names the .* which does not exist"):
        rules(rule)


@pytest.mark.parametrize(
    "when", [{"risk": "earthquake"}, {"sentiment": "angry"}, {"language": "fr"}, {"colour": "red"},
             {"confidence": {"at_least": 2}}]
)  # fmt: skip
def test_a_condition_that_cannot_hold_is_refused(when: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rules({"when": when})


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="two rules are named"):
        rules({"name": "x"}, {"name": "x"})


def test_the_shipped_table_routes_every_intent_to_its_owner() -> None:
    shipped = Rules(SHIPPED.routing.model_copy(update={"threshold": 0.5}), TAXONOMY)
    for intent, owner in TAXONOMY.intents.items():
        assert decide(tags(intent), FACTS, shipped).department == owner
        unsure = decide(tags(intent, 0.3), FACTS, shipped)
        if intent != "emergency_assistance":
            assert (unsure.department, unsure.look_first) == (TRIAGE, True)
    assert decide(tags("complaint_sales"), FACTS, shipped).priority is Priority.HIGH
    assert decide(tags("praise"), FACTS, shipped).priority is Priority.LOW
