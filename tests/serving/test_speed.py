"""What makes answers fast changes none of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.serving import labels, new_products
from mufin.serving.labels import Labels
from mufin.serving.query import NewProduct
from mufin.serving.recommender import Recommender
from mufin.serving.threads import one_thread


@pytest.fixture(scope="module")
def served(finished) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUFIN_DEVICE", "cpu")
        patch.setenv("MUFIN_WORKERS", "2")
        return Recommender.load(finished)


def test_scores_without_label_sides_are_those_with_them(served, monkeypatch):
    predictor = served.model.predictor
    products = predictor.index.products[:7]
    ids = np.random.default_rng(0).integers(-1, len(predictor.index), (7, 9))
    x = predictor.embed(products)
    wanted = Labels(predictor).classifier(x, ids)
    monkeypatch.setattr(labels, "SIDES", 0)
    own = Labels(predictor)
    assert own.sides is None
    found = own.classifier(x, ids)
    assert np.abs(found - wanted)[ids >= 0].max() < 1e-5


def test_one_thread_gives_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_title_alone_does_not_encode_a_picture_twice(served, monkeypatch):
    encoders = served.catalog.datapoints.new_products
    encoders.store([NewProduct("lamp")])
    monkeypatch.setattr(new_products.NewProducts, "_inputs", lambda *_: pytest.fail("encoded"))
    encoders.store([NewProduct("rug")])


def test_a_title_beside_a_longer_one_has_the_same_descriptor(served):
    encoders = served.catalog.datapoints.new_products
    titles = ["rug", "a very long title of a lamp, with a shade and two bulbs, for the table"]
    alone, _ = encoders._inputs_of(titles[:1])
    beside, _ = encoders._inputs_of(titles)
    if alone.ndim == 3 or alone.dtype == np.int32:  # tokens, or activations of them
        alone = alone[:, : int(encoders._tokens(titles[:1])[1][0])]
    assert np.allclose(alone, beside[:1, : alone.shape[1]], atol=1e-3)
