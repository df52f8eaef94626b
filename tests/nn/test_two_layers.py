"""The projection by two layers: its widths, its spectral norm, its state; training and resuming."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mufin.nn.mufin import Projection
from mufin.nn.weights import weights_of
from mufin.training.loop import train
from mufin.training.optimisers import Optimisers
from tests.support.training import (
    RATES,
    WIDTH,
    Killed,
    finetuning,
    killed_after,
    machine,
    pretraining,
)


def projection(width: int = 12, dim: int = 8) -> Projection:
    torch.manual_seed(0)
    return Projection(width, dim, "two_layers", 0.0)


def matrices(p: Projection) -> list[np.ndarray]:
    """The two matrices as they are multiplied, in eval mode."""
    p.eval()
    return [layer.weight.detach().double().numpy() for layer in (p.linear.first, p.linear.second)]


@pytest.mark.parametrize("width, between, dim", [(768, 384, 192), (24, 20, 16), (16, 28, 48)])
def test_the_width_between_is_the_geometric_mean(width, between, dim):
    shapes = [matrix.shape for matrix in matrices(projection(width, dim))]
    assert shapes == [(between, width), (dim, between)]
    assert projection(width, dim)(torch.randn(5, width)).shape == (5, dim)


def test_each_matrix_is_divided_by_its_largest_singular_value():
    p = projection(40, 10)
    for layer in (p.linear.first, p.linear.second):
        layer.parametrizations.weight.original.data.mul_(37.0)
    x = torch.randn(3, 40)
    for _ in range(100):  # a power iteration each
        p.train()(x)
    for layer, matrix in zip((p.linear.first, p.linear.second), matrices(p)):
        raw = layer.parametrizations.weight.original.detach().double().numpy()
        largest = np.linalg.svd(raw, compute_uv=False)[0]
        assert np.allclose(matrix, raw / largest, atol=1e-5)
        assert np.linalg.svd(matrix, compute_uv=False)[0] == pytest.approx(1, abs=1e-5)


def test_the_output_is_two_affine_maps():
    p, x = projection().eval(), torch.randn(6, 12)
    a, b = (torch.from_numpy(matrix).float() for matrix in matrices(p))
    slow = (x @ a.T + p.linear.first.bias) @ b.T + p.linear.second.bias
    assert torch.allclose(p(x), slow, atol=1e-6)


def test_no_difference_becomes_longer():
    p, x = projection(64, 16).eval(), torch.randn(2, 50, 64)
    before, after = (x[0] - x[1]).norm(dim=1), (p(x[0]) - p(x[1])).norm(dim=1)
    assert (after <= before * 1.01).all()


def test_predictions_do_not_move_the_power_iteration():
    p, x = projection().eval(), torch.randn(3, 12)
    before = copy.deepcopy(p.state_dict())
    first = p(x)
    assert torch.equal(first, p(x))
    assert all(torch.equal(before[n], t) for n, t in p.state_dict().items())
    p.train()(x)
    assert any(not torch.equal(before[n], t) for n, t in p.state_dict().items())


def test_saved_weights_give_the_same_output():
    p, x = projection().train(), torch.randn(3, 12)
    for _ in range(3):
        p(x)
    torch.manual_seed(9)
    other = Projection(12, 8, "two_layers", 0.0)
    other.load_state_dict(weights_of(p))
    assert torch.equal(other.eval()(x), p.eval()(x))


def job_of(make, where):
    """A job whose titles are projected by two layers."""
    job, _ = make(where, 0.0, **({"select": "last"} if make is finetuning else {}))
    torch.manual_seed(2)
    job.model.projections["text"] = Projection(WIDTH, job.model.dim, "two_layers", 0.0)
    return job, Optimisers(job.model, RATES, 0.01, with_cross_attention=make is finetuning)


@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_both_layers_train_at_the_rate_of_new_parts(make, tmp_path):
    job, optimisers = job_of(make, machine(tmp_path / "a", 1e9))
    names = {p: n for n, p in job.model.named_parameters()}
    (new,) = (g for g in optimisers.all[0].param_groups if g["group"] == "new")
    layers = [names[p] for p in new["params"] if names[p].startswith("projections.text.linear.")]
    assert len(layers) == 4
    before = weights_of(job.model)
    curve = train(job, optimisers, 3, 0, machine(tmp_path / "a", 1e9))
    after = weights_of(job.model)
    assert all(not torch.equal(before[name], after[name]) for name in layers)
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.parametrize("make", [pretraining, finetuning])
@pytest.mark.parametrize("steps", [2, 7])
def test_a_killed_run_resumes_to_the_same_bytes(make, steps, tmp_path):
    job, whole = job_of(make, machine(tmp_path / "whole"))
    train(job, whole, 5, 10, machine(tmp_path / "whole"))
    job, optimisers = job_of(make, machine(tmp_path / "broken"))
    with pytest.raises(Killed):
        train(killed_after(job, steps), optimisers, 5, 10, machine(tmp_path / "broken"))
    job, optimisers = job_of(make, machine(tmp_path / "broken"))
    train(job, optimisers, 5, 10, machine(tmp_path / "broken"))
    ours, theirs = weights_of(optimisers.model), weights_of(whole.model)
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
