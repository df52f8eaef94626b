"""For baselines that score a shortlist: pairs of a batch, the rate's decay, the mix chosen on
valid.
"""

from __future__ import annotations

import math
from typing import Callable

import numpy as np
import torch

from mufin.baselines.shared.task import WIDTH, Predict, Task
from mufin.ragged import Lists, is_in
from mufin.ranking.mix import Candidates, Mix, choose_mix, rank

# split -> shortlists (n, K) of distinct labels, -1 padded, and two scores of each: classifier,
# search
Scores = Callable[[str], tuple[np.ndarray, np.ndarray, np.ndarray]]


def positives_of(task: Task) -> Lists:
    """The relevant labels of each train datapoint, without filter pairs."""
    return task.truth["train"].minus(task.excluded["train"])


def negatives_of(found: np.ndarray, task: Task) -> np.ndarray:
    """(N, K) the train shortlists `found`, with -1 in place of relevant labels and filter pairs."""
    return np.where(
        is_in(found, task.truth["train"]) | is_in(found, task.excluded["train"]), -1, found
    )


def batch_pairs(
    truth: Lists, wrong: np.ndarray, negatives: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) label ids, -1 padded, and targets.

    1 for all labels of `truth`, 0 for `negatives` of `wrong`, -1 for padding.
    """
    lengths = np.diff(truth.offsets)
    labels = np.full((len(truth), int(lengths.max(initial=0))), -1, np.int64)
    labels[np.arange(labels.shape[1]) < lengths[:, None]] = truth.values
    drawn = np.argsort(rng.random(wrong.shape) + (wrong < 0), axis=1)[:, :negatives]
    chosen = np.take_along_axis(wrong, drawn, 1)
    target = np.concatenate([np.where(labels >= 0, 1, -1), np.where(chosen >= 0, 0, -1)], 1)
    return np.concatenate([labels, chosen], 1), target


def distinct(ids: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(u,) the distinct `ids` (n, K), with 0 for -1, and the place (n, K) of each among them.

    So a label's vector is computed once per batch.
    """
    labels, place = np.unique(np.maximum(ids, 0), return_inverse=True)
    return torch.from_numpy(labels).to(device), torch.from_numpy(place.reshape(ids.shape)).to(
        device
    )


def decay(optimisers: list[torch.optim.Optimizer], lr: float, epoch: int, epochs: int) -> None:
    """Set the learning rate of `epoch`: from `lr` to 0 along a cosine."""
    for group in (g for optimiser in optimisers for g in optimiser.param_groups):
        group["lr"] = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2


def step(optimisers: list[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    """One step of all optimisers down the gradient of `loss`."""
    for optimiser in optimisers:
        optimiser.zero_grad()
    loss.backward()
    for optimiser in optimisers:
        optimiser.step()


def mixed(scores: Scores, task: Task, betas: tuple[float, ...]) -> Predict:
    """beta classifier + (1 - beta) search.

    Beta by `choose_mix` on valid, the nearest to 0.5 where valid is empty.
    """
    if task.titles["valid"]:
        valid, truth, excluded = (
            Candidates(*scores("valid")),
            task.truth["valid"],
            task.excluded["valid"],
        )
        mix, _ = choose_mix(valid, truth, excluded, [Mix(beta) for beta in betas])
    else:
        mix = Mix(min(betas, key=lambda beta: abs(beta - 0.5)))

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        return rank(Candidates(*scores(split)), mix, task.excluded[split], width=WIDTH)

    return predict
