"""Settings of the stages download and curate: what is refused, and what the columns are then."""

from __future__ import annotations

from pathlib import Path

import pytest

from mufin.params import Params, ParamsError, load_params
from tests.support.projects import ROOT, changed

CATALOG = {"download.source": "catalog", "download.location": "a.csv"}
OUTFITS = {"download.source": "sample-outfits", "download.outfits.split": "disjoint"}
ORDERS = CATALOG | {
    "download.interactions.location": "orders.csv",
    "download.interactions.basket": "order",
    "download.interactions.item": "sku",
}


def loaded(folder: Path, settings: dict[str, object]) -> Params:
    path = folder / "params.yaml"
    path.write_text(changed(ROOT / "params/sample.yaml", settings))
    return load_params(path)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"download.match_ids": ["upper"]}, "'upper'; it must be one of case, blanks, zeros"),
        ({"download.bad_rows": 1.0}, r"download.bad_rows is 1.0; it must lie in \[0, 1\)"),
        ({"download.user_agent": " "}, "download.user_agent is ' '; it must be a line of ASCII"),
        ({"download.user_agent": "a\nb"}, "it must be a line of ASCII"),
        ({"download.columns.images": [""]}, "download.columns.images is .*; it must name columns"),
        ({"download.columns.related": {"a": 0}}, "weights must be above 0"),
        ({"download.columns.related": {"a": "x"}}, "weights must be above 0"),
        ({"download.columns.related": {"a": True}}, "weights must be above 0"),
        (CATALOG | {"download.columns.attributes": ["a", "a"]}, "it must name columns, each once"),
        (CATALOG | {"download.columns.attributes": ["uid"]}, "none that is called uid or category"),
        (CATALOG | {"download.columns.attributes": ["a", "category"]}, "called uid or category"),
        (CATALOG | {"download.columns.attributes": [""]}, "it must name columns, each once"),
        (CATALOG | {"download.columns.attributes": "price"}, "download.columns.attributes is"),
        (
            CATALOG | {"download.source": "hm", "download.columns.attributes": ["price"]},
            r"of source hm no columns are kept for filters; set it to \[\]",
        ),
        (CATALOG | {"download.columns.texts": ["a", "a"]}, "it must name columns, each once"),
        (CATALOG | {"download.columns.texts": [""]}, "it must name columns, each once"),
        (
            {"download.columns.texts": ["description"]},
            r"products of source sample have no text but the title; set it to \[\]",
        ),
        ({"download.max_texts": 0}, "download.max_texts is 0; it must be at least 1"),
        (ORDERS | {"download.interactions.item": None}, "download.interactions.item is None; name"),
        (ORDERS | {"download.labels.location": "l.csv"}, "with download.interactions labels are"),
        ({"download.image_vectors.location": "a.npy"}, "location and ids belong together"),
        ({"download.outfits.split": "disjoint"}, "source sample are no outfits; set it to null"),
        ({"download.source": "sample-outfits"}, "sample-outfits needs disjoint or nondisjoint"),
        (OUTFITS | {"download.sample.outfits": 49}, "outfits is 49; it must be at least 50"),
        (
            OUTFITS | {"download.labels.location": "labels.csv"},
            "download.labels.location is 'labels.csv'; outfits with a blank have items, labels",
        ),
        ({"curate.split": "tiem"}, "did you mean time"),
        ({"curate.interactions.window": 0}, "window is 0.0; it must be greater than 0"),
        ({"curate.interactions.half_life": -1.0}, "half_life is -1.0; it must be greater than 0"),
        ({"curate.interactions.min_support": 0.0}, "min_support is 0.0; it must be greater"),
        ({"curate.interactions.per_basket": 1}, "per_basket is 1; it must be at least 2"),
        ({"curate.interactions.per_product": 0}, "per_product is 0; it must be at least 1"),
        ({"curate.interactions.score": "pmi"}, "it must be one of cosine, lift, count"),
    ],
)
def test_a_wrong_setting_of_the_data_is_named_with_the_remedy(tmp_path, settings, message):
    with pytest.raises(ParamsError, match=message):
        loaded(tmp_path, settings)


@pytest.mark.parametrize(
    "related, weights",
    [
        ("also_buy", {"also_buy": 1.0}),
        ([], {}),
        (["a", "b"], {"a": 1.0, "b": 1.0}),
        ({"a": 1, "b": 0.5}, {"a": 1.0, "b": 0.5}),
    ],
)
def test_related_columns_have_weights(tmp_path, related, weights):
    columns = loaded(tmp_path, {"download.columns.related": related}).download.columns
    assert columns.related_weights() == weights


def test_a_whole_number_is_a_number_where_null_is_allowed(tmp_path):
    settings = loaded(tmp_path, ORDERS | {"curate.interactions.window": 1}).curate.interactions
    assert settings.window == 1.0 and isinstance(settings.window, float)
