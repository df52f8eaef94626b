"""The built-in sample: equal bytes every time, faults of real catalogs, both modalities needed."""

import ast
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mufin.corpus import sample, sample_pictures
from mufin.errors import MufinError


@pytest.fixture(scope="module")
def catalog():
    """300 products with their pictures."""
    return sample.sample_catalog(300, 0)


@pytest.fixture(scope="module")
def whole():
    """3,000 products, each picture replaced by a token: (rows, images, facts, world, relations)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sample, "draw_views", lambda kind, motif, colour, count, rng: [b"picture"] * count
        )
        rows, images, facts = sample.sample_catalog(3000, 0)
    world = sample.invent_world(3000, 0)
    return rows, images, facts, world, sample.draw_relations(world, 0)


def digest(products, seed):
    rows, images, facts = sample.sample_catalog(products, seed)
    content = hashlib.sha256(json.dumps([rows, facts]).encode())
    for ref in sorted(images):
        content.update(ref.encode() + images[ref])
    return content.hexdigest()


def test_only_the_seed_decides_the_bytes():
    assert digest(60, 3) == digest(60, 3) != digest(60, 4)


def test_the_sample_reads_neither_clock_nor_machine():
    for module in (sample, sample_pictures):
        nodes = list(ast.walk(ast.parse(Path(module.__file__).read_text())))
        names = {
            alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not names & {"time", "datetime", "random", "os", "platform", "pathlib"}


def test_a_catalog_below_the_smallest_is_refused():
    rows, images, facts = sample.sample_catalog(sample.SMALLEST, 0)
    assert (
        len({row["ASIN"] for row in rows}) == sample.SMALLEST and images and facts["relations"] > 0
    )
    with pytest.raises(MufinError, match="download.sample.products is 59"):
        sample.sample_catalog(sample.SMALLEST - 1, 0)


def test_a_row_has_the_columns_of_a_catalog(catalog):
    for row in catalog[0]:
        assert list(row) == ["ASIN", "title", "images", "also_buy", "category"]
        assert len(set(row["images"])) == len(row["images"]) <= 6
        assert len(set(row["also_buy"])) == len(row["also_buy"])
    json.dumps(catalog[0])


def test_what_is_wrong_has_about_its_stated_share(whole):
    rows, images, *_ = whole
    uids = {row["ASIN"] for row in rows}
    refs = [ref for row in rows[:3000] for ref in row["images"]]
    ids = [uid for row in rows[:3000] for uid in row["also_buy"]]
    shares = {
        "no title": (np.mean([not row["title"] for row in rows[:3000]]), sample.NO_TITLE),
        "no images": (np.mean([not row["images"] for row in rows[:3000]]), sample.NO_IMAGES),
        "dead": (np.mean([ref not in images for ref in refs]), sample.DEAD_IMAGE),
        "corrupt": (
            np.mean([images.get(ref, b"picture") != b"picture" for ref in refs]),
            sample.CORRUPT_IMAGE,
        ),
        "markup": (
            np.mean([bool(re.search("[&<]|  ", row["title"])) for row in rows[:3000]]),
            sample.MARKUP,
        ),
        "dangling": (np.mean([uid not in uids for uid in ids]), sample.DANGLING),
        "self": (np.mean([row["ASIN"] in row["also_buy"] for row in rows[:3000]]), sample.SELF),
        "duplicate": ((len(rows) - 3000) / 3000, sample.DUPLICATE),
    }
    for what, (found, stated) in shares.items():
        assert stated / 2 < found < 1.5 * stated, what
    neither = sum(not row["title"] and not row["images"] for row in rows[:3000])
    assert neither == round(3000 * sample.NEITHER)
    assert 3 < len(refs) / 3000 < 4


def test_titles_name_brand_or_model_rarely_colour_or_motif(whole):
    rows, _, _, world, _ = whole
    titled = [p for p in range(3000) if rows[p]["title"]]
    colour = np.mean(
        [sample.COLOURS[world.colour[p]][0] in rows[p]["title"].split() for p in titled]
    )
    motif = np.mean([sample.MOTIFS[world.motif[p]] in rows[p]["title"].split() for p in titled])
    assert 0.15 < colour < 0.25 and 0.15 < motif < 0.25
    for p in titled:
        brands, models = sample.HOUSES[world.house[p]]
        assert any(name in rows[p]["title"] for name in (*brands, *models))


def test_relations_are_asymmetric_long_tailed_and_within_their_number(whole):
    related = whole[4]
    counts = [len(labels) for labels in related]
    # noise may repeat a relation
    assert max(counts) == sample.RELATIONS[1] and min(counts) >= sample.RELATIONS[0] - 2
    pairs = {(p, label) for p, labels in enumerate(related) for label in labels}
    assert np.mean([(label, p) in pairs for p, label in pairs]) < 0.2
    bought = np.sort(np.bincount([label for _, label in pairs], minlength=3000))[::-1]
    assert bought[:300].sum() > 0.3 * bought.sum()
    odds = sample.complements()
    assert (odds[0, 1], odds[1, 0]) == (1.0, 0.3)


def test_odds_equal_a_slow_loop():
    world = sample.invent_world(60, 5)
    odds = sample.RelationOdds(world).of(7)
    step = {1: 1.0, 2: 0.6, 3: 0.3}
    for label in range(60):
        a, b = int(world.kind[7]), int(world.kind[label])
        slow = step.get((b - a) % 4, sample.ANY_KIND) if a // 4 == b // 4 else sample.ANY_KIND
        slow = sample.NEXT_GROUP if b == (a + 4) % 24 else slow
        slow *= world.popularity[label]
        slow *= sample.MOTIF_LIFT if world.wanted_motif[label] == world.motif[7] else 1
        slow *= sample.HOUSE_LIFT if world.wanted_house[label] == world.house[7] else 1
        slow *= sample.SIZE_LIFT if world.size[label] == world.size[7] else 1
        gap = abs(int(world.colour[label]) - int(world.colour[7]))
        slow *= {0: sample.SAME_COLOUR_LIFT, 5: sample.PAIRED_COLOUR_LIFT}.get(gap, 1)
        assert odds[label] == pytest.approx(0 if label == 7 else slow)


def test_the_first_relation_follows_its_odds(monkeypatch):
    monkeypatch.setattr(sample, "NOISE", 0.0)
    world = sample.invent_world(60, 0)
    firsts = np.array(
        [[labels[0] for labels in sample.draw_relations(world, seed)] for seed in range(150)]
    )
    expected, found = np.zeros(60), np.zeros(60)
    for product in range(60):
        odds = sample.RelationOdds(world).of(product)
        expected[product] = odds.max() / odds.sum()
        found[product] = (firsts[:, product] == odds.argmax()).mean()
    assert abs(expected - found).max() < 0.2  # 150 draws: 4.9 standard deviations at a half
    assert abs((expected - found).mean()) < 0.02


def test_best_attainable_equals_a_slow_recount():
    world = sample.invent_world(60, 1)
    related = sample.draw_relations(world, 1)
    labels = np.arange(60) % 3 > 0
    for candidates, datapoints in ((None, range(60)), (labels, range(0, 60, 3))):
        first = five = 0
        for p in datapoints:
            odds = sample.RelationOdds(world).of(p)
            allowed = [q for q in range(60) if q != p and (candidates is None or candidates[q])]
            best = sorted(allowed, key=lambda q: (-odds[q], q))[:5]
            first += best[0] in related[p]
            five += sum(q in related[p] for q in best)
        slow = {"P@1": 100 * first / len(datapoints), "P@5": 20 * five / len(datapoints)}
        assert sample.best_attainable(world, related, candidates) == pytest.approx(slow, abs=0.01)


def one_hot(*codes):
    """(P, product of the values) float64: one column for each combination of the codes."""
    joint = np.zeros(len(codes[0]), dtype=np.int64)
    for code in codes:
        joint = joint * (code.max() + 1) + code
    return np.eye(joint.max() + 1)[joint]


def ridge_precision(features, truth, train, test):
    """(P@1, P@5) of ridge one-vs-all from attributes, on a cold split."""
    features = np.concatenate(features, axis=1)
    gram = features[train].T @ features[train] + 3 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[train].T @ truth[np.ix_(train, train)])
    return precision(features[test] @ weights, truth[np.ix_(test, train)])


def precision(scores, truth):
    hits = np.take_along_axis(truth, np.argsort(-scores, axis=1, kind="stable")[:, :5], axis=1)
    return np.array([hits[:, 0].mean(), hits.mean()]) * 100


def test_relations_need_both_the_picture_and_the_title(whole):
    *_, facts, world, related = whole
    truth = np.zeros((3000, 3000))
    for p, labels in enumerate(related):
        truth[p, labels] = 1
    test, train = np.split(np.random.default_rng(0).permutation(3000), [1100])
    text = [
        one_hot(world.kind),
        one_hot(world.kind, world.house),
        one_hot(world.brand),
        one_hot(world.size),
    ]
    picture = [one_hot(world.kind), one_hot(world.kind, world.motif), one_hot(world.colour)]
    by_text = ridge_precision(text, truth, train, test)
    by_picture = ridge_precision(picture, truth, train, test)
    by_both = ridge_precision(
        [*text, *picture, one_hot(world.motif, world.house)], truth, train, test
    )
    popular = precision(
        np.tile(truth[np.ix_(train, train)].sum(0), (1100, 1)), truth[np.ix_(test, train)]
    )
    best = np.array(list(facts["best_attainable_cold"].values()))
    assert (by_both > 1.15 * np.maximum(by_text, by_picture)).all()
    assert (np.minimum(by_text, by_picture) > 2 * popular).all() and (popular < 12).all()
    assert (best > 1.2 * by_both).all() and 65 < best[0] < 90


def test_pictures_decode_but_for_the_corrupt_ones(catalog):
    rows, images, _ = catalog
    broken = 0
    for content in images.values():
        try:
            picture = Image.open(io.BytesIO(content))
            picture.load()
            assert (picture.format, picture.mode, picture.size) == (
                "JPEG",
                "RGB",
                (80, 80),
            ) and len(content) < 8000
        except OSError:
            broken += 1
    assert 0 < broken < 0.03 * len(images)
    assert set(images) < {ref for row in rows for ref in row["images"]}


def views(kind, motif, colour, count, seed=0):
    found = sample_pictures.draw_views(kind, motif, colour, count, np.random.default_rng(seed))
    return [np.asarray(Image.open(io.BytesIO(content))).astype(float) for content in found]


def test_a_front_view_shows_mostly_its_colour():
    palette = np.array([rgb for _, rgb in sample_pictures.COLOURS], dtype=float)
    for colour, (name, _) in enumerate(sample_pictures.COLOURS):
        for kind in range(len(sample_pictures.KINDS)):
            pixels = views(kind, (kind + colour) % 12, colour, 1, seed=kind)[0].reshape(-1, 3)
            coloured = pixels[np.ptp(pixels, axis=1) > 70] if name != "black" else pixels
            if name == "black":
                assert (pixels.max(axis=1) < 90).mean() > 0.12, kind
                continue
            nearest = np.linalg.norm(coloured[:, None] - palette, axis=2).argmin(axis=1)
            assert np.bincount(nearest, minlength=10).argmax() == colour, (name, kind)


def ink_seen(kind, motif, colour, seed):
    """(12, 12) float: the part of each cell of the close-up's middle in the motif's ink."""
    picture = views(kind, motif, colour, 2, seed)[1][8:72, 8:72]
    ink, body = (
        np.array(sample_pictures.motif_ink(colour)),
        np.array(sample_pictures.COLOURS[colour][1]),
    )
    mask = np.linalg.norm(picture - ink, axis=2) < np.linalg.norm(picture - body, axis=2)
    return (
        np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).resize((12, 12), Image.Resampling.BOX)
        )
        / 255.0
    )


def test_close_ups_of_one_motif_are_most_alike():
    shown = [
        (motif, kind) for motif in range(len(sample_pictures.MOTIFS)) for kind in (0, 5, 12, 16, 20)
    ]
    seen = np.array(
        [ink_seen(kind, motif, (kind + motif) % 10, kind).ravel() for motif, kind in shown]
    )
    seen -= seen.mean(axis=1, keepdims=True)
    alike = np.corrcoef(seen)
    np.fill_diagonal(alike, -1)
    motifs = np.array([motif for motif, _ in shown])
    assert (motifs[alike.argmax(axis=1)] == motifs).mean() > 0.8


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, np.inf]), min_size=5, max_size=40))
def test_the_smallest_are_the_first_of_a_stable_sort(values):
    values = np.array(values)
    for count in (1, 3, 5):
        expected = np.argsort(values, kind="stable")[:count]
        assert sample._smallest(values, count).tolist() == expected.tolist()
