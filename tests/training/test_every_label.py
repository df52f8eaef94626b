"""Module IV over all labels in blocks: the loss and gradients of the plain (A, L) matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.artifacts.curated import Split
from mufin.nn.concat import ConCat
from mufin.nn.cross_attention import CrossAttention
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.ragged import Lists
from mufin.training import every_label
from mufin.training.every_label import (
    AT_ONCE,
    BLOCK,
    BLOCK_OF_PAIRS,
    PAIRS_AT_ONCE,
    labels_per_block,
)
from mufin.training.finetuning import Finetuning
from mufin.training.loop import train
from tests.support.training import Killed, L, finetuning, killed_after, machine

KINDS = {"attention": CrossAttention, "concat": ConCat, "none": NoCrossAttention}


def job(folder, kind: str, block: int | None, dropout: float = 0.0, **changes):
    """Module IV over all labels, `block` at once, with the replacement `kind` of A_C."""
    made, optimisers = finetuning(
        machine(folder, 1e9), dropout, candidates="all", select="last", **changes
    )
    torch.manual_seed(2)
    made.model.cross_attention = NoCrossAttention() if kind == "none" else KINDS[kind](8)
    made.block = block
    return made, optimisers


def with_filter_pairs(made: Finetuning, weighted: bool) -> None:
    """The third label of a datapoint is left out; others have a true label that is no positive."""
    rng = np.random.default_rng(1)
    excluded = Lists.of_rows([[int(row[0]), int(rng.integers(L))] for row in made.relevance.lists])
    weights = np.linspace(0.5, 2.0, len(made.positives.values)) if weighted else None
    kept = made.positives.only(rng.random(len(made.positives.values)) < 0.7)
    made.exclusion.lists = excluded
    if weighted:
        made.weights = weights
    else:
        made.positives = made.pairs.lists = kept


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("loss", ["softmax", "hinge"])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_give_the_loss_and_gradients_of_one_matrix(kind, loss, weighted, tmp_path):
    found = []
    for block in (None, 5):
        made, _ = job(tmp_path, kind, block, loss=loss)
        with_filter_pairs(made, weighted)
        step = made.prepare(np.array([3, 1, 8, 5]), np.random.default_rng(0))
        assert (step.every is None) == (block is None)
        value = made.loss(step)
        value.backward()
        gradients = {
            n: p.grad.to_dense() for n, p in made.model.named_parameters() if p.grad is not None
        }
        found.append((value, gradients))
    (theirs, plain), (ours, blocked) = found
    assert torch.allclose(ours, theirs, rtol=1e-5) and plain.keys() == blocked.keys()
    for name, gradient in plain.items():
        assert torch.allclose(blocked[name], gradient, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("kind", ["attention", "none"])
def test_a_killed_run_in_blocks_resumes_to_the_same_bytes(kind, tmp_path):
    runs = []
    for name, dies in (("whole", None), ("broken", 7)):
        folder = tmp_path / name
        made, optimisers = job(folder, kind, 5, dropout=0.1, loss="softmax")
        if dies is not None:
            with pytest.raises(Killed):
                train(killed_after(made, dies), optimisers, 5, 10, machine(folder, 0.0))
            made, optimisers = job(folder, kind, 5, dropout=0.1, loss="softmax")
        train(made, optimisers, 5, 10, machine(folder, 0.0))
        runs.append(made.model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("kind", ["attention", "none"])
@pytest.mark.parametrize("loss", ["softmax", "hinge"])
def test_module_four_learns_in_blocks(kind, loss, tmp_path):
    made, optimisers = job(tmp_path, kind, 5, loss=loss, epochs=30)
    curve = train(made, optimisers, 1, 10, machine(tmp_path, 1e9))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_a_step_in_bfloat16_has_nearly_the_loss_in_float32(tmp_path):
    made, _ = job(tmp_path, "none", 5, loss="softmax")
    step, values = made.prepare(np.arange(8), np.random.default_rng(0)), []
    for on in (False, True):
        with torch.autocast("cpu", torch.bfloat16, on):
            values.append(made.loss(step))
    assert values[0] != values[1] and torch.allclose(*values, rtol=0.01)


@pytest.mark.parametrize(
    "by_pair, block, most",
    [(False, BLOCK, AT_ONCE), (True, BLOCK_OF_PAIRS, PAIRS_AT_ONCE)],
    ids=["vectors", "bags"],
)
def test_blocks_are_for_large_catalogs_alone(by_pair, block, most):
    assert labels_per_block(128, most // 128, by_pair) is None
    assert labels_per_block(128, most // 128 + 1, by_pair) == block // 128
    assert labels_per_block(2**30, 10, by_pair) == 1


def test_a_step_says_which_labels_are_left_out():
    split = Split(np.arange(2), Lists.of_rows([[1, 4], [0]]), Lists.of_rows([[2], [0, 6]]))
    positives = split.labels.only(np.array([True, False, True]))
    every = every_label.every_label(
        np.array([1, 0]), positives, None, [split.labels, split.excluded], 7, 3
    )

    def of(pairs):
        blocks = range(len(pairs.ends) - 1)
        return {
            (int(r), b * 3 + int(p))
            for b in blocks
            for r, p in zip(*pairs.of_block(b), strict=True)
        }

    assert of(every.positive) == {(1, 1), (0, 0)}
    assert of(every.left_out) == {(1, 4), (1, 2), (0, 6)}
