"""AttentionXML and MACH: their parts against slow loops, and that they learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mufin.baselines import attentionxml as axm
from mufin.baselines import mach as machs
from mufin.baselines.attentionxml import trained as attentionxml
from mufin.baselines.mach import trained as mach
from mufin.baselines.shared.popularity import popular
from mufin.baselines.shared.task import WIDTH, Task
from mufin.clustering import balanced_halves
from mufin.ragged import Lists
from tests.support.bags import random_graph

TOPICS, EACH = 12, 20
SETTINGS = axm.LevelSettings(8, 5, 6, 0.0, (1, 1), 1e-2, 16, 3)
QUICK = {
    attentionxml: dict(
        trees=2,
        batch=64,
        embedding=24,
        hidden=16,
        linear=16,
        parents=8,
        epochs=(8, 4),
        lr=1e-2,
        dropout=0.1,
    ),
    mach: dict(repetitions=8, hidden=32, epochs=12, lr=1e-2, buckets=30),
}
both = pytest.mark.parametrize("baseline", [attentionxml, mach], ids=["attentionxml", "mach"])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def catalog(n: int = 300, seed: int = 0) -> Task:
    """A word names the topic, and a topic has its own EACH labels; the other words are noise.

    Popularity tells little.
    """
    rng = np.random.default_rng(seed)
    topic = {s: rng.integers(0, TOPICS, m) for s, m in (("train", n), ("valid", 40), ("test", 60))}
    titles = {
        s: [f"Noise{rng.integers(9)} topic{t} noise{rng.integers(9)}" for t in ts]
        for s, ts in topic.items()
    }
    titles["train"][0] = titles["test"][0] = ""
    labels = {
        s: [np.sort(t * EACH + rng.choice(EACH, 6, replace=False)) for t in ts]
        for s, ts in topic.items()
    }
    truth = {s: Lists.of_rows(labels[s]) for s in labels}
    excluded = {
        s: Lists.of_rows([np.sort(rng.choice(TOPICS * EACH, 3, replace=False)) for _ in ts])
        for s, ts in topic.items()
    }
    titles["labels"] = [f"label {i}" for i in range(TOPICS * EACH)]
    task = Task(titles, {s: truth[s].minus(excluded[s]) for s in ("train", "valid")}, excluded)
    TRUTH[id(task)] = truth["test"].minus(excluded["test"])
    return task


TRUTH: dict[int, Lists] = {}


@pytest.fixture(scope="module")
def task() -> Task:
    return catalog()


@pytest.fixture(scope="module")
def predicted(task):
    return {baseline: baseline(task, 0, **QUICK[baseline])("test") for baseline in QUICK}


def precision_at_1(labels: np.ndarray, truth: Lists) -> float:
    return float(np.mean([labels[i, 0] in truth[i] for i in range(len(labels))]))


# ---- both


@both
def test_precision_is_several_times_that_of_popularity(baseline, task, predicted):
    truth = TRUTH[id(task)]
    base, _ = popular(task.truth["train"], task.num_labels, len(truth), 10, task.excluded["test"])
    assert precision_at_1(predicted[baseline][0], truth) > max(0.2, 4 * precision_at_1(base, truth))
    mine = [
        np.mean(predicted[baseline][0][i, :10] // EACH == truth[i][0] // EACH)
        for i in range(1, len(truth))
    ]
    assert np.mean(mine) > 0.8, (
        "the ten best of a titled datapoint belong to the topic that its title names"
    )


@both
def test_predictions_are_unique_sorted_full_and_without_filter_pairs(baseline, task, predicted):
    labels, scores = predicted[baseline]
    assert (
        labels.shape == scores.shape == (60, WIDTH)
        and labels.dtype == np.int64
        and scores.dtype == np.float32
    )
    for i, row in enumerate(labels):
        known = row[row >= 0]
        assert len(set(known)) == len(known) == WIDTH
        assert not set(known) & set(task.excluded["test"][i])
        assert (np.diff(scores[i, : len(known)]) <= 0).all() and (row[len(known) :] == -1).all()


@both
def test_an_untitled_datapoint_gets_finite_predictions(baseline, task, predicted):
    labels, scores = predicted[baseline]
    assert (
        task.titles["test"][0] == ""
        and (labels[0, :20] >= 0).all()
        and np.isfinite(scores[0, :20]).all()
    )


@both
def test_predictions_depend_on_the_seed_given_alone(baseline, task):
    quick = QUICK[baseline] | (dict(epochs=1) if baseline is mach else dict(epochs=(1, 1)))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, again, other = (baseline(task, seed, **quick)("valid") for seed in (1, 1, 2))
    assert (
        (one[0] == again[0]).all() and (one[1] == again[1]).all() and not (one[1] == other[1]).all()
    )
    assert (torch.random.get_rng_state() == before).all()


@both
def test_an_empty_split_and_few_labels_are_predicted(baseline):
    titles = {
        "train": ["a b", "b c", "c a"] * 4,
        "valid": [],
        "test": ["a", "zzz"],
        "labels": ["x", "y", "z"],
    }
    none = {s: Lists.of_rows([[]] * len(titles[s])) for s in ("train", "valid", "test")}
    small = Task(
        titles, {"train": Lists.of_rows([[0, 1], [1], [2]] * 4), "valid": none["valid"]}, none
    )
    predict = baseline(small, 0, **QUICK[baseline])
    assert predict("valid")[0].shape == (0, WIDTH)
    labels, _ = predict("test")
    assert (
        labels.shape == (2, WIDTH)
        and (np.sort(labels[:, :3], 1) == [0, 1, 2]).all()
        and (labels[:, 3:] == -1).all()
    )


# ---- AttentionXML


@pytest.mark.parametrize(
    "num_labels, leaf, fanout, widest, sizes",
    [
        (7, 8, 8, 9, [7]),
        (100, 8, 4, 2048, [16, 100]),
        (100, 4, 4, 8, [8, 32, 100]),
        (100, 4, 4, 4, [2, 8, 32, 100]),
    ],
)
def test_the_tree_is_balanced_and_holds_every_label_once(num_labels, leaf, fanout, widest, sizes):
    truth = random_graph(150, num_labels)
    centroids = axm.label_centroids(
        [f"word{i % 17} w{i % 5}" for i in range(150)], truth, num_labels
    )
    tree = axm.tree_of(centroids, leaf, fanout, widest, np.random.default_rng(0))
    assert tree.sizes == sizes
    for level, children in enumerate(tree.children):
        held = children[children >= 0]
        assert (np.sort(held) == np.arange(sizes[level])).all()
        if level:
            assert (
                children.shape == (sizes[level - 1], leaf if level == len(sizes) - 1 else fanout)
                or level == len(sizes) - 1
            )
            for label in range(num_labels):
                assert tree.node[level][label] in children[tree.node[level - 1][label]]
    if len(sizes) > 1:
        held = np.bincount(tree.node[-2], minlength=sizes[-2])
        assert held.max() <= leaf and held.max() - held.min() <= 1


def test_balanced_2_means_puts_like_labels_together():
    centroids = axm.label_centroids(["red", "blue"] * 4, Lists.of_rows([[i] for i in range(8)]), 8)
    left, right = balanced_halves(centroids, np.random.default_rng(3), rounds=50)
    parts = {frozenset(left), frozenset(right)}
    assert len(left) == len(right) == 4 and set.union(*map(set, parts)) == set(range(8))
    found = [balanced_halves(centroids, np.random.default_rng(s), rounds=50) for s in range(8)]
    assert any(
        {frozenset(a), frozenset(b)} == {frozenset(range(0, 8, 2)), frozenset(range(1, 8, 2))}
        for a, b in found
    )


def test_attention_is_that_of_a_slow_loop():
    g = torch.Generator().manual_seed(0)
    states, weights = (torch.randn(3, n, 4, generator=g, dtype=torch.float64) for n in (5, 6))
    lengths = [5, 1, 3]
    there = torch.arange(5) < torch.tensor(lengths)[:, None]
    found, shared = (axm.attend(states, states, there, w) for w in (weights, weights[0]))
    for i, length in enumerate(lengths):
        for node in range(6):
            for got, w in ((found, weights[i, node]), (shared, weights[0, node])):
                e = [float(torch.exp(w @ states[i, t])) for t in range(length)]
                wanted = sum(e[t] / sum(e) * states[i, t] for t in range(length))
                assert torch.allclose(got[i, node], wanted)


def test_a_logit_is_the_mlp_of_the_attended_words():
    _, nets = forest_of_random_weights()
    net, tokens, nodes = nets[-1], torch.from_numpy(TOKENS), torch.arange(3).expand(7, 3)
    with torch.no_grad():
        for i, row in enumerate(tokens):
            words = row[row > 0][None]
            states = net.lstm(net.embedding(words))[0]
            attended = (net.attention.weight[:3] @ states.transpose(1, 2)).softmax(-1) @ states
            assert torch.allclose(
                net(tokens, nodes)[i], net.last(torch.relu(net.first(attended)))[0, :, 0], atol=1e-5
            )


def forest_of_random_weights(num_labels: int = 40) -> tuple[axm.Tree, list[axm.LevelNetwork]]:
    centroids = axm.label_centroids(
        [f"word{i % 9}" for i in range(80)], random_graph(80, num_labels), num_labels
    )
    tree = axm.tree_of(centroids, 4, 2, 4, np.random.default_rng(0))
    torch.manual_seed(0)
    nets = [
        axm.LevelNetwork(20, size, not level, SETTINGS).eval()
        for level, size in enumerate(tree.sizes)
    ]
    for net in nets:
        torch.nn.init.normal_(net.attention.weight)
        torch.nn.init.normal_(net.last.weight, std=3.0)
    return tree, nets


TOKENS = np.random.default_rng(1).integers(1, 20, (7, 5)) * (
    np.arange(5) < np.array([5, 1, 2, 3, 4, 5, 1])[:, None]
)


def test_a_full_beam_multiplies_probabilities_along_each_path():
    tree, nets = forest_of_random_weights()
    assert len(nets) == 4
    labels, scores = axm.beam(tree, nets, TOKENS, 40, 40)
    with torch.no_grad():
        chance = [
            net(
                torch.from_numpy(TOKENS),
                None if not level else torch.arange(len(net.attention.weight)).expand(7, -1),
            )
            .sigmoid()
            .numpy()
            for level, net in enumerate(nets)
        ]
    wanted = np.prod([c[:, tree.node[level]] for level, c in enumerate(chance)], axis=0)
    assert (np.sort(labels, 1) == np.arange(40)).all()
    np.testing.assert_allclose(scores, np.take_along_axis(wanted, labels, 1), rtol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()
    narrow, _ = axm.beam(tree, nets, TOKENS, 2, 40)
    assert ((narrow >= 0).sum(1) <= 8).all(), "a beam of two parents leads to their children alone"


def test_relevant_parents_are_always_candidates():
    tree, nets = forest_of_random_weights()
    truth = axm.nodes_of(random_graph(7, 40, most=2, seed=4), tree.node[1], tree.sizes[1])
    most = int(np.diff(truth.offsets).max())
    chosen = axm.chosen_parents(tree, nets[:2], TOKENS, truth, most)
    predicted, _ = axm.beam(tree, nets[:2], TOKENS, most, tree.sizes[1])
    for i in range(7):
        assert (
            set(truth[i]) <= set(chosen[i]) and len(set(chosen[i]) - {-1}) == (chosen[i] >= 0).sum()
        )
        rest = [p for p in predicted[i] if p >= 0 and p not in truth[i]][
            : (chosen[i] >= 0).sum() - len(truth[i])
        ]
        assert set(chosen[i]) - {-1} == set(truth[i]) | set(rest)


def test_a_level_starts_from_the_level_above():
    _, nets = forest_of_random_weights()
    fresh = axm.LevelNetwork(20, 40, False, SETTINGS)
    attention = fresh.attention.weight.clone()
    fresh.warm_start(nets[0])
    assert (fresh.embedding.weight == nets[0].embedding.weight).all() and (
        fresh.attention.weight == attention
    ).all()
    assert (fresh.lstm.weight_hh_l0 == nets[0].lstm.weight_hh_l0).all() and (
        fresh.first.weight == nets[0].first.weight
    ).all()


def test_filter_pairs_move_no_weight_in_attentionxml():
    _, nets = forest_of_random_weights()
    net, nodes = nets[-1], np.array([[3, 5, -1], [7, 3, 9]])
    truth, unknown = Lists.of_rows([[3], [9]]), Lists.of_rows([[5], [7]])
    axm._loss(net, TOKENS[[0, 5]], nodes, truth, unknown, torch.device("cpu")).backward()
    moved = net.attention.weight.grad.coalesce().to_dense().abs().sum(1) > 0
    assert not moved[5] and not moved[7] and not moved[0] and moved[3] and moved[9]


def test_an_ensemble_is_the_mean_over_its_trees():
    one = np.array([[4, 2, -1]]), np.array([[0.8, 0.2, -np.inf]])
    two = np.array([[2, 9, 4]]), np.array([[0.6, 0.5, 0.1]])
    labels, scores = axm.mean_of([one, two])
    found = {int(label): s for label, s in zip(labels[0], scores[0]) if label >= 0}
    assert found == pytest.approx({4: 0.45, 2: 0.4, 9: 0.25}) and (labels >= 0).sum() == 3


# ---- MACH


def test_hashes_are_even_and_differ_by_seed_and_repetition():
    h = machs.label_hashes(5000, 50, 6, 3)
    assert (
        h.shape == (6, 5000)
        and h.min() == 0
        and h.max() == 49
        and (h == machs.label_hashes(5000, 50, 6, 3)).all()
    )
    assert not (h == machs.label_hashes(5000, 50, 6, 4)).all()
    together = [(h[r][:-1:2] == h[s][:-1:2]).mean() for r in range(6) for s in range(r)]
    assert max(together) < 0.1, "two hashings agree no more often than chance, 1 in 50"
    counts = np.stack([np.bincount(row, minlength=50) for row in h])
    assert counts.min() > 50 and counts.max() < 200


def test_the_number_of_buckets_follows_from_labels():
    assert (
        machs.num_buckets(10_000, None) == 300
        and machs.num_buckets(10_000, 64) == 64
        and machs.num_buckets(1, 1) == 2
    )


def test_the_estimator_is_the_mean_of_a_loop():
    p, h = np.random.default_rng(0).random((4, 5, 6)), machs.label_hashes(9, 6, 4, 0)
    found = machs.label_scores(torch.from_numpy(p), torch.from_numpy(h)).numpy()
    for i in range(5):
        for label in range(9):
            assert found[i, label] == pytest.approx(
                sum(p[r, i, h[r, label]] for r in range(4)) / 4, rel=1e-5
            )


def test_batched_networks_are_independent_networks():
    torch.manual_seed(0)
    nets, rng = machs.Nets(16, 5, 3, 7, 0.5).eval(), np.random.default_rng(0)
    with torch.no_grad():
        nets.bias.normal_(), nets.second_bias.normal_()
    x = rng.random((4, 16)).astype(np.float32) * (rng.random((4, 16)) < 0.4)
    x[2] = 0
    from scipy.sparse import csr_matrix

    found = nets(*machs._flat(csr_matrix(x), torch.device("cpu")))
    for r in range(3):
        mine = slice(5 * r, 5 * r + 5)
        hidden = torch.relu(torch.from_numpy(x) @ nets.first.weight[:, mine] + nets.bias[mine])
        assert torch.allclose(found[r], hidden @ nets.second[r] + nets.second_bias[r], atol=1e-5)
    found[1].sum().backward()
    assert not nets.second.grad[[0, 2]].any() and nets.second.grad[1].any(), (
        "no network's loss reaches another's weights"
    )


def test_a_bucket_with_filter_pairs_alone_is_unknown():
    hashes = np.array([[0, 0, 1, 2], [3, 1, 1, 0]])
    target, known = machs.bucket_targets(
        hashes, Lists.of_rows([[0], []]), Lists.of_rows([[1], [2, 3]]), 4
    )
    assert target[:, 0].tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]] and not target[:, 1].any()
    assert known[:, 0].tolist() == [[1, 1, 1, 1], [1, 0, 1, 1]]
    assert known[:, 1].tolist() == [[1, 0, 0, 1], [0, 0, 1, 1]]


def test_hashed_titles_tell_words_apart_and_have_unit_norm():
    inputs = machs.Titles(["red mug", "blue Mug", ""])
    x = inputs(["RED mug!", "blue", "", "mug red"]).toarray()
    assert inputs.features == 16 and np.allclose((x**2).sum(1), [1, 1, 0, 1])
    assert (x[0] == x[3]).all() and (x[0] != x[1]).any()
