"""The softmax over all labels that updates eta in its backward pass: losses, gradients, memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.no_cross_attention import NoCrossAttention
from mufin.nn.weights import weights_of
from mufin.ragged import Lists
from mufin.training.every_label import every_label, softmax_of_vectors
from mufin.training.fused_adamw import FusedAdamW
from mufin.training.fused_head import fused_softmax
from mufin.training.loop import train
from tests.support.allocations import Largest
from tests.support.training import finetuning, half_finetuning, machine

A, DIM = 6, 8


class Recorded(FusedAdamW):
    """Keeps the gradients that it is given, and changes nothing."""

    def __init__(self, table: torch.Tensor):
        super().__init__(table, 0.0)
        self.gradient = torch.zeros(table.shape)

    def update(self, first: int, gradient: torch.Tensor) -> None:
        self.gradient[first : first + len(gradient)] = gradient


def given(labels: int, block: int):
    """Vectors of datapoints and labels, classifiers with eta in bfloat16, and the true pairs."""
    torch.manual_seed(0)
    x, z = (normalize(torch.randn(n, DIM), dim=-1).requires_grad_() for n in (A, labels))
    classifiers = LabelClassifiers(labels, DIM)
    torch.nn.init.normal_(classifiers.mix.weight)
    classifiers.mix.sparse = False
    classifiers.free.weight.data = classifiers.free.weight.data.bfloat16()
    rng = np.random.default_rng(0)
    positives, out = (
        Lists.of_rows([rng.choice(labels, n, replace=False) for _ in range(A)]) for n in (3, 2)
    )
    every = every_label(np.arange(A), positives, None, [positives, out], labels, block)
    return x, z, classifiers, every


@pytest.mark.parametrize("block", [1, 5, 23, 50])
def test_loss_and_gradients_are_those_of_autograd(block):
    x, z, classifiers, every = given(23, block)
    eta = classifiers.free.weight.detach().float().requires_grad_()
    w = classifiers.combined(z, classifiers.mix.weight, eta)
    plain = softmax_of_vectors(x, w, every, 0.1, None)
    leaves = (x, z, classifiers.mix.weight)
    theirs = torch.autograd.grad(plain, (*leaves, eta))
    recorded = Recorded(classifiers.free.weight)
    loss = fused_softmax(x, z, classifiers, recorded, every, 0.1)
    ours = (*torch.autograd.grad(loss, leaves), recorded.gradient)
    assert torch.allclose(loss, plain, rtol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-6)


def test_a_step_makes_nothing_as_long_as_the_table():
    x, z, classifiers, every = given(5000, 100)
    eta = FusedAdamW(classifiers.free.weight, 0.01)

    def step() -> None:
        eta.begin(0.1, 1)
        fused_softmax(x, z.detach(), classifiers, eta, every, 0.1).backward()

    step()
    whole = [eta.table, eta.first, eta.second, z]
    with Largest(whole) as largest:
        step()
    assert largest.numbers <= 5000  # the gradient of alpha; a block of eta has 800


def run(folder, seed: int, half: bool, block: int | None = None, **changes):
    """The curve and the weights of a short Module IV over all labels."""
    made = half_finetuning if half else finetuning
    settings = {"loss": "softmax", "candidates": "all", "select": "last", "epochs": 15} | changes
    job, optimisers = made(machine(folder, 1e9), 0.0, **settings)
    job.model.cross_attention = NoCrossAttention()
    job.block = block or job.block
    curve = train(job, optimisers, seed, 10, machine(folder, 1e9))
    return [row["loss"] for row in curve], job.model


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_small_catalog_has_the_losses_of_float32(seed, tmp_path):
    (plain, _), (half, _) = (run(tmp_path / str(h), seed, h) for h in (False, True))
    assert half[-1] < 0.8 * half[0]
    assert half == pytest.approx(plain, rel=0.03)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_a_small_catalog_learns_with_held_labels(half, tmp_path):
    losses, _ = run(tmp_path, 0, half, train_labels=False)
    assert losses[-1] < 0.8 * losses[0]


def test_held_labels_are_embedded_in_each_epoch_and_never_encoded(tmp_path):
    job, optimisers = half_finetuning(
        machine(tmp_path, 1e9), 0.0, train_labels=False, select="last", epochs=3
    )
    embed, prepare, seen, counts = job.embed_labels, job.prepare, [], []

    def noted(model):
        seen.append(embed(model))
        return seen[-1]

    def counted(datapoints, rng):
        step = prepare(datapoints, rng)
        counts.append((step.count, len(np.unique(job.datapoints[datapoints]))))
        return step

    job.embed_labels, job.prepare = noted, counted
    train(job, optimisers, 0, 10, machine(tmp_path, 1e9))
    assert len(seen) == 3 and not np.allclose(seen[0], seen[2])
    assert all(products == datapoints for products, datapoints in counts)


def test_blocks_of_labels_train_nearly_the_same_weights(tmp_path):
    runs = [run(tmp_path / str(b), 0, True, b, epochs=3) for b in (24, 5)]
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-3)


def test_saved_weights_are_those_that_training_held(tmp_path):
    """Also in a network whose eta is in float32, as the next stage makes it."""
    _, model = run(tmp_path, 0, True, epochs=2)
    saved, z = weights_of(model), torch.eye(8)
    held = model.classifiers(torch.arange(8), z)
    later = LabelClassifiers(24, 8)
    prefix = "classifiers."
    later.load_state_dict(
        {n.removeprefix(prefix): t for n, t in saved.items() if n.startswith(prefix)}
    )
    assert saved["classifiers.free.weight"].dtype == torch.bfloat16
    assert later.free.weight.dtype == torch.float32
    assert torch.equal(later(torch.arange(8), z), held)
