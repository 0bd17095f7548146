"""What the pictures of an evaluation show."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from domain import Tags
from nlu.data import Example
from nlu.pictures import confusion, reliability
from tests.test_nlu_support import ROOT, taxonomy


def test_each_message_stands_in_the_row_of_its_true_department() -> None:
    said = Tags(intent="praise", confidence=0.9, department="sales")
    names, counts = confusion([(said, Example(text="x", intent="claim_status"))] * 3, taxonomy())
    assert counts[names.index("claims"), names.index("sales")] == counts.sum() == 3
    assert names[-1] == "triage"


def test_reliability_is_the_share_right_of_each_tenth() -> None:
    found = reliability(np.array([0.91, 0.99, 1.0, 0.05]), np.array([True, True, False, False]))
    assert found == [(0.05, 0.0, 1), (pytest.approx(0.9667, abs=1e-4), pytest.approx(2 / 3), 3)]


def test_running_sluice_does_not_load_what_draws() -> None:
    code = "import sys, app, serve, bot; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"matplotlib", "PIL", "sklearn", "nlu.evaluate", "nlu.train"} & set(done.stdout.split())
