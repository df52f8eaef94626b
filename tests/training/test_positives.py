"""Module IV with positives from the shortlist alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mufin.artifacts.curated import Split
from mufin.errors import MufinError
from mufin.nn.classifiers import LabelClassifiers
from mufin.ragged import Lists
from mufin.training.finetuning import Finetuning
from tests.support.bags import GivenStore, random_graph, tiny_mufin
from tests.support.training import FINETUNE, WIDTH, L, N, finetuning, machine


def shortlisted(rows: list, truth: list, found: list, weights=None, **changes) -> Finetuning:
    """Module IV of datapoints with these filter pairs, true labels and shortlists."""
    model = tiny_mufin(WIDTH)
    model.classifiers = LabelClassifiers(L, model.dim)
    split = Split(np.arange(len(truth)), Lists.of_rows(truth), Lists.of_rows(rows), weights)
    return Finetuning(
        model,
        GivenStore(N, WIDTH),
        split,
        np.arange(L),
        Lists.of_rows(found),
        SimpleNamespace(**FINETUNE | {"positives_from": "shortlist"} | changes),
        3,
        lambda m: {},
    )


@pytest.mark.parametrize("loss", ["hinge", "softmax"])
@pytest.mark.parametrize("candidates", ["shortlist", "all"])
def test_true_labels_outside_the_shortlist_count_for_nothing(loss, candidates, tmp_path):
    truth, rng = random_graph(N, L), np.random.default_rng(0)
    job, _ = finetuning(
        machine(tmp_path / "a"), positives_from="shortlist", loss=loss, candidates=candidates
    )
    shortlist = [rng.permutation(L)[:12] for _ in range(N)]  # as `finetuning` draws them
    seen = 0
    for datapoints in job.plan(0):
        step = job.prepare(datapoints, np.random.default_rng(1))
        for i, row in enumerate(datapoints):
            for j, label in enumerate(step.labels.tolist()):
                if label in truth[row]:
                    assert not step.negative[i, j]
                    if label not in shortlist[row]:
                        seen += 1
                        assert not step.relevant[i, j]
                else:
                    assert not step.relevant[i, j]
            assert step.relevant[i].any()
    assert seen


def test_datapoints_without_a_found_label_are_left_out():
    truth, found = [[1, 2], [3], [4], []], [[5, 2], [6, 7], [4, 3], [1]]
    job = shortlisted([[]] * 4, truth, found)
    assert job.usable.tolist() == [0, 2]
    assert [job.positives[i].tolist() for i in range(4)] == [[2], [], [4], []]


def test_filter_pairs_of_the_shortlist_are_no_positives():
    job = shortlisted([[2], []], [[1, 2], [3]], [[2, 1], [3]])
    assert [job.positives[i].tolist() for i in range(2)] == [[1], [3]]


def test_weights_stay_with_the_labels_found():
    weights = np.float32([0.1, 0.2, 0.3, 0.4])
    job = shortlisted([[]] * 2, [[1, 2, 9], [3]], [[9, 1], [3]], weights)
    assert job.positives.values.tolist() == [1, 9, 3]
    assert job.weights.tolist() == np.float32([0.1, 0.3, 0.4]).tolist()
    step = job.prepare(np.array([0, 1]), np.random.default_rng(0))
    assert step.weight[step.relevant].bool().all()
    assert torch.isfinite(job.loss(step))


def test_shortlists_without_any_true_label_are_refused():
    with pytest.raises(MufinError, match="no shortlist of train has a true label; set it to all"):
        shortlisted([[]] * 2, [[1], [2]], [[2, 3], [1]])


def test_all_positives_are_drawn_as_before(tmp_path):
    whole, _ = finetuning(machine(tmp_path / "a"))
    assert whole.positives.values.tolist() == random_graph(N, L).values.tolist()
