"""People's labels, parted: what is learned from, what only measures, and when it confirms a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import Risk, Tags
from nlu import Text
from nlu.bundle import MAIN, packed, unpacked
from nlu.certificate import CONFIRMED, Certificate
from nlu.commands import train as train_command
from nlu.data import Example
from nlu.features import normalise
from nlu.frozen import LEAST_CONFIRMED, Split, confirmed, frozen_set, labelled, split
from nlu.train import Settings, train
from tests.test_nlu_support import DATA, DATE, QUICK, dev, examples, taxonomy


def label(
    message_id: int, text: str = "where is the money of my claim", intent: str = "claim_status"
) -> dict[str, Any]:
    return {
        "message_id": message_id, "text": text, "subject": "", "intent": intent,
        "metadata": {"sentiment": "neutral", "channel": "mail"},
    }  # fmt: skip


def labels(count: int, text: str = "where is the money of my claim") -> list[dict[str, Any]]:
    return [label(number, text) for number in range(1, count + 1)]


def test_half_of_the_labels_is_held_out_for_ever() -> None:
    few, many = split(labels(200), taxonomy()), split(labels(5000), taxonomy())
    assert 70 < len(few.held_out) < 130
    assert 2350 < len(many.held_out) < 2650
    assert few.learned.keys() <= many.learned.keys()
    assert few.held_out.keys() <= many.held_out.keys()


def test_enough_for_a_certificate_is_held_out_as_soon_as_there_is_enough() -> None:
    at_least = split(labels(LEAST_CONFIRMED), taxonomy())
    assert (len(at_least.held_out), len(at_least.learned)) == (LEAST_CONFIRMED, 0)
    more = split(labels(LEAST_CONFIRMED + 50), taxonomy())
    assert (len(more.held_out), len(more.learned)) == (LEAST_CONFIRMED, 50)


def test_each_language_is_parted_by_itself() -> None:
    chinese = [label(number, "我的理赔款什么时候到账") for number in range(1000, 1040)]
    found = split([*labels(LEAST_CONFIRMED), *chinese], taxonomy())
    assert {each.language for each in found.learned.values()} == {"zh"}
    assert 0 < len(found.learned) < 40


@given(st.sets(st.integers(1, 10**6), max_size=400))
def test_nothing_is_both_learned_and_held_out_and_nothing_is_lost(ids: set[int]) -> None:
    found = split([label(each) for each in ids], taxonomy())
    assert found.learned.keys() | found.held_out.keys() == ids
    assert not found.learned.keys() & found.held_out.keys()


def test_labels_of_an_intent_that_the_settings_no_longer_have_are_left_out() -> None:
    found = split([label(1, intent="gone"), label(2), label(3, intent="out_of_scope")], taxonomy())
    assert found.unknown == 1
    assert found.learned.keys() | found.held_out.keys() == {2, 3}


def test_people_say_nothing_of_risks() -> None:
    example = labelled(label(1, "I will tell the ombudsman") | {"subject": "Claim"})
    assert (example.text, example.language, example.risk_known) == ("Claim\nI will tell the ombudsman", "en", False)


def test_the_frozen_set_leaves_out_what_a_model_has_learned() -> None:
    people = split(labels(LEAST_CONFIRMED), taxonomy())
    everything, people_from = frozen_set(DATA, people)
    assert len(everything) == people_from + LEAST_CONFIRMED
    rest, _ = frozen_set(DATA, people, {1, 2, 3})
    assert len(rest) == len(everything) - 3


@dataclass
class Oracle:
    """Right for all but every `wrong`th message."""

    wrong: int
    version: str = "oracle"
    certificates: dict[str, Certificate] = field(default_factory=dict)

    def tag(self, texts: Sequence[Text]) -> list[Tags]:
        wrong = Tags(intent="praise", confidence=0.6, department="customer_service")
        right = Tags(intent="claim_status", confidence=0.9, department="claims")
        return [wrong if self.wrong and place % self.wrong == 0 else right for place in range(len(texts))]


def confirm(held_out: Sequence[Example], wrong: int) -> dict[str, Certificate]:
    return confirmed(Oracle(wrong), held_out, taxonomy(), max_misroute=0.05, delta=0.1, date=DATE)


def test_three_hundred_labels_confirm_a_threshold_and_fewer_do_not() -> None:
    held_out = list(split(labels(LEAST_CONFIRMED), taxonomy()).held_out.values())
    found = confirm(held_out, 10)
    assert found.keys() == {"en"}
    certificate = found["en"]
    assert (certificate.n, certificate.kind, certificate.date, certificate.model) == (300, CONFIRMED, DATE, "oracle")
    assert certificate.threshold == 0.9
    assert certificate.bound <= 0.05
    assert confirm(held_out[1:], 10) == {}


def test_a_confirmed_certificate_may_take_the_threshold_away() -> None:
    assert confirm([labelled(each) for each in labels(300)], 2)["en"].threshold == 0.9
    assert confirm([labelled(each) for each in labels(300)], 1)["en"].threshold is None


def test_training_replaces_the_synthetic_certificate_of_the_language_that_people_labelled() -> None:
    data = examples()[:: len(examples()) // 600]
    chinese = [each for each in dev() if each.language == "zh"]
    people = (chinese * (1 + LEAST_CONFIRMED // len(chinese)))[:LEAST_CONFIRMED]
    made = train(data, taxonomy(), dev=dev(), people=people, date=DATE, settings=QUICK)
    kinds = {name: each.kind for name, each in made.meta.certificates.items()}
    assert kinds == {"zh": "confirmed", "en": "synthetic"}
    certificate = made.meta.certificates["zh"]
    assert (certificate.n, certificate.model) == (LEAST_CONFIRMED, made.meta.version)
    without = train(data, taxonomy(), dev=dev(), date=DATE, settings=QUICK)
    assert without.meta.version != made.meta.version, "another certificate is another model"


def test_a_label_teaches_nothing_of_risks_that_people_were_not_asked_about() -> None:
    data = list(examples()[:: len(examples()) // 300])
    threats = [each for each in examples() if Risk.MEDIA in each.risk][:60]
    unasked = [
        Example(text=each.text, intent=each.intent, risk_known=False, language=each.language) for each in threats
    ]
    denied = [Example(text=each.text, intent=each.intent, language=each.language) for each in threats]

    def belief(more: list[Example]) -> float:
        """How strongly the threats are held for threats."""
        made = train([*data, *threats, *more], taxonomy(), dev=dev()[:200], settings=calibrated)
        column = len(made.meta.intents) + len(made.meta.sentiments) + made.meta.risks.index(Risk.MEDIA)
        rows = [made.features.row(normalise(each.text)) for each in threats]
        return sum(float(values @ made.weights[ids, column] + made.bias[column]) for ids, values in rows) / len(rows)

    calibrated = Settings(calibrate="dev")
    assert belief(denied) < 0.7 * belief([])
    assert belief(unasked) > 0.9 * belief([])


def small_data(folder: Path) -> Path:
    """A data folder of a few intents."""
    texts = {
        "claim_status": ["where is my claim money {}", "has claim number {} been paid", "status of the claim {}"],
        "app_problem": ["the app crashes on page {}", "your website shows error {}", "app broken since update {}"],
        "out_of_scope": ["recipe for {} pancakes", "who won match {}", "weather on day {}"],
    }
    for part, numbers in (("zh", "abcdefgh"), ("en", "ijklmnop"), ("mixed", "qr"), ("dev", "stuv"), ("test", "wxyz")):
        (folder / part).mkdir(parents=True)
        lines = ['version: "3.1"', "nlu:"]
        for intent, patterns in texts.items():
            lines += [f"- intent: {intent}", "  examples:"]
            for pattern in patterns:
                lines += [
                    f"  - text: {pattern.format(number * 3)}\n    metadata: {{sentiment: neutral}}"
                    for number in numbers
                ]
        (folder / part / "en.yml").write_text("\n".join(lines))
    return folder


def test_what_nearly_repeats_a_frozen_text_is_not_learned(tmp_path: Path) -> None:
    data = small_data(tmp_path / "data")
    text = "my parcel from the garden centre was crushed by the lorry driver"
    people = Split(
        {1: labelled(label(1, f"{text}!")), 2: labelled(label(2, "please tell me how the survey of my roof went"))},
        {3: labelled(label(3, text))},
        1,
    )
    trained = train_command(data, taxonomy(), tmp_path / MAIN, people)
    assert trained.learned == (2,)
    assert "1 labels are held out, 1 nearly repeat" in trained.summary
    assert "1 labels name an intent" in trained.summary


def test_a_bundle_is_the_folder_again_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    for name, content in ((MAIN, b"weights"), ("model.encoder.npz", b"heads")):
        (tmp_path / "from" / name).write_bytes(content)
    content = packed(tmp_path / "from")
    assert content == packed(tmp_path / "from")
    assert unpacked(content, tmp_path / "to").read_bytes() == b"weights"
    assert (tmp_path / "to" / "model.encoder.npz").read_bytes() == b"heads"


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="cannot be read"):
        unpacked(b"nonsense", tmp_path)
