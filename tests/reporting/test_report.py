"""The report: each figure is what a slow loop finds, the page is whole, safe and alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from compare import report
from mufin.artifacts.curated import open_store, read_curated
from mufin.artifacts.files import read_json, write_json
from mufin.artifacts.tables import read_table, write_ranking, write_table
from mufin.errors import MufinError
from mufin.evaluation import breakdowns
from mufin.nn.assembly import load_members
from mufin.params import load_params
from mufin.ragged import Lists
from mufin.ranking.label_index import load_index
from mufin.reporting import claims, svg
from mufin.reporting.adaptation import Network, cross_weights, scores_before_and_after
from mufin.reporting.classifiers import same_category
from mufin.reporting.movement import best_example, movement, plane
from mufin.reporting.showcase import Catalog, cross_attention
from pipeline import curate, download, finetune, index, precompute, pretrain, retrieve, transfer
from tests.test_precompute import inside

HOSTILE = (
    '<script>alert("x")</script><img src=http://evil.example/a.png onerror=alert(1)> & "co" \u202e'
)
VOID = {"meta", "img", "br", "hr", "link", "input"}
METRICS = (*report.METRICS, *report.LEAST)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A small run of the pipeline and a comparison beside it: hostile titles, categories, a row that failed."""
    folder = tmp_path_factory.mktemp("run")
    with inside(
        folder,
        **{
            "pretrain.epochs": 2,
            "pretrain.batch_size": 32,
            "finetune.epochs": 2,
            "finetune.batch_size": 32,
        },
    ):
        for stage in (download, curate, precompute, pretrain, retrieve, transfer, finetune, index):
            stage.main()
        rename(lambda title, row: f"{title} {HOSTILE}")
        compare()
        report.main()
    return folder


def rename(title, category=lambda path, row: [p + " <b>&" for p in path]) -> None:
    products = read_table(Path("data/curated/products.parquet"), "products").to_pydict()
    products["title"] = [title(t, row) for row, t in enumerate(products["title"])]
    products["category"] = [category(c, row) for row, c in enumerate(products["category"])]
    write_table(
        {**products, "title": pa.array(products["title"], pa.string())},
        "products",
        Path("data/curated/products.parquet"),
    )


def compare() -> None:
    """data/compare and metrics/compare.json: MUFIN at two seeds, half right by chance; a rival; one that failed."""
    data, rng = read_curated(Path("data/curated")), np.random.default_rng(5)
    test, rows = data.splits["test"], []
    for name, group, seeds in (
        ("mufin", "MUFIN", [0, 1]),
        ("text_only", "Modality", [0]),
        ("bonsai", "Rivals, titles", [0]),
    ):
        for seed in seeds:
            found = np.stack([rng.permutation(len(data.labels))[:20] for _ in range(len(test))])
            for row in range(0, len(test), 2 if name == "mufin" else 5):
                truth = test.labels[row][:3]
                found[row] = np.concatenate([truth, [x for x in found[row] if x not in truth]])[:20]
            write_ranking(
                found,
                np.zeros(found.shape, np.float32),
                Path(f"data/compare/{name}@{seed}/test.parquet"),
            )
        rows.append(
            {
                "row": name,
                "title": name + HOSTILE,
                "group": group,
                "seeds": seeds,
                "failed": None,
                "metrics": {
                    m: [round(rng.uniform(0, 90), 4), round(rng.uniform(0, 2), 4)] for m in METRICS
                },
            }
        )
    rows.append(
        {
            "row": "xt",
            "title": "XT",
            "group": "Rivals, titles",
            "seeds": [],
            "metrics": {},
            "failed": "seed 0: <napkinxc> crashed; try another",
        }
    )
    write_json(
        {
            "split": "cold",
            "labels": len(data.labels),
            "seeds": [0, 1],
            "rows": rows,
            "datapoints": {n: len(s) for n, s in data.splits.items()},
        },
        Path("metrics/compare.json"),
    )


class Page(HTMLParser):
    """Tags balanced, references, the text of the table's rows."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.references += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "srcset", "action")
        ]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(home) -> str:
    return (home / "metrics/report.html").read_text()


def test_the_page_is_balanced_and_starts_as_html(page):
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert Page(page).open == []


def test_the_page_asks_nothing_of_the_network_and_has_no_script(page):
    found = Page(page)
    assert found.references and all(
        r.startswith(("data:image/jpeg;base64,", "#")) for r in found.references
    )
    assert not found.tags & {"script", "link", "iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import", page)


def test_hostile_titles_are_text(page):
    assert "<script" not in page and "<img src=http" not in page and "&lt;script&gt;" in page
    assert not {a for a in Page(page).attributes if a.startswith("on")}


def test_the_page_is_light(page):
    assert len(page.encode()) < 1_500_000


def test_every_figure_of_the_table_is_that_of_compare_json(home, page):
    rows = {r[0]: r[1:] for r in Page(page).rows if len(r) == 1 + len(METRICS)}
    for row in read_json(home / "metrics/compare.json")["rows"]:
        if row["metrics"]:
            wanted = [
                f"{a:.2f}" + (f" ± {s:.2f}" if len(row["seeds"]) > 1 else "")
                for a, s in (row["metrics"][m] for m in METRICS)
            ]
            assert [c.strip() for c in rows[row["title"]]] == wanted


def test_the_best_of_each_column_is_bold_and_the_least_milliseconds_are(home, page):
    rows = [r for r in read_json(home / "metrics/compare.json")["rows"] if r["metrics"]]
    for metric in METRICS:
        top = (min if metric == "milliseconds" else max)(r["metrics"][metric][0] for r in rows)
        assert f'<td class="best">{top:.2f}' in page


def test_a_failed_row_says_why(page):
    assert "failed: seed 0: &lt;napkinxc&gt; crashed; try another" in page


def test_plots_have_every_row_and_bins_sum_to_recall(home):
    lines = (home / "metrics/compare_popularity.csv").read_text().splitlines()
    assert lines[0] == "row,bin,R@10" and len(lines) == 1 + 3 * 5
    header = (home / "metrics/compare_categories.csv").read_text().splitlines()[0]
    assert header == "row,category,datapoints,P@5"
    labels = len(read_curated(home / "data/curated").labels)
    assert len((home / "metrics/classifiers_tsne.csv").read_text().splitlines()) == 1 + labels


def test_without_categories_and_titles_and_pictures_the_page_is_written_and_says_so(home, tmp_path):
    with inside(home):
        before = read_table(Path("data/curated/products.parquet"), "products")
        rename(lambda title, row: "", lambda path, row: [])
        try:
            report.main(
                raw=tmp_path,
                page=tmp_path / "a.html",
                metrics=tmp_path / "a.json",
                popularity=tmp_path / "p.csv",
                categories=tmp_path / "c.csv",
                tsne=tmp_path / "t.csv",
            )
        finally:
            write_table(before.to_pydict(), "products", Path("data/curated/products.parquet"))
    text = (tmp_path / "a.html").read_text()
    assert (
        "no categories that tell them apart" in text
        and "no picture" in text
        and Page(text).open == []
    )
    assert (tmp_path / "c.csv").read_text().split() == ["row,category,datapoints,P@5"]


def test_a_missing_comparison_and_predictions_of_another_split_are_one_sentence(home, tmp_path):
    with inside(home), pytest.raises(MufinError, match="run `make compare` first"):
        report.main(compared=tmp_path / "none.json")
    write_ranking(
        np.zeros((3, 1), np.int64), np.zeros((3, 1), np.float32), tmp_path / "mufin@0/test.parquet"
    )
    with inside(home), pytest.raises(MufinError, match="3 predictions for"):
        report.main(folder=tmp_path)


@pytest.fixture(scope="module")
def network(home):
    with inside(home):
        params, precomputed = load_params(), Path("data/precomputed")
        loaded = Network(
            load_members(Path("models/finetune"), precomputed),
            open_store(precomputed, params),
            load_index(Path("models/index"), torch.device("cpu")),
            12,
        )
        data = read_curated(Path("data/curated"))
        return loaded, data, loaded.embed(data.splits["test"].product)


def test_weights_of_the_heat_map_are_the_softmax_of_q_k_by_hand(network):
    net, _, x = network
    rows = x[0].rows[x[0].offsets[3] : x[0].offsets[4]]
    asked = net.labels.rows[net.labels.offsets[7] : net.labels.offsets[8]]
    block = net.first.cross_attention
    q = rows @ block.query.weight.detach().numpy().T + block.query.bias.detach().numpy()
    k = asked @ block.key.weight.detach().numpy().T + block.key.bias.detach().numpy()
    e = np.exp(q @ k.T / np.sqrt(rows.shape[1]))
    weights = cross_weights(net.first, x[0], 3, net.labels, 7)
    assert weights.shape == (len(rows), len(asked))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(weights, e / e.sum(1, keepdims=True), atol=1e-4)


@torch.inference_mode()
def test_the_movement_is_that_of_adapted_pair_by_pair(network):
    net, data, x = network
    test = data.splits["test"]
    found = net.retrieved(x, test.excluded)
    before, after = scores_before_and_after(net, x[0], found)
    relevant = np.array(
        [[label in set(test.labels[i].tolist()) for label in row] for i, row in enumerate(found)]
    )
    gains, gaps = {True: [], False: []}, []
    for i, row in enumerate(found):
        own = {True: [], False: []}
        for j, label in enumerate(row):
            if label >= 0:
                bag, answer = (
                    e.bags(np.array([n]), torch.device("cpu"))
                    for e, n in ((x[0], i), (net.labels, label))
                )
                w = net.classifiers[label]
                own[bool(relevant[i, j])].append(
                    float(net.first.adapted(bag, answer)[0].numpy() @ w - x[0].vectors[i] @ w)
                )
        if own[True] and own[False]:
            gaps.append(np.mean(own[True]) - np.mean(own[False]))
        gains[True] += own[True]
        gains[False] += own[False]
    moved = movement(before, after, relevant, found >= 0)
    assert moved.relevant.pairs == len(gains[True]) > 0 and moved.datapoints == len(gaps)
    np.testing.assert_allclose(
        [moved.relevant.mean, moved.irrelevant.mean, moved.difference],
        [np.mean(gains[True]), np.mean(gains[False]), np.mean(gaps)],
        atol=1e-5,
    )
    np.testing.assert_allclose(moved.error, np.std(gaps, ddof=1) / np.sqrt(len(gaps)), atol=1e-5)


@pytest.mark.parametrize("gone", ["cross-attention", "test"])
def test_without_cross_attention_or_test_datapoints_section_5_says_so(network, home, gone):
    net, data, _ = network
    test, kept = data.splits["test"], net.first.cross_attention
    if gone == "test":
        test = type(test)(
            test.product[:0], test.labels.take(np.arange(0)), test.excluded.take(np.arange(0))
        )
    catalog = Catalog(
        read_table(home / "data/curated/products.parquet", "products"), data.labels, test, home
    )
    try:
        if gone != "test":
            net.first.cross_attention = None
        out = cross_attention(net, catalog, None)
    finally:
        net.first.cross_attention = kept
    assert gone in out["absent"] and out["movement"] is None


def random_case(seed: int = 0, n: int = 60, labels: int = 30):
    rng = np.random.default_rng(seed)
    predictions = np.stack([rng.permutation(labels)[:12] for _ in range(n)])
    truth = Lists.of_rows([rng.permutation(labels)[: rng.integers(0, 6)] for _ in range(n)])
    excluded = Lists.of_rows([rng.permutation(labels)[: rng.integers(0, 3)] for _ in range(n)])
    return rng, predictions, truth, excluded


def test_figures_of_groups_are_those_of_a_slow_loop():
    rng, predictions, truth, excluded = random_case()
    group = rng.integers(0, 3, len(predictions))
    figures = breakdowns.of_groups(predictions, truth, excluded, group, 4)
    assert np.isnan(figures[3]).all()
    for g in range(3):
        sums, count = np.zeros(3), 0
        for i in np.flatnonzero(group == g):
            gone = set(excluded[i].tolist())
            right, ranked = (
                set(truth[i].tolist()) - gone,
                [p for p in predictions[i].tolist() if p not in gone],
            )
            sums += [
                len(right & set(ranked[:1])),
                len(right & set(ranked[:5])) / 5,
                len(right & set(ranked[:10])) / max(len(right), 1),
            ]
            count += 1
        np.testing.assert_allclose(figures[g], 100 * sums / count)


def test_bins_of_popularity_are_those_of_a_slow_loop_and_sum_to_recall():
    rng, predictions, truth, excluded = random_case(1)
    frequency = rng.integers(0, 9, 30)
    order = sorted(range(30), key=lambda label: (frequency[label], label))
    pairs, before, label_bin = [int((truth.values == label).sum()) for label in order], 0, {}
    for label, own in zip(order, pairs):
        label_bin[label] = min(int((before + own / 2) * 5 / sum(pairs)), 4)
        before += own
    wanted = np.zeros(5)
    for i, row in enumerate(predictions):
        gone = set(excluded[i].tolist())
        right = set(truth[i].tolist()) - gone
        for label in [p for p in row.tolist() if p not in gone][:10]:
            wanted[label_bin[label]] += (label in right) / max(len(right), 1) / len(predictions)
    np.testing.assert_allclose(
        breakdowns.of_bins(predictions, truth, excluded, frequency), 100 * wanted
    )
    edges = breakdowns.bin_frequencies(frequency, truth)
    assert (
        sum(count for count, _, _ in edges) == 30
        and edges[0][1] == frequency.min()
        and edges[-1][2] == frequency.max()
    )


def test_groups_by_pictures_modality_and_category():
    assert [
        breakdowns.PICTURES[i] for i in breakdowns.by_pictures(np.array([0, 1, 2, 3, 4, 5, 6, 15]))
    ] == ["0", "1", "2", "3", "4-5", "4-5", "6 and more", "6 and more"]
    yes_no = np.array([True, False])
    assert [
        breakdowns.MODALITIES[i]
        for i in breakdowns.by_modality(np.repeat(yes_no, 2), np.tile(yes_no, 2))
    ] == ["title and picture", "no picture", "no title", "neither"]
    names, place = breakdowns.by_category(np.array(["b", "a", "b", "", "c", "a", "b"]), 2)
    assert names == ["b", "a", "others"] and place.tolist() == [0, 1, 0, 2, 2, 1, 0]
    mean, spread = breakdowns.over_seeds([np.array([1.0]), np.array([3.0])])
    assert mean[0] == 2 and spread[0] == pytest.approx(2**0.5)


def test_neighbours_of_the_same_category_are_those_of_a_slow_loop():
    rng = np.random.default_rng(2)
    w, category = rng.normal(size=(40, 6)), np.array(["a", "b", "c", ""])[rng.integers(0, 4, 40)]
    known = [i for i in range(40) if category[i]]
    cosine = lambda i, j: w[i] @ w[j] / np.linalg.norm(w[i]) / np.linalg.norm(w[j])  # noqa: E731
    same = [
        category[j] == category[i]
        for i in known
        for j in sorted((k for k in known if k != i), key=lambda k: -cosine(i, k))[:10]
    ]
    chance = np.mean([category[i] == category[j] for i in known for j in known if i != j])
    np.testing.assert_allclose(same_category(w, category), (100 * np.mean(same), 100 * chance))
    assert same_category(w, np.full(40, "a")) is None and same_category(w[:5], category[:5]) is None


def test_the_example_is_the_hit_with_the_most_descriptors_on_both_sides():
    hits = np.array([[True, False], [True, True], [False, True]])
    assert best_example(hits, np.array([9, 3, 3]), np.array([[2, 9], [3, 4], [9, 4]])) == (1, 1)
    assert best_example(np.zeros((2, 2), bool), np.ones(2), np.ones((2, 2))) is None


def test_the_plane_keeps_distances_of_points_that_lie_on_one():
    rng = np.random.default_rng(3)
    flat = rng.normal(size=(5, 2)) @ np.linalg.qr(rng.normal(size=(7, 2)))[0].T + rng.normal(size=7)
    points, share = plane(flat)
    distances = lambda a: np.linalg.norm(a[:, None] - a[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(distances(points), distances(flat), atol=1e-9)
    assert share == pytest.approx(1)


def row(mean: float, spread: float = 0.0, seeds: int = 3) -> claims.Row:
    return claims.Row("X", {m: [mean, spread] for m in METRICS}, seeds)


@pytest.mark.parametrize(
    "winner, loser, verdict",
    [
        (row(10, 0.3), row(9, 0.4), claims.SHOWS),
        (row(9, 0.3), row(10, 0.4), claims.NOT),
        (row(10, 0.3), row(9.6, 0.4), claims.WITHIN),
        (row(10, seeds=1), row(9, seeds=1), claims.LEANS),
        (row(9, seeds=1), row(10, seeds=1), claims.AGAINST),
        (row(10, 0.5), row(9, seeds=1), claims.SHOWS),
    ],
)
def test_a_claim_shows_where_the_difference_exceeds_the_spread(winner, loser, verdict):
    assert claims.judge(winner, loser, "P@1")[0] == verdict


def test_claims_whose_rows_are_absent_were_not_run_and_triplet_is_the_reference_of_sampling():
    said = {
        c.text: c
        for c in claims.compared({"mufin": row(10), "no_hard_positives": row(5)}, ["mach"])
    }
    assert (
        said["MUFIN beats mach."].verdict
        == said["Without cross-attention (no A_C) it is worse."].verdict
        == claims.NOT_RUN
    )
    assert said["Hard positives help."].verdict == claims.SHOWS
    said = {
        c.text: c
        for c in claims.compared(
            {"mufin": row(10), "triplet": row(4), "no_hard_positives": row(5)}, []
        )
    }
    assert said["Hard positives help."].verdict == claims.NOT


def test_bins_and_categories_are_won_only_where_mufin_is_ahead():
    titles = {"bonsai": "Bonsai"}
    assert (
        claims.in_all_bins({"mufin": [2, 2], "bonsai": [1, 1]}, titles, ["bonsai", "xt"]).verdict
        == claims.SHOWS
    )
    assert (
        "bin 2"
        in claims.in_all_bins({"mufin": [2, 2], "bonsai": [1, 3]}, titles, ["bonsai"]).figures[0]
    )
    assert claims.in_all_bins({"mufin": [2, 2]}, titles, ["bonsai"]).verdict == claims.NOT_RUN
    won = claims.in_most_categories(
        {"mufin": [2, 2, 2, 2, 0], "bonsai": [1] * 5}, titles, ["bonsai"]
    )
    assert won.verdict == claims.SHOWS and "4 of 5" in won.figures[0]


def test_cells_of_the_heat_map_can_be_read_at_any_weight():
    for weight in np.linspace(0, 1, 101):
        light, dark = sorted(
            (svg.luminance([int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in svg.shade(weight)),
            reverse=True,
        )
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_text_of_drawings_is_escaped():
    drawing = svg.arrows(
        np.random.default_rng(0).normal(size=(2, 2)),
        ["<b>", "&"],
        [(0, 0), (0, 1)],
        [(0, 1)],
        HOSTILE,
    )
    assert "<b>" not in drawing and "<script" not in drawing and Page(drawing).open == []


def test_the_report_says_in_json_what_it_found(home):
    found = json.loads((home / "metrics/report.json").read_text())
    assert (
        found["attention"]["datapoints"] > 0
        and found["classifiers"]["share"] >= 0
        and found["bytes"] > 10_000
    )
    assert found["claims"]["MUFIN beats bonsai" + HOSTILE + "."] in (
        claims.SHOWS,
        claims.WITHIN,
        claims.NOT,
    )
