"""What the training of all rivals does: the pass is chosen on valid, within the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mufin.baselines.outfits.losses import euclidean
from mufin.baselines.outfits.training import Budget, trained
from tests.support.tiny_outfits import asked, tiny

ITEMS, OUTFITS = tiny(20)
VALID = asked(ITEMS, OUTFITS)
RIGHT = VALID.answers.values[VALID.answers.offsets[:-1] + VALID.right]


class Scripted(nn.Module):
    """Answers as many questions as its script says of each pass, whatever it is trained on."""

    def __init__(self, script: list[int]):
        super().__init__()
        self.script = script
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def vectors(self, pixels):
        """Not read: the vector of an item is its row."""
        return torch.zeros(len(pixels), 1)

    def distance(self, a, a_types, b, b_types):
        return euclidean(a, b)

    def loss(self, batch):
        self.passes += 1  # one batch per pass
        return self.weight**2


@pytest.fixture
def scripted(monkeypatch):
    """`trained` with a script of right answers per pass; the pass that was kept, and all run."""

    def run(script: list[int], **budget) -> tuple[int, int]:
        model, ran = Scripted(script), []

        def vectors_of(own, items, rows):
            done = int(own.passes)
            ran.append(done)
            out = torch.ones(len(items), 1)
            out[torch.from_numpy(RIGHT[: script[done - 1]])] = 0  # nearest to the given items
            out[torch.from_numpy(VALID.items.values)] = 0
            return out

        monkeypatch.setattr("mufin.baselines.outfits.training.vectors_of", vectors_of)
        settings = Budget(batch=100, passes=len(script), **budget)
        trained(lambda: model, ITEMS, OUTFITS, VALID, 0, settings, "scripted")
        return ran[-1], max(ran)

    return run


def test_the_pass_that_answers_most_of_valid_is_kept(scripted):
    assert scripted([3, 9, 17, 12, 5], patience=9) == (3, 5)


def test_of_equal_passes_the_first_is_kept(scripted):
    assert scripted([3, 17, 17, 17], patience=9)[0] == 2


def test_training_ends_when_passes_bring_nothing(scripted):
    assert scripted([17, 3, 3, 3, 18, 18], patience=3) == (1, 4)


def test_without_questions_the_last_pass_is_kept():
    none = replace(VALID.of("nothing"), items=OUTFITS.between(0, 0), answers=OUTFITS.between(0, 0))
    model = Scripted([])
    trained(lambda: model, ITEMS, OUTFITS, none, 0, Budget(batch=100, passes=3), "scripted")
    assert int(model.passes) == 3


def test_the_state_of_torch_stays_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(lambda: Scripted([]), ITEMS, OUTFITS, VALID, 0, Budget(passes=1), "scripted")
    assert torch.equal(torch.rand(3), expected)
    assert np.isfinite(expected.numpy()).all()
