"""Scores with label sides in blocks, against sides that are held and against a loop."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from mufin.nn.classifiers import LabelClassifiers
from mufin.nn.embedding import Embedded
from mufin.nn.mufin import Mufin
from mufin.ragged import offsets_of
from mufin.ranking.scoring import LabelSides, classifier_scores, label_sides
from tests.support.bags import bare_mufin, shaken

CPU, LABELS, N, DIM = torch.device("cpu"), 40, 9, 8


def embedded(n: int, seed: int, most: int = 5) -> Embedded:
    """n bags of 0 to `most` random rows."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, most + 1, n)
    rows = rng.normal(size=(sizes.sum(), DIM)).astype(np.float32)
    modality = rng.integers(0, 3, sizes.sum()).astype(np.int8)
    vectors = rng.normal(size=(n, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embedded(rows, modality, offsets_of(sizes), vectors)


def members(a_c: str, count: int = 2) -> list[Mufin]:
    out = []
    for seed in range(count):
        model = shaken(bare_mufin(a_c=a_c, heads=2), seed).eval()
        model.classifiers = shaken(LabelClassifiers(LABELS, DIM), seed)
        out.append(model)
    return out


def candidates(width: int) -> np.ndarray:
    """`width` distinct labels per datapoint, some of them missing."""
    rng = np.random.default_rng(width)
    ids = np.stack([rng.permutation(LABELS)[:width] for _ in range(N)])
    ids[rng.random(ids.shape) < 0.2] = -1
    return ids


def both(a_c: str, alpha_one: bool = False, most: int = 4000) -> tuple[LabelSides, LabelSides]:
    networks, labels = members(a_c), [embedded(LABELS, 1), embedded(LABELS, 2)]
    held = label_sides(networks, labels, CPU, alpha_one)
    blocks = label_sides(networks, labels, CPU, alpha_one, most=most)
    assert held.held is not None and blocks.held is None
    return held, blocks


@pytest.mark.parametrize("alpha_one", [False, True])
@pytest.mark.parametrize("width", [1, 7, LABELS])
@pytest.mark.parametrize("a_c", ["attention", "concat", "none"])
def test_blocks_give_the_scores_of_held_sides(a_c, width, alpha_one):
    held, blocks = both(a_c, alpha_one, {"attention": 4000, "concat": 500, "none": 200}[a_c])
    assert len(blocks.blocks(0)) > 3
    ids, x = candidates(width), [embedded(N, 3), embedded(N, 4)]
    there = ids >= 0
    wanted, found = (classifier_scores(sides, x, ids, CPU) for sides in (held, blocks))
    assert found.dtype == np.float32
    assert np.allclose(found[there], wanted[there], atol=1e-6)


@pytest.mark.parametrize("budget", [1, 500, 2**25])
def test_scores_in_blocks_do_not_depend_on_the_budget(budget):
    _, blocks = both("attention")
    ids, x = candidates(7), [embedded(N, 3), embedded(N, 4)]
    found = classifier_scores(blocks, x, ids, CPU, budget)
    assert np.allclose(found, classifier_scores(blocks, x, ids, CPU), atol=1e-6)


def test_scores_in_blocks_equal_a_loop_over_adapted_vectors():
    _, blocks = both("attention")
    ids, x = candidates(7), [embedded(N, 3), embedded(N, 4)]
    slow = np.zeros(ids.shape)
    with torch.no_grad():
        for network, labels, points in zip(blocks.networks, blocks.labels, x):
            for row, column in np.argwhere(ids >= 0):
                label = ids[row, [column]]
                w = network.classifier(torch.from_numpy(label), torch.tensor(labels.vectors[label]))
                bags = points.bags(np.array([row]), CPU), labels.bags(label, CPU)
                slow[row, column] += float(network.adapted(*bags)[0] @ w[0]) / 2
    assert np.allclose(classifier_scores(blocks, x, ids, CPU), slow, atol=1e-5)


@pytest.mark.parametrize("most", [1, 3000, 10**5])
def test_blocks_hold_all_labels_within_their_bytes(most):
    _, blocks = both("attention", most=min(most, 10**4))
    several = LabelSides(blocks.networks, blocks.labels, False, None, most).blocks(0)
    assert np.array_equal(np.sort(np.concatenate(several)), np.arange(LABELS))
    for ids in several:
        with torch.inference_mode():
            side = blocks.side(0, ids, CPU, chunk=3)
        assert len(side.w) == len(ids)
        size = sum(t.numel() * t.element_size() for t in side.tensors())
        assert size <= most or len(ids) == 1
    assert (len(several) == 1) == (most == 10**5)


def test_one_block_is_in_memory_at_a_time(monkeypatch):
    _, blocks = both("attention")
    ids, x = candidates(7), [embedded(N, 3), embedded(N, 4)]
    side, made = LabelSides.side, []

    def watched(*args):
        assert not any(ref() for ref in made)
        out = side(*args)
        made.append(weakref.ref(out))
        return out

    monkeypatch.setattr(LabelSides, "side", watched)
    classifier_scores(blocks, x, ids, CPU)
    assert len(made) == len(blocks.blocks(0)) + len(blocks.blocks(1))
