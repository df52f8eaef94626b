"""`encoder.descriptor_norm` and `encoder.lexical_dropout`: descriptors of a bag before A_S."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.corpus.descriptors import DescriptorStore
from mufin.corpus.modality import IMAGE, LEXICAL, TEXT
from mufin.params import load_params
from tests.support.stages import made, new_network


@pytest.fixture(scope="module")
def networks(catalog):
    """{whether descriptors are normalised: (network, store)}, both drawn from seed 0."""
    out = {}
    for norm in (False, True):
        changes = {"encoder.descriptor_norm": norm, "encoder.lexical_dropout": 0.5}
        precomputed = made(catalog, f"norm {norm}", **changes)
        params = load_params(precomputed.parents[1] / "params.yaml")
        network = new_network(params, precomputed, seed=0)
        store = DescriptorStore(precomputed, list(params.encoder.modalities), torch.device("cpu"))
        out[norm] = network, store
    return out


def rows(networks, norm: bool, train: bool = False):
    """X^0 of all products, (n, m, D), and the modality of each row (n, m)."""
    network, store = networks[norm]
    network.train(train)
    batch = store.batch(np.arange(40))
    with torch.no_grad():
        bag = network.pre_embeddings(batch)
    return bag.rows.numpy(), bag.modality.numpy()


def test_a_fresh_norm_gives_each_descriptor_mean_0_and_length_1(networks):
    plain, kinds = rows(networks, False)
    normal, _ = rows(networks, True)
    there = kinds >= 0
    mean, std = plain[there].mean(-1, keepdims=True), plain[there].std(-1, keepdims=True)
    expected = (plain[there] - mean) / np.sqrt(std**2 + 1e-5)  # LayerNorm with gain 1 and bias 0
    np.testing.assert_allclose(normal[there], expected, atol=2e-5)
    assert not normal[~there].any()  # products without a title or picture get none
    assert {TEXT, IMAGE, LEXICAL} <= set(kinds[there].tolist())


def test_each_modality_has_a_norm_of_its_own(networks):
    normal, kinds = rows(networks, True)
    with torch.no_grad():
        networks[True][0].projections["image"][-1].bias += 3
    moved, _ = rows(networks, True)
    with torch.no_grad():
        networks[True][0].projections["image"][-1].bias -= 3
    pictures = kinds == IMAGE
    np.testing.assert_allclose(moved[pictures], normal[pictures] + 3, atol=1e-5)
    assert (moved[~pictures] == normal[~pictures]).all()


def test_lexical_dropout_changes_training_alone_and_words_alone(networks):
    torch.manual_seed(0)
    for norm in (False, True):
        once, kinds = rows(networks, norm)
        again, _ = rows(networks, norm)
        assert (once == again).all()
        trained, _ = rows(networks, norm, train=True)
        words = kinds == LEXICAL
        kept = trained[words] != 0
        assert 0.45 < kept.mean() < 0.55
        np.testing.assert_allclose(trained[words][kept], 2 * once[words][kept], rtol=1e-5)
