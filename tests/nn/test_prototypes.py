"""Classifiers by attention over label vector, centroid and free vector, against a slow loop."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mufin.artifacts.contents import seal
from mufin.artifacts.embeddings import read_embeddings
from mufin.artifacts.precomputed import Precomputed
from mufin.nn.assembly import Member, assemble, load_members, save_members, transferred
from mufin.nn.prototypes import PrototypeClassifiers
from mufin.params import ParamsError, load_params
from mufin.training.optimisers import Optimisers
from tests.support.bags import architecture, bare_mufin, shaken
from tests.support.stages import QUICK, inside, run_stages
from tests.support.training import RATES, finetuning, machine

L, D = 7, 6
NOWHERE = Precomputed(Path(tempfile.mkdtemp()))
seal(NOWHERE.folder)


def classifiers(seed: int = 0, **changes) -> PrototypeClassifiers:
    """With random weights; the labels 2 and 5 have no centroid."""
    c = shaken(PrototypeClassifiers(L, D, **changes), seed)
    c.centroids = torch.randn(L, D, generator=torch.Generator().manual_seed(seed + 1))
    c.centroids[[2, 5]] = 0
    return c


def label_vectors(seed: int = 0) -> Tensor:
    """z^1 of all labels; label 3 has no descriptor, label 5 neither descriptor nor centroid."""
    z = normalize(torch.randn(L, D, generator=torch.Generator().manual_seed(seed + 9)), dim=-1)
    z[[3, 5]] = 0
    return z


def slow(c: PrototypeClassifiers, label: int, z: Tensor) -> Tensor:
    """The classifier of one label, part by part, without those it does not have."""
    kinds = [(z, 0), (c.centroids[label], 1), (c.free.weight[label], 2)]
    parts = [(part / part.norm(), c.combiner.kinds[kind]) for part, kind in kinds if part.any()]
    total = torch.zeros(D)
    for part, kind in parts:
        scores = [
            (c.combiner.query(part + kind) @ c.combiner.key(other + k)) / D**0.5
            for other, k in parts
        ]
        weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
        seen = sum(w * c.combiner.value(other + k) for w, (other, k) in zip(weights, parts))
        total = total + part + c.combiner.out(seen)
    mean = total / len(parts)
    return mean / mean.norm() if c.outer_norm else mean


@pytest.mark.parametrize("outer_norm", [True, False])
def test_classifiers_equal_a_loop_over_parts(outer_norm):
    c, z = classifiers(outer_norm=outer_norm), label_vectors()
    ours = c(torch.arange(L), z)
    theirs = torch.stack([slow(c, label, z[label]) for label in range(L)])
    assert torch.allclose(ours, theirs, atol=1e-5) and bool(ours.isfinite().all())


def test_some_labels_have_the_classifiers_they_have_among_all():
    c, z, some = classifiers(), label_vectors(), torch.tensor([5, 0, 3])
    assert torch.allclose(c(some, z[some]), c(torch.arange(L), z)[some], atol=1e-6)


def test_training_starts_from_the_mean_of_the_parts():
    c, z = PrototypeClassifiers(L, D), label_vectors()
    c.centroids = torch.randn(L, D)
    parts = [normalize(p, dim=-1) for p in (z, c.centroids, c.free.weight)]
    assert torch.allclose(c(torch.arange(L), z), normalize(sum(parts), dim=-1), atol=1e-6)


def test_centroids_do_not_train_and_rows_of_the_batch_do():
    c, ids = classifiers(), torch.tensor([1, 4])
    c(ids, label_vectors()[ids]).square().sum().backward()
    assert c.free.weight.grad.is_sparse
    assert c.free.weight.grad.coalesce().indices().tolist() == [[1, 4]]
    assert "centroids" in c.state_dict() and "centroids" not in dict(c.named_parameters())
    c = classifiers()
    target = torch.randn(2, D)
    (c(ids, label_vectors()[ids]) * target).sum().backward()
    flat = {n for n, p in c.combiner.named_parameters() if p.grad.abs().max() < 1e-6}
    assert flat <= {"key.bias"}  # the same for all keys, so the softmax does not see it


@pytest.mark.parametrize("dense", [False, True])
def test_module_four_trains_rows_and_attention_by_their_rates(dense, tmp_path):
    job, _ = finetuning(machine(tmp_path / "m"), select="last")
    torch.manual_seed(0)
    c = PrototypeClassifiers(24, job.model.dim)
    c.centroids[::2] = torch.randn(12, job.model.dim)
    job.model.classifiers = c
    optimisers = Optimisers(job.model, RATES, 0.01, True, dense_tables=dense)
    groups = {
        id(p): group["group"]
        for o in optimisers.all
        for group in o.param_groups
        for p in group["params"]
    }
    assert groups[id(c.free.weight)] == "free"
    assert {groups[id(p)] for p in c.combiner.parameters()} == {"attention"}
    before, losses = {n: t.clone() for n, t in c.state_dict().items()}, []
    for epoch in range(4):
        for step, anchors in enumerate(job.plan(epoch)):
            loss = job.loss(job.prepare(anchors, np.random.default_rng([epoch, step])))
            loss.backward()
            optimisers.step(1.0)
            losses.append(loss.item())
    after = c.state_dict()
    assert torch.equal(after["centroids"], before["centroids"])
    assert all(not torch.equal(after[n], before[n]) for n in before if n != "centroids")
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_saved_members_have_the_same_classifiers(tmp_path):
    facts = architecture(heads=2, num_labels=L, classifier="prime")
    network = shaken(assemble(facts, NOWHERE, None)).eval()
    network.classifiers.centroids = torch.randn(L, 8)
    save_members([Member(facts, network)], tmp_path / "m", NOWHERE)
    [again] = load_members(tmp_path / "m", NOWHERE)
    z = normalize(torch.randn(L, 8), dim=-1)
    ours, theirs = (m.classifier(torch.arange(L), z) for m in (again.network, network))
    assert again.architecture == facts and torch.equal(ours, theirs)


def test_module_three_makes_the_classifiers_that_are_asked_for():
    member = Member(architecture(heads=2), bare_mufin(heads=2))
    after = transferred(member, L, "attention", 0.5, False, "prime")
    assert type(after.network.classifiers) is PrototypeClassifiers
    assert (after.architecture.classifier, after.architecture.outer_norm) == ("prime", False)


def test_alpha_one_with_prime_is_refused(tmp_path):
    changes = {"transfer.classifier": "prime", "transfer.alpha": 1.0}
    with inside(tmp_path, **changes), pytest.raises(ParamsError, match="alpha is 1.0; .* below 1"):
        load_params()


def test_the_stages_run_with_centroids_of_module_one(tmp_path):
    changes = {"transfer.classifier": "prime", "members": 2, "evaluate.mix": "chosen"}
    with inside(tmp_path, **QUICK | changes):
        run_stages(tmp_path)
        embeddings = read_embeddings(tmp_path / "data/embeddings/pretrain.safetensors")
        members = load_members(
            tmp_path / "models/finetune", Precomputed(tmp_path / "data/precomputed")
        )
    dim = members[0].network.dim
    for number, member in enumerate(members):
        theirs = embeddings.centroids[:, number * dim : (number + 1) * dim]
        assert np.array_equal(member.network.classifiers.centroids.numpy(), theirs)
    rows = pq.read_table(tmp_path / "data/predictions/test.parquet")["labels"].to_pylist()
    assert sum(map(len, rows)) > 0
