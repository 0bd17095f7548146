"""The checks of the training data find what is wrong with it, and find nothing wrong with what is shipped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from domain import Risk
from nlu.check import (
    Limits,
    Pair,
    Report,
    alike,
    check,
    copies,
    counts,
    free_of,
    main,
    nearest_right,
    out_of_range,
    read_intents,
    read_telling,
    too_alike,
    too_few,
    unknown_labels,
)
from nlu.data import DataError, Example, read_folder
from nlu.features import normalise
from tests.test_nlu_support import DATA, ROOT, dev, examples, taxonomy

NOTHING = Limits(intent=0, out_of_scope=0, mixed=0, risk=0, decoy=0)
TELLING = {"policy_cancel": {"zh": ["退保", "APP"], "en": ["cancel", "cash value"]}}


def said(text: str, intent: str = "policy_cancel", language: str = "en") -> Example:
    return Example(text=text, intent=intent, language=language)


# --- numbers and labels -----------------------------------------------------------------------------------------------


def test_counts_name_every_intent_and_language_also_where_there_is_nothing() -> None:
    found = counts([said("a"), said("b"), said("c", "strange", "zh")], ["praise", "policy_cancel"])
    assert list(dict.fromkeys(intent for intent, _ in found)) == ["praise", "policy_cancel", "out_of_scope", "strange"]
    assert (found["policy_cancel", "en"], found["praise", "zh"], found["strange", "zh"]) == (2, 0, 1)


@pytest.mark.parametrize(
    ("limits", "wrong"),
    [
        (Limits(intent=2, out_of_scope=0, mixed=0, risk=0, decoy=0), "policy_cancel in zh: 1 examples, 2 are needed"),
        (Limits(intent=0, out_of_scope=2, mixed=0, risk=0, decoy=0), "out_of_scope: 1 examples, 2 are needed"),
        (Limits(intent=0, out_of_scope=0, mixed=2, risk=0, decoy=0), "in both languages: 1 examples, 2 are needed"),
        (Limits(intent=0, out_of_scope=0, mixed=0, risk=2, decoy=0), "with a risk flag: 1 examples, 2 are needed"),
        (Limits(intent=0, out_of_scope=0, mixed=0, risk=0, decoy=3), "with a decoy: 2 examples, 3 are needed"),
    ],
)
def test_too_few_of_a_kind_are_named(limits: Limits, wrong: str) -> None:
    rows = [
        said("one"),
        said("two"),
        said("退保", language="zh"),
        Example(text="x 退", intent="out_of_scope", language="mixed", risk=frozenset({Risk.LEGAL})),
        Example(text="court shoes", intent="praise", language="en", decoy=frozenset({Risk.LEGAL})),
        Example(text="law school was hard", intent="praise", language="en", decoy=frozenset({Risk.LEGAL})),
    ]
    assert too_few(rows, ["policy_cancel"], limits) == [wrong]


def test_labels_that_the_taxonomy_does_not_have_are_named() -> None:
    rows = [said("a"), said("b", "out_of_scope"), said("c", "cancel"), said("d", "cancel")]
    assert unknown_labels(rows, {**TELLING, "gone": {}}, ["policy_cancel"]) == [
        "cancel: not in the taxonomy (2 examples)",
        "gone: not in the taxonomy (telling words)",
    ]


# --- copies -----------------------------------------------------------------------------------------------------------


def test_the_index_is_jaccards_over_sets_of_runs_of_four_characters() -> None:
    # abcd bcde cdef defg | bcde cdef defg efgh: three in common, five in all
    assert alike(["abcdefg", "bcdefgh"], 0.59) == [Pair(0, 1, 3 / 5)]
    assert alike(["abcdefg", "bcdefgh"], 0.6) == []


def test_texts_shorter_than_a_run_are_compared_whole() -> None:
    assert alike(["hi", "ho", "hi", "👍"]) == [Pair(0, 2, 1.0)]


def test_case_width_and_white_space_do_not_make_a_text_another_one() -> None:
    assert alike(["ＡＰＰ  打不开\n了", "app 打不开 了"]) == [Pair(0, 1, 1.0)]


def test_pairs_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlu.check._ROWS", 2)
    texts = ["please cancel it", "where is my money", "who are you then", "hello", "please cancel it!"]
    assert [(pair.first, pair.second) for pair in alike(texts)] == [(0, 4)]


def test_nothing_has_no_copies() -> None:
    assert alike([]) == []


def test_copies_among_the_trained_and_from_the_held_out_are_errors() -> None:
    trained = [
        said("Please cancel my policy"),
        said("please  cancel my policy"),
        said("i want out of this"),
    ]
    held_out = [said("i want out of this!", language="zh")]
    errors, warnings = copies(trained, held_out)
    assert errors == [
        "duplicate: policy_cancel/en 'please cancel my policy' and policy_cancel/en 'please cancel my policy'",
        "near duplicate (0.94) of a held-out example: "
        "policy_cancel/en 'i want out of this' and policy_cancel/zh 'i want out of this!'",
    ]
    assert warnings == []


def test_copies_within_the_held_out_are_warnings() -> None:
    errors, warnings = copies([said("i want out of this")], [said("hello there"), said("hello there")])
    assert errors == []
    assert warnings == [
        "duplicate among held-out examples: policy_cancel/en 'hello there' and policy_cancel/en 'hello there'"
    ]


# --- telling words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language", "free"),
    [
        ("Please CANCEL it", "en", False),
        ("cancelled already?", "en", True),  # a word of its own
        ("pleasecancel", "en", True),
        ("the Cash Value please", "en", False),
        ("我要退保了", "zh", False),
        ("ＡＰＰ上不要了", "zh", False),
        ("我要cancel", "zh", True),  # the English list is not asked
        ("我要cancel它", "mixed", False),
        ("要退保 lah", "mixed", False),
        ("不要 lah", "mixed", True),
    ],
)
def test_telling_words_match_as_their_language_does(text: str, language: str, free: bool) -> None:
    assert free_of([said(text, language=language)], TELLING) == {("policy_cancel", language): float(free)}


def test_the_share_is_counted_by_intent_and_language() -> None:
    rows = [said("cancel"), said("no more"), said("enough"), said("退保", language="zh"), said("hi", "chitchat")]
    assert free_of(rows, TELLING) == {("policy_cancel", "en"): 2 / 3, ("policy_cancel", "zh"): 0.0}


def test_shares_out_of_range_are_warned_of_in_whole_per_cent() -> None:
    shares = {("a", "en"): 0.2, ("a", "zh"): 0.504, ("b", "en"): 0.348, ("b", "zh"): 0.8, ("b", "mixed"): 1.0}
    assert out_of_range(shares) == [
        "fewer than 35% hold no telling word: a en 20%",
        "more than 50% hold no telling word: b zh 80%",
    ]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("- a", "not a mapping"),
        ("a: [x]", "a: not a mapping of zh and en"),
        ("a: {fr: [x]}", "a: not a mapping of zh and en"),
        ("a: {en: []}", "a, en: not a list of words"),
        ("a: {en: [x, false]}", "a, en: not a list of words"),
        ("a: [", "line "),
    ],
)
def test_telling_words_that_cannot_be_read_are_refused_with_the_place(tmp_path: Path, content: str, wrong: str) -> None:
    path = tmp_path / "telling.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_telling(path)
    assert str(path) in str(error.value)
    assert wrong in str(error.value)


# --- the nearest neighbour --------------------------------------------------------------------------------------------


def test_the_nearest_other_example_is_asked_for_its_label() -> None:
    rows = [
        said("cancel my car policy"),
        said("cancel my house policy"),
        said("thanks for the help", "praise"),
        said("thanks but cancel my car policy", "praise"),
    ]
    # The last one's neighbour is the first; the third has none but the last.
    assert nearest_right(rows) == {("policy_cancel", "en"): 0.5, ("praise", "en"): 0.5}


def test_an_example_is_not_its_own_neighbour_and_a_stranger_to_all_has_none() -> None:
    assert nearest_right([said("cancel it"), said("退")]) == {("policy_cancel", "en"): 0.0}
    assert nearest_right([said("cancel it")]) == {}


def test_neighbours_are_found_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlu.check._ROWS", 1)
    rows = [
        said("cancel it now"),
        said("good work", "praise"),
        said("cancel it soon"),
        said("so cancel soon", "praise"),
    ]
    assert nearest_right(rows) == {("policy_cancel", "en"): 1.0, ("praise", "en"): 0.0}


def test_groups_that_a_neighbour_labels_right_too_often_are_warned_of() -> None:
    shares = {("a", "en"): 0.75, ("a", "zh"): 0.74, ("a", "mixed"): 1.0}
    assert too_alike(shares) == ["a in en: a nearest neighbour labels 75% right, the examples are too much alike"]


# --- all of it --------------------------------------------------------------------------------------------------------


def test_the_report_holds_each_kind_of_finding_and_the_table_shows_it() -> None:
    trained = [said("cancel it"), said("cancel it"), said("x", "strange")]
    report = check(trained, [said("y", "foreign")], ["policy_cancel"], TELLING, NOTHING)
    assert [error.split(":")[0] for error in report.errors] == ["foreign", "strange", "duplicate"]
    assert report.warnings == [
        "fewer than 35% hold no telling word: policy_cancel en 0%",
        "policy_cancel in en: a nearest neighbour labels 100% right, the examples are too much alike",
    ]
    table = report.to_table().splitlines()
    assert table[1].split() == ["policy_cancel", "0", "2", "0", "-", "0%", "-", "100%"]
    assert table[-1] == "3 errors, 2 warnings"
    assert any(line.startswith("error: strange") for line in table)
    assert any(line.startswith("warning: fewer than 35%") for line in table)


def write(folder: Path, *, config: str = "intents: {policy_cancel: {department: d}}") -> list[str]:
    """A small world on disk, as the command's arguments."""
    for name in ("zh", "en", "mixed", "dev", "test"):
        (folder / name).mkdir()
        body = {"nlu": [{"intent": "policy_cancel", "examples": [f"{name} is the only text in here"]}]}
        (folder / name / "a.yml").write_text(yaml.safe_dump(body), encoding="utf-8")
    (folder / "telling.yaml").write_text("policy_cancel: {en: [cancel]}", encoding="utf-8")
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return ["--data", str(folder), "--config", str(folder / "config.yaml")]


def test_the_command_ends_with_1_where_something_is_wrong(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, write(tmp_path))
    assert done.exit_code == 1
    assert "error: policy_cancel in zh: 1 examples, 150 are needed" in done.output


@pytest.mark.parametrize(("config", "wrong"), [("{}", "no intents"), ("[", "line "), ("a", "not a mapping")])
def test_the_command_ends_with_1_and_one_line_where_nothing_can_be_read(
    tmp_path: Path, config: str, wrong: str
) -> None:
    done = CliRunner().invoke(main, write(tmp_path, config=config))
    assert done.exit_code == 1
    assert wrong in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- what is shipped --------------------------------------------------------------------------------------------------


@cache
def shipped() -> Report:
    held_out = [*dev(), *read_folder(DATA / "test")]
    telling = read_telling(DATA / "telling.yaml")
    return check(examples(), held_out, read_intents(ROOT / "config.yaml"), telling)


def test_the_shipped_data_has_no_errors() -> None:
    assert shipped().errors == []


def test_no_shipped_intent_is_within_reach_of_its_telling_words_or_of_a_nearest_neighbour() -> None:
    assert min(share for (_, language), share in shipped().free.items() if language != "mixed") >= 0.35
    assert max(share for (_, language), share in shipped().nearest.items() if language != "mixed") < 0.75


def test_every_intent_has_six_to_thirty_different_telling_words_in_each_language() -> None:
    telling = read_telling(DATA / "telling.yaml")
    assert telling.keys() == taxonomy().intents.keys()
    for intent, languages in telling.items():
        assert languages.keys() == {"zh", "en"}
        for language, words in languages.items():
            assert 6 <= len({normalise(word) for word in words}) == len(words) <= 30, (intent, language)
