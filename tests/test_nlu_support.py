"""What the tests of the NLU share: the shipped taxonomy, the data, and one model trained in the session."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from domain import Department, Taxonomy
from nlu.commands import SHIPPED, trained_on
from nlu.data import Example, read_folder
from nlu.embedded import EmbeddedTagger
from nlu.train import Settings, train
from nlu.weights import Model

ROOT = Path(__file__).parent.parent
DATA = ROOT / "nlu" / "data"
#: fewer folds than in earnest: what is tested here does not hang on them
QUICK = Settings(folds=2)
DATE = "2026-11-22"


@cache
def taxonomy() -> Taxonomy:
    """The one that config.yaml ships."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    departments = {name: Department(name, words["zh"], words["en"]) for name, words in config["departments"].items()}
    intents = {
        name: value if isinstance(value, str) else value["department"] for name, value in config["intents"].items()
    }
    return Taxonomy(departments, intents)


@cache
def examples() -> tuple[Example, ...]:
    return tuple(trained_on(DATA))


@cache
def dev() -> tuple[Example, ...]:
    return tuple(read_folder(DATA / "dev"))


@cache
def model() -> Model:
    """As the shipped one: without folds it is trained once."""
    return train(examples(), taxonomy(), dev=dev(), date=DATE, settings=SHIPPED)


@cache
def tagger() -> EmbeddedTagger:
    return EmbeddedTagger(model(), taxonomy=taxonomy())
