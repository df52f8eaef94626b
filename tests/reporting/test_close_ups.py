"""Cross-attention as the page shows it: weights by hand, gains pair by pair."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mufin.artifacts.curated import read_curated
from mufin.artifacts.precomputed import Precomputed
from mufin.artifacts.tables import read_table
from mufin.corpus.descriptors import DescriptorStore
from mufin.nn.assembly import load_members
from mufin.params import load_params
from mufin.ranking.label_index import load_index
from mufin.ranking.predictor import Predictor
from mufin.reporting import close_ups
from mufin.reporting.adaptation import attention_weights, scores_before_and_after
from mufin.reporting.catalog import Catalog
from mufin.reporting.gain import gains

CPU = torch.device("cpu")
SHORTLIST = 12


@pytest.fixture(scope="module")
def predictor(home) -> Predictor:
    modalities = list(load_params(home / "params.yaml").encoder.modalities)
    members = load_members(home / "models/finetune", Precomputed(home / "data/precomputed"))
    return Predictor(
        [member.network for member in members],
        DescriptorStore(home / "data/precomputed", modalities, CPU),
        load_index(home / "models/index", CPU),
        CPU,
        torch.float32,
    )


@pytest.fixture(scope="module")
def split(home):
    return read_curated(home / "data/curated").splits["test"]


@pytest.fixture(scope="module")
def datapoints(predictor, split):
    return predictor.embed(split.product)


def test_weights_of_the_heat_map_are_a_softmax_by_hand(predictor, datapoints):
    x, labels, network = datapoints[0], predictor.index.labels[0], predictor.networks[0]
    rows = x.rows[x.offsets[3] : x.offsets[4]]
    asked = labels.rows[labels.offsets[7] : labels.offsets[8]]
    block = network.cross_attention
    q = rows @ block.query.weight.detach().numpy().T + block.query.bias.detach().numpy()
    k = asked @ block.key.weight.detach().numpy().T + block.key.bias.detach().numpy()
    e = np.exp(q @ k.T / np.sqrt(rows.shape[1]))
    weights = attention_weights(network, x, 3, labels, 7)
    assert weights.shape == (len(rows), len(asked))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(weights, e / e.sum(1, keepdims=True), atol=1e-4)


@torch.inference_mode()
def test_gains_are_those_of_adapted_pair_by_pair(predictor, datapoints, split):
    x, index, network = datapoints[0], predictor.index, predictor.networks[0]
    found, _ = predictor.retrieve(datapoints, SHORTLIST, split.excluded)
    before, after = scores_before_and_after(predictor, x, found)
    relevant = np.array([np.isin(row, split.labels[i]) for i, row in enumerate(found)])
    gained, differences = {True: [], False: []}, []
    for i, row in enumerate(found):
        own = {True: [], False: []}
        for j, label in enumerate(row):
            if label >= 0:
                bag, answer = (
                    e.bags(np.array([n]), CPU) for e, n in ((x, i), (index.labels[0], label))
                )
                w = index.classifiers[0][label]
                gain = network.adapted(bag, answer)[0].numpy() @ w - x.vectors[i] @ w
                own[bool(relevant[i, j])].append(float(gain))
        if own[True] and own[False]:
            differences.append(np.mean(own[True]) - np.mean(own[False]))
        gained[True] += own[True]
        gained[False] += own[False]
    out = gains(before, after, relevant, found >= 0)
    assert out.relevant.pairs == len(gained[True]) > 0 and out.datapoints == len(differences)
    np.testing.assert_allclose(
        [out.relevant.mean, out.irrelevant.mean, out.difference],
        [np.mean(gained[True]), np.mean(gained[False]), np.mean(differences)],
        atol=1e-5,
    )
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    np.testing.assert_allclose(out.error, error, atol=1e-5)


@pytest.mark.parametrize("gone", ["cross-attention", "test"])
def test_the_section_says_what_is_missing(predictor, home, split, gone):
    products = read_table(home / "data/curated/products.parquet", "products")
    network = predictor.networks[0]
    kept, test = network.cross_attention, split
    if gone == "test":
        test = split.take(np.arange(0))
    catalog = Catalog(products, predictor.index.products, test, home)
    try:
        if gone == "cross-attention":
            network.cross_attention = None
        out = close_ups.cross_attention(predictor, SHORTLIST, catalog, None)
    finally:
        network.cross_attention = kept
    assert gone in out["absent"] and out["gains"] is None


def test_the_first_of_several_networks_is_shown(predictor, home, split):
    products = read_table(home / "data/curated/products.parquet", "products")
    catalog = Catalog(products, predictor.index.products, split, home)
    index = predictor.index
    two = replace(
        predictor,
        networks=predictor.networks * 2,
        index=replace(index, labels=index.labels * 2, classifiers=index.classifiers * 2),
    )
    one = close_ups.classifiers(predictor, catalog)
    both = close_ups.classifiers(two, catalog)
    assert both["members"] == 2 * one["members"] and both["points"] == one["points"]
