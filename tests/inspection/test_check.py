"""`mufin check` looks at the catalog: what the first stages would refuse, within a second."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mufin.errors import MufinError
from mufin.inspection.check import check_catalog
from mufin.params import Download, Params
from mufin.profiles import read_profile, scalar

SAMPLE = read_profile("sample")
ROWS = [
    {"ASIN": f"A{k}", "title": f"thing {k}", "images": ["a.jpg"], "also_buy": [f"A{(k + 1) % 30}"]}
    for k in range(30)
]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(ROWS)


def written(rows: list[dict], path: str = "catalog.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def of(**changes) -> Params:
    """The sample's settings for the catalog, with changes of section download."""
    download: Download = replace(
        SAMPLE.download, **{"source": "catalog", "location": "catalog.jsonl"} | changes
    )
    return replace(SAMPLE, download=download)


def interactions(**changes):
    where = {"location": "orders.csv", "basket": "order", "item": "sku"}
    return replace(SAMPLE.download.interactions, **where | changes)


def test_the_sample_has_no_files_to_look_at():
    assert "built-in" in " ".join(check_catalog(SAMPLE))


def test_a_good_catalog_is_described():
    text = " ".join(check_catalog(of()))
    assert "its 30 products, 30 have a title, 30 a picture" in text
    assert "related ids: 30, of which 30 are among these products" in text


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"location": "none.jsonl"}, "none.jsonl, which does not exist"),
        ({"columns": replace(SAMPLE.download.columns, id="sku")}, "'sku'.*download.columns.id"),
        ({"columns": replace(SAMPLE.download.columns, images="imgs")}, "'imgs'.*columns.images"),
        ({"columns": replace(SAMPLE.download.columns, related="see")}, "'see'.*columns.related"),
        ({"interactions": interactions()}, "orders.csv, which does not exist"),
        ({"source": "shopify"}, "Shopify"),
    ],
)
def test_what_the_stage_would_refuse_is_refused(changes, words):
    with pytest.raises(MufinError, match=words):
        list(check_catalog(of(**changes)))


def test_a_missing_column_of_interactions_is_refused():
    Path("orders.csv").write_text("order,product\n1,A1\n1,A2\n")
    with pytest.raises(MufinError, match="'sku'.*download.interactions.item"):
        list(check_catalog(of(interactions=interactions())))
    text = " ".join(check_catalog(of(interactions=interactions(item="product"))))
    assert "the first 2 interactions can be read" in text


@pytest.mark.parametrize(
    "related, words",
    [("X", "no related id is the id of a product, such as 'X'"), ("a1", "mufin inspect")],
)
def test_related_ids_that_name_nothing_are_refused(related, words):
    written([row | {"also_buy": [related]} for row in ROWS])
    with pytest.raises(MufinError, match=words):
        list(check_catalog(of()))


def test_related_ids_are_compared_as_match_ids_says():
    written([row | {"ASIN": f"0{row['ASIN'][1:]}", "also_buy": ["7", "X"]} for row in ROWS])
    assert "60, of which 30 are among" in " ".join(check_catalog(of(match_ids=["zeros"])))
    with pytest.raises(MufinError, match="mufin inspect"):
        list(check_catalog(of(match_ids=["case"])))


@pytest.mark.parametrize(
    "column, modalities, rest",
    [
        ("images", ["text", "image"], ["text"]),
        ("images", ["image"], ["text"]),
        ("title", ["text", "image", "lexical"], ["image"]),
        ("title", ["lexical"], ["image"]),
    ],
)
def test_what_no_product_has_must_not_be_encoded(column, modalities, rest):
    rows = [row | {column: "" if column == "title" else []} for row in ROWS]
    params = replace(of(), encoder=replace(SAMPLE.encoder, modalities=modalities))
    words = f"encoder.modalities is {scalar(modalities)}; set it to {scalar(rest)}, or"
    written(rows)
    with pytest.raises(MufinError) as error:
        list(check_catalog(params))
    assert words in str(error.value)
    written(rows * 40)  # more than are looked at
    assert f"no product of these has a {'title' if column == 'title' else 'picture'}" in " ".join(
        check_catalog(params)
    )
    written(rows)
    assert list(check_catalog(replace(of(), encoder=replace(SAMPLE.encoder, modalities=rest))))


def test_vectors_stand_for_pictures():
    written([row | {"images": []} for row in ROWS])
    encoder = replace(SAMPLE.encoder, image=replace(SAMPLE.encoder.image, kind="vectors"))
    vectors = replace(SAMPLE.download.image_vectors, location="a.npy", ids="a.txt")
    download = replace(of().download, image_vectors=vectors)
    with_vectors = replace(SAMPLE, download=download, encoder=encoder)
    assert list(check_catalog(with_vectors))


def test_a_bad_row_is_refused_unless_some_are_allowed():
    with open("catalog.jsonl", "a") as file:
        file.write("{broken\n")
    with pytest.raises(MufinError, match="line 31.*download.bad_rows"):
        list(check_catalog(of()))
    assert list(check_catalog(of(bad_rows=0.1)))


def test_only_the_first_rows_are_read():
    written([*ROWS * 40, {"broken": 1}])
    assert "the first 1,000 products" in " ".join(check_catalog(of()))


@pytest.mark.parametrize("name", ["local-dir:/no/such", "./no-such", "~/no-such-folder"])
def test_a_folder_of_an_encoder_that_is_missing_is_refused(name):
    image = replace(SAMPLE.encoder.image, name=name, weights="pretrained")
    params = replace(SAMPLE, encoder=replace(SAMPLE.encoder, image=image))
    with pytest.raises(MufinError, match=r"encoder\.image\.name"):
        list(check_catalog(params))


def test_urls_are_not_asked():
    assert "not looked at" in " ".join(check_catalog(of(location="http://localhost:9/a.jsonl")))
