"""The self-supervised start of E_V: its pairs, its changes of pictures, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.errors import MufinError
from mufin.nn.image_encoder import ImageEncoder, create_image_encoder
from mufin.ragged import Lists
from mufin.training.machine import Machine
from mufin.training.self_supervision import (
    Contrasted,
    SelfSupervision,
    changed,
    self_supervise,
)
from pipeline import precompute

SIDE = 32


def encoder(seed: int = 0, trainable: int | str = 0) -> ImageEncoder:
    torch.manual_seed(seed)
    return create_image_encoder("test_resnet", "random", {}, SIDE, trainable)


def machine(folder) -> Machine:
    folder.mkdir(parents=True, exist_ok=True)
    return Machine(torch.device("cpu"), torch.float32, folder, 1e9)


def squares(products: int, per_product: int) -> tuple[np.ndarray, Lists]:
    """Pictures of a square whose place is the product's, on noise; the rows of each product."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(100, 156, (products * per_product, SIDE, SIDE, 3)).astype(np.uint8)
    for row in range(len(pictures)):
        x, y = divmod(row // per_product, 4)
        pictures[row, 8 * x % SIDE : 8 * x % SIDE + 8, 8 * y : 8 * y + 8] = 255
    return pictures, Lists(np.arange(products + 1) * per_product, np.arange(len(pictures)))


def job(counts: list[int], shards: list[int]) -> SelfSupervision:
    """A job over pictures whose first pixel is their row."""
    rows = np.arange(sum(counts))
    pixels = np.broadcast_to(rows[:, None, None, None], (len(rows), 2, 2, 3)).astype(np.uint8)
    parts = np.split(pixels, np.cumsum(shards)[:-1])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return SelfSupervision(Contrasted(encoder()), parts, Lists(offsets, rows), 1, 0)


def test_two_views_are_different_pictures_of_one_product():
    counts = [3, 1, 2, 0, 5]
    made = job(counts, shards=[4, 7])
    owner = np.repeat(np.arange(len(counts)), counts)
    for seed in range(20):
        products = np.array([4, 0, 1, 2])
        views = made.prepare(products, np.random.default_rng(seed))
        first, second = (v[:, 0, 0, 0].numpy() for v in (views.first, views.second))
        assert (owner[first] == products).all() and (owner[second] == products).all()
        assert ((first != second) == (np.array(counts)[products] > 1)).all()


def test_every_pair_of_a_product_is_drawn():
    made, seen = job([3], shards=[3]), set()
    for seed in range(100):
        views = made.prepare(np.array([0]), np.random.default_rng(seed))
        seen.add((int(views.first[0, 0, 0, 0]), int(views.second[0, 0, 0, 0])))
    assert seen == {(a, b) for a in range(3) for b in range(3) if a != b}


def test_an_epoch_has_each_product_with_pictures_once():
    made = job([1, 0] * 600, shards=[600])
    plan = made.plan(0)
    assert len(plan) == made.steps == 2
    assert sorted(np.concatenate(plan).tolist()) == list(range(0, 1200, 2))


def test_the_loss_is_that_of_a_slow_loop():
    made = job([2, 2, 2, 2], shards=[8])
    views = made.prepare(np.arange(4), np.random.default_rng(0))
    z = torch.nn.functional.normalize(torch.randn(8, 5), dim=-1)
    made.model.forward = lambda pixels: z  # type: ignore[method-assign]
    terms = []
    for i in range(4):
        for a, others in ((z[i], z[4:]), (z[4 + i], z[:4])):
            exps = torch.stack([torch.exp(a @ o / 0.15) for o in others])
            terms.append(-torch.log(exps[i] / exps.sum()))
    assert made.loss(views).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


def test_changes_keep_a_blank_picture_blank_and_move_others():
    torch.manual_seed(0)
    blank = torch.full((8, 3, SIDE, SIDE), 0.5)
    out = changed(blank)
    assert out.shape == blank.shape and torch.isfinite(out).all()
    flat = out.flatten(1)
    assert (flat.max(1).values - flat.min(1).values).max() < 1e-5  # only its light changes
    assert (flat[:, 0] - 0.5).abs().max() <= 0.5 * 0.15 + 0.075 + 1e-6
    picture = torch.rand(1, 3, SIDE, SIDE).expand(8, -1, -1, -1)
    assert torch.unique(changed(picture).flatten(1), dim=0).shape[0] == 8


def nearest_is_own(made: ImageEncoder, pictures: np.ndarray, per_product: int) -> float:
    made.eval()
    with torch.inference_mode():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        v = made.of_pictures(pixels)
        v = torch.nn.functional.normalize(v - v.mean(0), dim=-1)
    scores = (v @ v.T).fill_diagonal_(-1)
    own = torch.arange(len(v)) // per_product
    return float((own[scores.argmax(1)] == own).float().mean())


def test_it_learns_to_tell_products_apart(tmp_path):
    pictures, rows = squares(16, 4)
    made = encoder()
    before = nearest_is_own(made, pictures, 4)
    curve = self_supervise(made, [pictures], rows, 40, 0.002, 0, machine(tmp_path))
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert nearest_is_own(made, pictures, 4) > max(before, 0.8)


def test_it_trains_frozen_parts_and_freezes_them_again(tmp_path):
    pictures, rows = squares(4, 2)
    made = encoder()
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    self_supervise(made, [pictures], rows, 2, 0.002, 0, machine(tmp_path))
    assert all(not p.requires_grad for p in made.parameters())
    assert all((p != before[n]).any() for n, p in made.named_parameters())
    assert not made.spec.random  # other seeds take these weights


def test_a_killed_start_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    pictures, rows = squares(8, 2)
    whole = encoder()
    self_supervise(whole, [pictures], rows, 4, 0.002, 0, machine(tmp_path / "a"))

    class Killed(Exception):
        pass

    def end_epoch(self, epoch):
        if epoch == 2:
            raise Killed
        return {}

    place = machine(tmp_path / "b")
    often = Machine(place.device, place.precision, place.scratch, 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(SelfSupervision, "end_epoch", end_epoch)
        with pytest.raises(Killed):
            self_supervise(encoder(), [pictures], rows, 4, 0.002, 0, often)
    resumed = encoder()
    self_supervise(resumed, [pictures], rows, 4, 0.002, 0, often)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()):
        assert torch.equal(a, b), name


def test_a_loss_that_is_not_finite_names_products_and_the_setting(tmp_path):
    pictures, _ = squares(4, 1)
    rows = Lists(np.array([0, 0, 0, 1, 2]), np.array([2, 3]))  # products 2 and 3 are known
    with pytest.raises(MufinError) as error:
        self_supervise(encoder(), [pictures], rows, 30, 1e30, 0, machine(tmp_path))
    said = str(error.value)
    assert "lower encoder.image.self_supervised_lr" in said and "products.parquet" in said
    assert "datapoints 3, 2" in said or "datapoints 2, 3" in said


def test_a_start_without_any_picture_is_one_sentence():
    empty = Lists(np.zeros(4, np.int64), np.zeros(0, np.int64))
    with pytest.raises(MufinError, match="set encoder.image.self_supervised_epochs to 0"):
        precompute._self_supervised(encoder(), None, None, empty, None)
