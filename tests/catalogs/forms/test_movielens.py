"""MovieLens, in the releases with their three layouts."""

from __future__ import annotations

import pytest

from mufin.catalogs.notes import Notes
from tests.catalogs.forms.reading import interactions, products, refusal, tolerant
from tests.support import exports

ITEMS = exports.shop()
BASKETS = exports.orders(ITEMS)
RELEASES = ["100k", "1m", "10m", "latest"]


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_gives_the_same_movies(tmp_path, release):
    found = products("movielens", exports.movielens(tmp_path, ITEMS, release))
    assert [p.uid for p in found] == [str(item.number + 1) for item in ITEMS]
    assert [p.title for p in found] == [
        f"{item.title}: {item.colours[0]}, The (1995)" for item in ITEMS
    ]
    assert any("é" in p.title for p in found)
    assert found[1].category == ["Comedy", "Drama"]
    assert not any(p.images or p.related for p in found)


@pytest.mark.parametrize("release", RELEASES)
def test_ratings_of_at_least_four_are_interactions(tmp_path, release):
    notes = Notes()
    path = exports.movielens_ratings(tmp_path, BASKETS, release)
    assert interactions("movielens", path, notes=notes) == [
        (str(user), str(item.number + 1), float(exports.START + user * exports.DAY + at), 1.0)
        for user, basket in enumerate(BASKETS, 1)
        for at, item in enumerate(basket[:-1])
    ]
    assert notes.counts == {"ratings below 4, dropped": len(BASKETS)}


def test_movies_without_genres_have_no_category(tmp_path):
    assert products("movielens", exports.movielens(tmp_path, ITEMS, "latest"))[0].category == []


@pytest.mark.parametrize("release", RELEASES)
def test_the_two_files_in_each_others_place_are_named(tmp_path, release):
    movies = exports.movielens(tmp_path, ITEMS, release)
    ratings = exports.movielens_ratings(tmp_path, BASKETS, release)
    assert "not" in refusal(interactions, "movielens", movies)
    assert "give ratings.csv" in refusal(interactions, "movielens", movies) or release == "latest"
    text = refusal(products, "movielens", ratings)
    assert "give movies.csv" in text or "is MovieLens' ratings.csv" in text


def test_lines_of_another_width_are_bad_rows(tmp_path):
    path = tmp_path / "ratings.dat"
    path.write_text("1::2::5::978300760\n1::3::5\n1::4::good::978300760\n2::3::5::978300760\n")
    assert "line 2 has 3 values separated by '::', not 4" in refusal(
        interactions, "movielens", path
    )
    notes, bad = tolerant(0.5)
    assert len(interactions("movielens", path, notes=notes, bad=bad)) == 2
    bad.check()
    assert (bad.rows, bad.bad) == (4, 2)
