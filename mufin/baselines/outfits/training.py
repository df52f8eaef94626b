"""Trains any rival on outfits, and keeps the pass that answers most questions of valid."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mufin.artifacts.outfits import Questions
from mufin.baselines.outfits.backbone import Architecture
from mufin.baselines.outfits.batches import Batch, batches
from mufin.baselines.outfits.items import Items
from mufin.baselines.outfits.scoring import Pairwise, Scorer, vectors_of
from mufin.metrics import blanks_filled
from mufin.progress import progress
from mufin.ragged import Lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What training may cost, and the size of the network: the same for all rivals.

    The publications train ResNet-18 from ImageNet at rates of about 5e-5; from random weights the
    rate is higher.
    """

    passes: int = 16  # over the outfits of train, at most
    patience: int = 5  # passes without a better accuracy on valid
    batch: int = 48  # outfits per step
    negatives: int = 8  # of the positive's type, per blank
    lr: float = 1e-3  # of Adam; falls to 0 in a straight line over `passes`
    dim: int = 64  # of an item's vector, as in all of the publications
    encoder: Architecture = field(default_factory=Architecture)  # of pictures


class Rival(Pairwise, Protocol):
    """A network with a loss on batches of outfits; also an nn.Module."""

    def loss(self, batch: Batch) -> Tensor:
        """() the mean loss of a batch."""


def trained(
    make: Callable[[], Rival],
    items: Items,
    train: Lists,
    valid: Questions,
    seed: int,
    budget: Budget,
    name: str,
) -> Scorer:
    """The scorer of the network that `make` returns, after training on the outfits `train`.

    The pass is chosen by accuracy on the questions `valid`, the earliest of equals; the last one if
    there are no questions. `train` and `valid` name rows of `items`. All randomness comes from
    `seed`.
    """
    asked = np.unique(np.concatenate([valid.items.values, valid.answers.values]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rng = np.random.default_rng([seed, 15])
        model = make()
        assert isinstance(model, nn.Module)
        optimiser = torch.optim.Adam(model.parameters(), lr=budget.lr)
        best, kept, waited = -1.0, copy.deepcopy(model.state_dict()), 0
        for done in progress(range(budget.passes), name, "passes"):
            for group in optimiser.param_groups:
                group["lr"] = budget.lr * (1 - done / budget.passes)
            _one_pass(model, optimiser, items, train, budget, rng)
            scores = _scorer(model, items, asked).fill(valid)
            found = float(blanks_filled(scores, valid.right).sum())
            waited += 1
            if found > best or not len(valid):
                best, kept, waited = found, copy.deepcopy(model.state_dict()), 0
            if waited >= budget.patience:
                break
        model.load_state_dict(kept)
        return _scorer(model, items, items.used)


def _one_pass(
    model: Rival,
    optimiser: torch.optim.Optimizer,
    items: Items,
    train: Lists,
    budget: Budget,
    rng: np.random.Generator,
) -> None:
    assert isinstance(model, nn.Module)
    model.train()
    for batch in batches(items, train, budget.batch, budget.negatives, rng):
        optimiser.zero_grad()
        model.loss(batch).backward()
        optimiser.step()


def _scorer(model: Rival, items: Items, rows: np.ndarray) -> Scorer:
    assert isinstance(model, nn.Module)
    model.eval()
    return Scorer(model, vectors_of(model, items, rows), items.types)
