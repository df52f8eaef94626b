"""Tables with a row per label: which optimiser updates them, and what a step takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from mufin.nn.classifiers import LabelClassifiers
from mufin.training.optimisers import Optimisers
from mufin.training.table_updates import dense_pays, free_memory
from tests.support.allocations import Largest
from tests.support.bags import tiny_mufin
from tests.support.training import RATES

GB = 1e9


@pytest.mark.parametrize(
    "labels, free, dense",
    [
        (303_296, 23 * GB, True),  # MM-AmazonTitles-300K on a GPU with 24 GB
        (4_528_191, 23 * GB, False),  # A2Q-4M there: 10.5 GB beside the table
        (4_528_191, 79 * GB, True),
    ],
)
def test_a_gpu_updates_all_rows_where_they_fit(labels, free, dense):
    assert dense_pays(labels, 193, 2800, free) == dense


@pytest.mark.parametrize("labels, dense", [(1890, True), (11_200, True), (11_201, False)])
def test_a_cpu_updates_all_rows_of_few_labels(labels, dense):
    assert dense_pays(labels, 193, 2800, None) == dense
    assert free_memory(torch.device("cpu")) is None


def steps(labels: int, dense: bool) -> int:
    """The most numbers that an operation of the second step on ten labels makes."""
    model = tiny_mufin()
    model.classifiers = LabelClassifiers(labels, model.dim)
    optimisers = Optimisers(model, RATES, 0.01, with_cross_attention=True, dense_tables=dense)
    z = normalize(torch.randn(10, model.dim, generator=torch.Generator().manual_seed(0)), dim=-1)

    def step() -> None:
        ids = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(labels)[:10]))
        model.classifiers(ids, z).square().matmul(torch.ones(model.dim, 1)).sum().backward()
        optimisers.step(1.0)

    step()  # makes the moments
    moments = [v for o in optimisers.all for s in o.state.values() for v in s.values()]
    tables = [table.weight for table in model.classifiers.tables()]
    with Largest([*tables, *(m for m in moments if isinstance(m, torch.Tensor))]) as largest:
        step()
    return largest.numbers


@pytest.mark.parametrize("labels", [20_000, 200_000])
def test_a_step_by_rows_makes_nothing_as_long_as_the_table(labels):
    assert steps(labels, dense=False) < 1000


def test_a_step_on_all_rows_makes_their_gradient():
    assert steps(20_000, dense=True) >= 20_000 * 8


def test_rows_have_sparse_gradients_and_two_moments():
    model = tiny_mufin()
    model.classifiers = LabelClassifiers(500, model.dim)
    optimisers = Optimisers(model, RATES, 0.01, with_cross_attention=True)
    model.classifiers(torch.tensor([3, 7]), torch.ones(2, model.dim)).sum().backward()
    free: nn.Parameter = model.classifiers.free.weight
    assert free.grad.is_sparse and free.grad._nnz() == 2
    optimisers.step(1.0)
    (moments,) = (o.state[free] for o in optimisers.all if free in o.state)
    assert sorted(k for k, v in moments.items() if torch.is_tensor(v)) == ["exp_avg", "exp_avg_sq"]
