"""Further texts are cleaned as titles, bounded, and stay with their products through curate."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.contents import contents_of
from mufin.artifacts.files import read_json
from mufin.artifacts.tables import SCHEMAS
from mufin.artifacts.texts import NAME, further_texts
from mufin.catalogs.product import Product
from mufin.corpus import text_rows
from mufin.corpus.catalog import distinct
from mufin.corpus.clean_rows import CleanRows, clean_rows
from mufin.corpus.cleaning import clean_title
from mufin.corpus.text_rows import MARKUP, MORE, REPEATED, with_texts, write_texts
from mufin.errors import ArtifactError
from pipeline import curate
from tests.support.artifacts import sealed
from tests.support.raw import ids, written
from tests.support.stages import inside

Further = list[list[str] | None]


def raw(home: Path, products: list[Product], texts: Further, **facts) -> Path:
    """`data/raw` of the products, whose texts beside the title are `texts`."""
    written(home, products, **facts)
    folder = home / "data/raw"
    pq.write_table(pa.table({"texts": texts}, schema=SCHEMAS["raw_texts"]), folder / NAME)
    sealed(folder)
    return folder


def rows(folder: Path, made: Path, most: int | None, labels: bool = False) -> CleanRows:
    """The cleaned rows of `folder` with their texts, of which files are in `made`."""
    made.mkdir()
    source = clean_rows(folder, made / "rows.parquet", [], labels)
    return with_texts(source, folder, most)


def kept(folder: Path, made: Path, most: int | None = None) -> tuple[list[str], Further, dict]:
    """The ids of the distinct products, their texts, and what was dropped."""
    source = rows(folder, made, most)
    catalog = distinct(source, folder, False)
    curate._write_products(catalog, made / "products.parquet")
    write_texts(source, catalog.rows, made / "products.parquet", made / NAME)
    sealed(made)
    texts = further_texts(made)
    return pq.read_table(made / NAME)["uid"].to_pylist(), texts.to_pylist(), source.dropped


def slowly(title: str, texts: list[str | None] | None, most: int | None) -> list[str]:
    """The texts of a product beside its cleaned title, one after the other."""
    out: list[str] = []
    for text in texts or []:
        cleaned = clean_title(text)
        room = most is None or len(out) < most - bool(title)
        if cleaned and cleaned != title and cleaned not in out and room:
            out.append(cleaned)
    return out


words = st.sampled_from(
    ["", " ", "red", " red", "<b>red</b>", "blue", "a &amp; b", "a & b", "<br>", "\x00", "\u00e9"]
)
further = st.none() | st.lists(st.none() | words, max_size=5)
cases = st.tuples(st.sampled_from(["p", "q", " q ", "r", "s"]), words, further)


@settings(max_examples=80, deadline=None)
@given(
    cases=st.lists(cases, min_size=1, max_size=12),
    most=st.none() | st.integers(1, 4),
    batch=st.integers(1, 5),
)
def test_texts_are_those_of_the_row_that_is_kept(cases, most, batch, tmp_path_factory):
    cases = [*cases, ("last", "title", ["last"])]
    products = [Product(uid, title) for uid, title, _ in cases]
    best: dict[str, tuple[int, list[str]]] = {}
    for uid, title, texts in cases:  # the first row with a title, else with another text
        title = clean_title(title)
        left = slowly(title, texts, most)
        quality = 2 * bool(title) or int(bool(left))
        if quality > best.get(uid.strip(), (0, []))[0]:
            best[uid.strip()] = quality, left
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_rows, "ROWS", batch)
        folder = tmp_path_factory.mktemp("case")
        given_texts = [texts for _, _, texts in cases]
        uids, found, _ = kept(raw(folder, products, given_texts), folder / "made", most)
    assert sorted(zip(uids, found)) == sorted((uid, left) for uid, (_, left) in best.items())


def test_what_is_left_out_is_counted(tmp_path):
    texts = [["<i>Mug</i>", "one", "<br>", "one ", "two", "three", " "], None, []]
    products = [Product("a", "Mug"), Product("b", "t"), Product("c", "")]
    uids, found, dropped = kept(raw(tmp_path, products, texts), tmp_path / "made", 3)
    assert uids == ["a", "b"] and found == [["one", "two"], []]
    assert {reason: dropped[reason] for reason in (MARKUP, REPEATED, MORE)} == {
        MARKUP: 1,
        REPEATED: 2,
        MORE: 1,
    }


def test_a_product_with_only_a_description_is_kept(tmp_path):
    products = [Product("a", "t"), Product("b", ""), Product("c", " "), Product("d", "<br>")]
    texts = [[], ["only this"], ["<br>"], ["and that", "more"]]
    uids, found, dropped = kept(raw(tmp_path, products, texts), tmp_path / "made", 1)
    assert uids == ["a", "b", "d"] and found == [[], ["only this"], ["and that"]]
    assert dropped[MORE] == 1


def test_a_row_with_a_title_goes_before_one_with_a_text_alone(tmp_path):
    products = [Product("a", ""), Product("a", "title"), Product("b", ""), Product("b", "")]
    texts = [["one"], ["two"], [], ["three"]]
    uids, found, _ = kept(raw(tmp_path, products, texts), tmp_path / "made")
    assert uids == ["a", "b"] and found == [["two"], ["three"]]


def test_texts_of_other_products_are_refused(tmp_path):
    folder = raw(tmp_path, [Product("a", "t"), Product("b", "t")], [["x"]])
    with pytest.raises(ArtifactError, match="has 1 rows for 2 products; run download again"):
        rows(folder, tmp_path / "made", 8)


# The whole stage


def ring(count: int) -> list[Product]:
    near = [[f"p{(i + step) % count}" for step in range(1, 9)] for i in range(count)]
    return [Product(f"p{i}", "t" if i % 4 else "", related=near[i]) for i in range(count)]


def curated(home: Path, products: list[Product], texts: Further, facts: dict, **settings) -> dict:
    raw(home, products, texts, **facts)
    with inside(home, **settings):
        curate.main(home)
    return read_json(home / "metrics/curate.json")


@pytest.mark.parametrize(
    "settings",
    [
        {"curate.max_products": 20, "curate.split": "warm"},
        {"curate.max_products": 25},
        {"curate.split": "cold"},
    ],
)
def test_a_subsample_and_a_split_keep_the_texts_of_products(settings, tmp_path):
    texts = [[f"text of p{i}", "all"] for i in range(40)]
    facts = curated(tmp_path, ring(40), texts, {"max_texts": 2}, **settings)
    folder = tmp_path / "data/curated"
    uids = pq.read_table(folder / "products.parquet")["uid"].to_pylist()
    titles = pq.read_table(folder / "products.parquet")["title"].to_pylist()
    expected = [[f"text of {uid}", "all"][: 1 if t else 2] for uid, t in zip(uids, titles)]
    assert further_texts(folder).to_pylist() == expected
    assert len(uids) == settings.get("curate.max_products", 40)
    assert facts["texts_per_datapoint"] == 2.0
    assert facts["products_with_further_texts"] == len(uids)


def test_labels_that_are_no_products_have_no_further_texts(tmp_path):
    products = [Product(f"p{i}", "t", related=["l0", "l1"]) for i in range(9)]
    labels = [("l0", "tag"), ("l1", "other"), ("l2", "unused")]
    texts = [[f"text {i}"] for i in range(9)]
    curated(tmp_path, products, texts, {"labels": labels, "max_texts": 8})
    assert further_texts(tmp_path / "data/curated").to_pylist() == [*texts, [], []]
    assert {row["product"] for row in ids(tmp_path, "train")} <= {p.uid for p in products}


def test_without_texts_the_files_are_those_of_before(tmp_path):
    homes = [tmp_path / "without", tmp_path / "with"]
    products = [Product(p.uid, "t", related=p.related) for p in ring(12)]
    written(homes[0], products)
    with inside(homes[0]):
        curate.main(homes[0])
    facts = curated(homes[1], products, [["x"]] * 12, {"max_texts": 8})
    one, other = (contents_of(home / "data/curated").files for home in homes)
    assert NAME not in one and other.pop(NAME) and one == other
    before = read_json(homes[0] / "metrics/curate.json")
    more = {"texts_per_datapoint", "products_with_further_texts"}
    assert set(facts) - set(before) == more
    assert set(facts["dropped"]) - set(before["dropped"]) == {MARKUP, REPEATED, MORE}
