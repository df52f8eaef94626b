"""SiameseXML and ECLARE: parts against slow versions and closed forms, and that they learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.nn.functional import normalize

from mufin.baselines import eclare as eclare_file
from mufin.baselines.eclare import (
    Head,
    MetaLabels,
    balanced_clusters,
    label_graph,
    random_walks,
    symmetric,
    top_of_rows,
)
from mufin.baselines.eclare import trained as eclare
from mufin.baselines.shared.popularity import popular
from mufin.baselines.shared.shortlists import batch_pairs, negatives_of, positives_of
from mufin.baselines.shared.task import WIDTH, Task
from mufin.baselines.shared.text_bags import WordBag, title_bags
from mufin.baselines.siamesexml import (
    Shortlists,
    SiameseXML,
    classifier_loss,
    known_pairs,
    siamese_loss,
)
from mufin.baselines.siamesexml import trained as siamesexml
from mufin.metrics import precision_at_k
from mufin.ragged import Lists

QUICK = {
    siamesexml: {"dim": 32, "pretrain_epochs": 6, "epochs": 6},
    eclare: {"dim": 32, "words_epochs": 8, "meta_epochs": 5, "epochs": 8},
}
BASELINES = pytest.mark.parametrize("baseline", list(QUICK), ids=["siamesexml", "eclare"])
KINDS, COLOURS = 24, "red blue green black white pink".split()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def catalog(labels_per_kind: int = 6, n: int = 320, seed: int = 0) -> tuple[Task, Lists]:
    """A task where a word of the title names the kind, and each datapoint has four labels of its
    kind.

    Also the truth of test. Each datapoint has one filter pair of its kind; the last datapoint of
    each split has no title.
    """
    rng = np.random.default_rng(seed)
    titles = {
        "labels": [
            f"kind{k} {COLOURS[c % 6]}" for k in range(KINDS) for c in range(labels_per_kind)
        ]
    }
    truth, excluded = {}, {}
    for name, count in (("train", n), ("valid", 60), ("test", 120)):
        kind = rng.integers(KINDS, size=count)
        titles[name] = [f"kind{k} {rng.choice(COLOURS)} thing" for k in kind[:-1]] + [""]
        some = [k * labels_per_kind + rng.permutation(labels_per_kind)[:5] for k in kind]
        truth[name], excluded[name] = (
            Lists.of_rows([np.sort(s[:4]) for s in some]),
            Lists.of_rows([s[4:] for s in some]),
        )
    return Task(titles, {name: truth[name] for name in ("train", "valid")}, excluded), truth["test"]


@pytest.fixture(scope="module")
def trained():
    task, test = catalog()
    return (
        task,
        test,
        {baseline: baseline(task, 0, **settings) for baseline, settings in QUICK.items()},
    )


# both


@BASELINES
def test_precision_is_several_times_that_of_popularity(baseline, trained):
    task, test, predict = trained
    excluded = task.excluded["test"]
    labels, _ = popular(task.truth["train"], task.num_labels, len(test), WIDTH, excluded)
    known = precision_at_k(predict[baseline]("test")[0], test, 1, excluded)
    assert known > 4 * precision_at_k(labels, test, 1, excluded)
    assert known > 60


@BASELINES
@pytest.mark.parametrize("split", ["valid", "test"])
def test_predictions_are_unique_sorted_full_and_without_filter_pairs(baseline, split, trained):
    task, _, predict = trained
    labels, scores = predict[baseline](split)
    assert (
        labels.shape == scores.shape == (len(task.titles[split]), WIDTH) and WIDTH < task.num_labels
    )
    assert (labels >= 0).all() and np.isfinite(scores).all() and (np.diff(scores) <= 0).all()
    for row, filtered in enumerate(map(set, (task.excluded[split][i] for i in range(len(labels))))):
        assert len(set(labels[row])) == WIDTH and not filtered & set(labels[row])


@BASELINES
def test_few_labels_are_all_predicted_but_filter_pairs(baseline):
    task, _ = catalog(n=60)
    few = 40
    small = Task(
        {**task.titles, "labels": task.titles["labels"][:few]},
        {name: t.only(t.values < few) for name, t in task.truth.items()},
        {name: t.only(t.values < few) for name, t in task.excluded.items()},
    )
    labels, scores = baseline(small, 0, **QUICK[baseline])("test")
    assert ((labels >= 0).sum(1) == few - np.diff(small.excluded["test"].offsets)).all()
    assert (np.isneginf(scores) == (labels < 0)).all()


@BASELINES
def test_predictions_depend_on_the_seed_given_alone(baseline):
    task, _ = catalog(n=80)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = baseline(task, 3, **QUICK[baseline])("test")
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(first, baseline(task, 3, **QUICK[baseline])("test")):
        assert np.array_equal(a, b)
    assert not np.array_equal(first[1], baseline(task, 4, **QUICK[baseline])("test")[1])


@BASELINES
def test_it_predicts_without_any_title(baseline):
    task, _ = catalog(n=60)
    bare = Task(
        {name: [""] * len(some) for name, some in task.titles.items()}, task.truth, task.excluded
    )
    labels, scores = baseline(bare, 0, **QUICK[baseline])("valid")
    assert (labels >= 0).all() and np.isfinite(scores).all()


@BASELINES
def test_it_trains_without_a_valid_split(baseline):
    task, _ = catalog(n=60)
    none = Lists.of_rows([])
    alone = Task(
        {**task.titles, "valid": []},
        {**task.truth, "valid": none},
        {**task.excluded, "valid": none},
    )
    assert (baseline(alone, 0, **QUICK[baseline])("test")[0] >= 0).all()


def test_filter_pairs_are_neither_positives_nor_negatives():
    task, _ = catalog()
    truth = Lists.of_rows(
        [np.append(task.truth["train"][i], task.excluded["train"][i]) for i in range(320)]
    )
    task = Task(
        task.titles, {**task.truth, "train": truth}, task.excluded
    )  # even where the truth holds them
    positives, found = positives_of(task), np.tile(np.arange(task.num_labels), (320, 1))
    wrong, pairs = negatives_of(found, task), known_pairs(task)
    for i in range(320):
        filtered, relevant = set(task.excluded["train"][i]), set(positives[i])
        assert not filtered & relevant and len(relevant) == 4
        assert set(wrong[i]) - {-1} == set(found[i]) - filtered - relevant
        assert (
            set(pairs[i].indices[pairs[i].data == 1]) == relevant
            and set(pairs[i].indices[pairs[i].data == 2]) == filtered
        )


def test_a_batch_holds_all_positives_and_some_negatives():
    truth, wrong = Lists.of_rows([[1, 2, 3], [4]]), np.array([[5, -1, 6, 7], [-1, -1, -1, 8]])
    labels, target = batch_pairs(truth, wrong, 2, np.random.default_rng(0))
    assert [sorted(row[t == 1]) for row, t in zip(labels, target)] == [[1, 2, 3], [4]]
    assert set(labels[0][target[0] == 0]) < {5, 6, 7} and (target[0] == 0).sum() == 2
    assert labels[1][target[1] == 0].tolist() == [8] and (labels[target == -1] == -1).all()


def test_a_bag_is_the_tfidf_sum_of_word_vectors():
    titles = {
        "train": ["red mug", "red cup", ""],
        "labels": ["cup", "red"],
        "test": ["teapot", "cup cup red"],
    }
    bags, num_terms = title_bags(titles, 1, 2)
    words = WordBag(num_terms, 4)
    table = words.words.weight.detach()
    assert num_terms == 3  # cup, red, and no word
    assert torch.equal(words.all(bags["train"])[2], table[2]) and torch.equal(
        words.all(bags["test"])[0], table[2]
    )
    weights = bags["test"].matrix(num_terms).toarray()[1]
    assert np.linalg.norm(weights) == pytest.approx(1) and weights[0] > weights[1] > 0
    assert words.all(bags["test"])[1].numpy() == pytest.approx(weights @ table.numpy(), abs=1e-6)


# SiameseXML


def test_a_classifier_is_the_normalised_sum_with_eta():
    model = SiameseXML(5, 7, 3, 0.0).eval()
    torch.nn.init.normal_(model.eta.weight)
    z, x = normalize(torch.randn(7, 3), dim=1), normalize(torch.randn(4, 3), dim=1)
    ids = np.array([[1, 3, -1], [0, 0, 6], [2, 2, 2], [5, 4, 3]])
    cosine = model.scores(z, x, ids).detach()
    for i in range(4):
        v = x[i] + torch.relu(model.residual.layer(x[i]))
        for place, label in enumerate(ids[i]):
            w = z[label] + model.eta.weight[label]
            if label >= 0:
                assert cosine[i, place].item() == pytest.approx(
                    (w @ v / w.norm() / v.norm()).item(), abs=1e-6
                )


def test_a_shortlist_is_the_union_of_two_searches():
    rng = np.random.default_rng(0)
    z, x, q = (
        normalize(torch.from_numpy(rng.normal(size=(n, 5)).astype(np.float32)), dim=1)
        for n in (40, 30, 9)
    )
    truth = Lists.of_rows([rng.choice(40, rng.integers(0, 4), replace=False) for _ in range(30)])
    search, none = Shortlists(z, x, truth, 6, 4), Lists.of_rows([[]] * 30)
    for queries, own in ((q, False), (x, True)):
        found, similarity = search.of(queries, none, own=own)
        for i, query in enumerate(queries):
            near = (query @ z.T).argsort(descending=True)[:6].tolist()
            expected = {label: (query @ z[label]).item() for label in near}
            for j in [
                j for j in (query @ x.T).argsort(descending=True).tolist() if not (own and j == i)
            ][:4]:
                for label in truth[j]:
                    expected[label] = max(expected.get(label, -1), (query @ x[j]).item())
            got = dict(zip(found[i][found[i] >= 0].tolist(), similarity[i].tolist()))
            assert got.keys() == expected.keys() and got == pytest.approx(expected, abs=1e-6)


def test_the_siamese_loss_takes_positives_and_hardest_negatives():
    cosine = torch.tensor([[0.9, 0.5, 0.8, 0.1], [0.2, 0.3, 0.4, 0.99]])
    relation = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 2]])
    c, d = 0.9, 1.5

    def right(s):
        return -math.log(c * math.exp(d * (s - 1))) / d

    def wrong(s):
        return -math.log(1 - c * math.exp(d * (s - 1))) / d

    assert siamese_loss(cosine, relation, 1, c, d).item() == pytest.approx(
        (right(0.9) + wrong(0.8) + right(0.3) + right(0.4) + wrong(0.2)) / 2, abs=1e-6
    )


def test_the_classifier_loss_skips_padding_and_easy_negatives():
    cosine, target = torch.tensor([[0.5, 0.9, -0.9, 0.7]]), torch.tensor([[1, 0, 0, -1]])
    c, d = 0.75, 3.0
    expected = (
        -math.log(c * math.exp(d * (0.5 - 1))) / d - math.log(1 - c * math.exp(d * (0.9 - 1))) / d
    )
    assert classifier_loss(cosine, target).item() == pytest.approx(expected, abs=1e-6)


# ECLARE

TINY = Lists.of_rows([[0, 1], [1, 2], [2], [2, 3]])  # datapoints' labels; label 4 has no datapoint


def step_matrix(truth: Lists, num_labels: int) -> np.ndarray:
    relevant = np.zeros((len(truth), num_labels))
    relevant[truth.rows(), truth.values] = 1
    return (relevant.T / np.maximum(relevant.sum(0), 1)[:, None]) @ (
        relevant / relevant.sum(1, keepdims=True)
    )


@pytest.mark.parametrize("restart", [0.2, 0.8])
def test_visits_of_walks_are_those_in_closed_form(restart):
    walk, one = 20_000, step_matrix(TINY, 5)
    expected = (
        restart * np.linalg.inv(np.eye(4) - (1 - restart) * one[:4, :4].T).T @ one[:4, :4]
    )  # long-run visits
    got = random_walks(TINY, 5, walk, restart, np.random.default_rng(0)).toarray()
    assert got.sum(1) == pytest.approx(1, abs=1e-6) and got[4].tolist() == [0, 0, 0, 0, 1]
    assert got[:4, :4] == pytest.approx(expected, abs=0.02)


def test_frequent_restarts_keep_walks_near_their_start():
    truth = Lists.of_rows([[i, i + 1] for i in range(9)] + [[10, 11]])  # a chain, and a pair apart
    near, far = (
        random_walks(truth, 12, 2000, r, np.random.default_rng(0)).toarray() for r in (0.8, 0.01)
    )
    distance = np.abs(np.arange(10)[:, None] - np.arange(10))
    assert (near[:10, :10] * distance).sum() < 0.5 * (far[:10, :10] * distance).sum()
    assert not near[:10, 10:].any() and not near[10:, :10].any()


def test_the_label_graph_cuts_popular_labels_off():
    truth = Lists.of_rows([[0, 1 + i % 5] for i in range(30)])
    graph = label_graph(truth, 7, 100, 0.5, 3, 20, np.random.default_rng(0)).toarray()
    assert (
        graph[0].tolist() == [1, 0, 0, 0, 0, 0, 0] and graph[6, 6] == 1 and not graph[1:, 0].any()
    )
    graph = label_graph(truth, 7, 100, 0.5, 3, 500, np.random.default_rng(0)).toarray()
    assert graph[1:6, 0].all() and ((graph > 0).sum(1) <= 4).all() and (graph.diagonal() > 0).all()


def test_normalisation_divides_by_the_roots_of_both_sums():
    dense = np.array([[1.0, 2.0], [0.0, 4.0]])
    assert symmetric(sp.csr_matrix(dense)).toarray() == pytest.approx(
        dense / np.sqrt(dense.sum(1))[:, None] / np.sqrt(dense.sum(0)), abs=1e-6
    )


def test_top_of_rows_keeps_the_largest_entries_in_order():
    top = top_of_rows(
        sp.csr_matrix(np.array([[1, 5, 3, 5], [0, 0, 0, 2], [0, 0, 0, 0], [1, 1, 1, 1]], float)), 2
    )
    assert [top.indices[a:b].tolist() for a, b in zip(top.indptr, top.indptr[1:])] == [
        [1, 3],
        [3],
        [],
        [0, 1],
    ]


def test_clusters_are_level_and_near_rows_share_one():
    rng = np.random.default_rng(0)
    rows = np.repeat(np.eye(8), 4, axis=0) + 0.01 * rng.normal(size=(32, 8))
    cluster = balanced_clusters(rows[:30], 4, rng)
    sizes = np.bincount(cluster)
    assert sizes.sum() == 30 and sizes.max() <= 4 and sizes.max() - sizes.min() <= 1
    assert (
        np.bincount(balanced_clusters(np.ones((9, 3)), 2, rng)).max() <= 2
    )  # also where all rows are the same


def test_a_label_vector_is_attention_over_three_vectors():
    texts, smoothed = torch.randn(6, 4), torch.randn(6, 4)
    head = Head(texts, smoothed, 0.3, True).eval()
    torch.nn.init.normal_(head.free.weight)
    torch.nn.init.normal_(head.bias.weight)
    x, ids = torch.randn(2, 4), np.array([[0, 5, 5], [3, 1, -1]])
    logits, everything = head.logits(x, ids).detach(), head.all_logits(x).detach()
    for i in range(2):
        for label, logit in zip(ids[i], logits[i]):
            kinds = [head.text(texts[label]), head.graph(smoothed[label]), head.free.weight[label]]
            weight = head.mix(torch.cat([head.query(torch.relu(v)) for v in kinds])).softmax(0)
            w = sum(a * v for a, v in zip(weight, kinds))
            if label >= 0:
                assert logit.item() == pytest.approx(
                    (head.document(x[i]) @ w + head.bias.weight[label, 0]).item(), abs=1e-5
                )
                assert logit.item() == pytest.approx(everything[i, label].item(), abs=1e-5)


def test_a_shortlist_spreads_the_beams_scores_over_the_graph():
    rng = np.random.default_rng(0)
    of = sp.csr_matrix((np.ones(12, np.float32), (np.arange(12) // 3, np.arange(12))))
    graph = symmetric(sp.csr_matrix(((rng.random((12, 12)) < 0.2) + np.eye(12)).astype(np.float32)))
    meta, head = (
        MetaLabels(of, graph, 10),
        Head(torch.randn(4, 5), torch.randn(4, 5), 0.0, True).eval(),
    )
    x = torch.randn(3, 5)
    labels, scores = meta.shortlist(head, x, 2, 6)
    for i, chance in enumerate(head.all_logits(x).sigmoid().detach().numpy()):
        beam = np.where(chance >= np.sort(chance)[-2], chance, 0)
        spread = beam @ of.toarray() @ graph.toarray()
        assert labels[i].tolist() == np.lexsort((np.arange(12), -spread))[:6].tolist()
        assert scores[i] == pytest.approx(spread[labels[i]], abs=1e-6)


def test_word_vectors_are_frozen_while_labels_learn(monkeypatch):
    task, _ = catalog(n=60)
    seen = {}
    whole = eclare_file.label_head

    def watched(vectors, *rest):
        before = {name: v.clone() for name, v in vectors.items()}
        head = whole(vectors, *rest)
        seen["same"] = all(torch.equal(before[name], v) for name, v in vectors.items())
        seen["moved"] = not torch.equal(head.free.weight, head.smoothed)
        return head

    monkeypatch.setattr(eclare_file, "label_head", watched)
    eclare(task, 0, **QUICK[eclare])
    assert seen == {"same": True, "moved": True}
