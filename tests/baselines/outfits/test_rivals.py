"""Each rival: its distances against its formula, that it learns, and that it repeats itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize, relu

from mufin.baselines.outfits.adde_o import AddeO
from mufin.baselines.outfits.backbone import Architecture
from mufin.baselines.outfits.batches import batch_of
from mufin.baselines.outfits.csa_net import CsaNet
from mufin.baselines.outfits.found_attributes import LEVELS, TOPICS, attributes, colours
from mufin.baselines.outfits.s_val import SVal
from mufin.baselines.outfits.sce_net import SceNet
from mufin.baselines.outfits.ssvr import Ssvr
from mufin.baselines.outfits.table import ROWS
from mufin.baselines.outfits.training import Budget
from mufin.baselines.outfits.transforms import crops, moved, recoloured
from mufin.baselines.outfits.type_aware import TypeAware
from mufin.metrics import blanks_filled
from tests.support.tiny_outfits import TYPES, asked, tiny

ITEMS, OUTFITS = tiny(150)
TRAIN, OTHER, TEST = (OUTFITS.take(np.arange(*part)) for part in ((0, 50), (50, 70), (70, 150)))
VALID = asked(ITEMS, OTHER)


def narrow(width: int) -> Architecture:
    channels = tuple(width * 2**stage for stage in range(4))
    return Architecture(options={"channels": channels, "stem_width": 4})


TINY = narrow(2)
BUDGET = Budget(passes=5, batch=10, dim=16, encoder=narrow(8))
SHORT = Budget(passes=1, batch=25, dim=8, encoder=TINY)
each = pytest.mark.parametrize("name", ROWS)
A, B = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
KINDS, OTHERS = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([1, 0, 3, 3, 2])


@each
def test_a_rival_learns_from_outfits_of_one_colour(name):
    scorer, questions = ROWS[name].fit(ITEMS, TRAIN, VALID, 0, BUDGET), asked(ITEMS, TEST)
    share = blanks_filled(scorer.fill(questions), questions.right).mean()
    assert share > 0.38  # chance: 0.25, standard error: 0.05


@each
def test_the_same_seed_gives_the_same_bytes(name):
    again = ROWS[name].fit(ITEMS, TRAIN, VALID, 0, SHORT)
    once = ROWS[name].fit(ITEMS, TRAIN, VALID, 0, SHORT)
    other = ROWS[name].fit(ITEMS, TRAIN, VALID, 1, SHORT)
    assert again.vectors.numpy().tobytes() == once.vectors.numpy().tobytes()
    assert not torch.equal(again.vectors, other.vectors)


def test_the_table_has_the_figures_of_the_paper():
    paper = {name: row.paper for name, row in ROWS.items()}
    assert paper == {
        "ADDE-O": 60.53,
        "Type-aware": 55.65,
        "SCE-Net average": 53.67,
        "SSVR": 51.5,
        "CSA-Net": 59.26,
        "S-VAL": 54.3,
    }


def test_type_aware_has_one_mask_per_pair_of_types_in_either_order():
    model = TypeAware(TYPES, 3, 12, TINY)
    found = model.distance(A, KINDS, B, OTHERS)
    masks = {}
    for i, (a, b) in enumerate(zip(KINDS.tolist(), OTHERS.tolist())):
        mask = relu(model.masks_of(torch.tensor(a), torch.tensor(b)))
        assert torch.equal(mask, model.masks_of(torch.tensor(b), torch.tensor(a)))
        masks[frozenset((a, b))] = mask
        one, other = normalize(A[i] * mask, dim=0), normalize(B[i] * mask, dim=0)
        assert found[i].item() == pytest.approx(float((one - other).norm().detach()), rel=1e-4)
    assert len({tuple(mask.tolist()) for mask in masks.values()}) == len(masks)
    assert len(model.masks.weight) == TYPES * (TYPES + 1) // 2


@pytest.mark.parametrize("average", [True, False])
def test_sce_net_weighs_the_conditions_of_a_pair(average):
    model = SceNet(3, 12, TINY, average)
    found = model.distance(A, KINDS, B, OTHERS)
    for i in range(len(A)):
        weights = torch.full((len(model.masks),), 1 / len(model.masks))
        if not average:
            weights = model.weights(torch.cat([A[i], B[i]]))
            assert weights.sum().item() == pytest.approx(1, rel=1e-5)
        one, other = torch.zeros(12), torch.zeros(12)
        for weight, mask in zip(weights, model.masks):
            one = one + weight * normalize(A[i] * relu(mask), dim=0)
            other = other + weight * normalize(B[i] * relu(mask), dim=0)
        assert found[i].item() == pytest.approx(float((one - other).norm().detach()), rel=1e-4)


def test_csa_net_attends_to_masks_by_both_types():
    model = CsaNet(TYPES, 12, TINY)
    found = model.distance(A, KINDS, B, OTHERS)
    for i, (a, b) in enumerate(zip(KINDS.tolist(), OTHERS.tolist())):
        one_hot = torch.zeros(2 * TYPES)
        one_hot[a], one_hot[TYPES + b] = 1, 1
        weights = model.attention.layers(one_hot).softmax(0)
        vectors = [sum(w * (x * m) for w, m in zip(weights, model.masks)) for x in (A[i], B[i])]
        assert found[i].item() == pytest.approx(
            float((vectors[0] - vectors[1]).norm().detach()), rel=1e-4
        )


def test_adde_o_weighs_the_part_of_each_attribute_by_both_types():
    known = np.zeros((9, 3), np.int64)
    model = AddeO(TYPES, [2, 3, 4], known, 12, TINY)
    weights = model.attention(KINDS, OTHERS)
    found = model.distance(A, KINDS, B, OTHERS)
    for i in range(len(A)):
        parts = [
            w.item() * (A[i, 4 * k : 4 * k + 4] - B[i, 4 * k : 4 * k + 4]).norm().item()
            for k, w in enumerate(weights[i])
        ]
        assert found[i].item() == pytest.approx(float(np.linalg.norm(parts)), rel=1e-4)


def test_the_memory_of_adde_o_is_held_to_the_blocks_of_its_attributes():
    model = AddeO(TYPES, [2, 3], np.zeros((9, 2), np.int64), 6, TINY)
    memory = model.memory.detach()
    expected = memory[:2, 1].abs().sum() + memory[2:, 0].abs().sum()
    assert model.outside().item() == pytest.approx(float(expected), rel=1e-5)


def test_s_val_has_three_parts_of_equal_length_and_reads_no_outfit():
    torch.manual_seed(0)
    model = SVal(8, TINY).eval()
    batch = batch_of(ITEMS, TRAIN.between(0, 9), 2, np.random.default_rng(0))
    v = model.vectors(batch.pixels)
    lengths = torch.stack([part.norm(dim=1) for part in v.chunk(3, 1)], 1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 3**-0.5))
    losses = []
    for own in (batch, batch_of(ITEMS, TRAIN.between(0, 9), 1, np.random.default_rng(0))):
        torch.manual_seed(1)
        losses.append(model.loss(own).item())
    assert losses[0] == losses[1]  # other blanks, the same pictures


def test_ssvr_without_a_match_learns_from_its_outfits_alone():
    torch.manual_seed(0)
    model = Ssvr(8, TINY).eval()
    batch = batch_of(ITEMS, TRAIN.between(0, 9), 2, np.random.default_rng(0))
    assert np.isfinite(model.loss(batch).item()) and model.loss(batch).item() > 0


def test_changed_pictures_keep_their_shape_and_range():
    pictures = torch.rand(6, 3, 16, 16)
    assert crops(pictures, 8).shape == (6, 3, 8, 8)
    windows = pictures.unfold(2, 8, 1).unfold(3, 8, 1).permute(0, 2, 3, 1, 4, 5)
    for own, cut in zip(windows, crops(pictures, 8)):
        assert (own == cut).flatten(2).all(2).any()
    for changed in (moved(pictures), recoloured(pictures)):
        assert changed.shape == pictures.shape
        assert changed.min() >= 0 and changed.max() <= 1 + 1e-6
    white = torch.ones(2, 3, 16, 16)
    torch.testing.assert_close(moved(white), white)


def test_colours_are_the_most_frequent_in_the_middle():
    pictures = np.full((3, 8, 8, 3), 255, np.uint8)
    pictures[0, 3:, 3:] = (200, 10, 10)
    pictures[1, :1] = (0, 200, 0)  # outside of the middle
    pictures[2, 2:6, 2:6] = (0, 0, 200)
    pictures[2, 2:3, 2:6] = (0, 0, 0)
    top = LEVELS - 1
    assert colours(pictures).tolist() == [top, LEVELS**3 - 1, top * LEVELS**2]


def test_attributes_are_known_of_train_alone():
    rows = np.unique(TRAIN.values)
    known, values = attributes(ITEMS, rows, 0)
    outside = np.setdiff1d(np.arange(len(ITEMS)), rows)
    assert (known[outside] == -1).all() and (known[rows] >= 0).all()
    assert values == [len(np.unique(known[rows, k])) for k in range(2)]
    assert values[1] == TOPICS
