"""README's picture: one query with its answers, the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor

from mufin.artifacts.curated import read_curated
from mufin.artifacts.tables import read_table
from mufin.errors import MufinError
from mufin.reporting import showcase
from mufin.reporting.catalog import Catalog


def catalog_of(home) -> Catalog:
    data = read_curated(home / "data/curated")
    products = read_table(home / "data/curated/products.parquet", "products")
    return Catalog(products, data.labels, data.splits["test"], home / "data/raw/images")


def green(picture: Image.Image) -> int:
    """Pixels in the colour of right answers."""
    return int((np.array(picture.convert("RGB")) == ImageColor.getrgb(showcase.GREEN)).all(2).sum())


def test_the_picture_is_a_light_png_of_the_same_bytes(home, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b/b.png"
    said = showcase.write_showcase(home, first)
    showcase.write_showcase(home, second)
    assert first.read_bytes() == second.read_bytes() and first.stat().st_size < 150_000
    with Image.open(first) as picture:
        assert picture.format == "PNG" and picture.width > 1000
    assert showcase.is_showcase(first)
    uids = read_table(home / "data/curated/products.parquet", "products")["uid"].to_pylist()
    assert said.startswith(f"{first} shows ") and said.split()[2].rstrip(",") in uids


def test_only_right_answers_are_marked(home):
    catalog = catalog_of(home)
    row = int(np.argmax(catalog.test.labels.lengths() >= 2))
    right = catalog.test.labels[row][:2]
    wrong = np.setdiff1d(np.arange(len(catalog.labels)), catalog.test.labels[row])[:2]
    none = green(showcase.draw(catalog, row, wrong, 0.5))
    one = green(showcase.draw(catalog, row, np.append(wrong[:1], right[:1]), 0.5))
    two = green(showcase.draw(catalog, row, right, 0.5))
    assert none == 0 < one and two == pytest.approx(2 * one, rel=0.05)


def test_a_product_can_be_named(home, tmp_path):
    catalog = catalog_of(home)
    uid = catalog.products["uid"][int(catalog.test.product[1])].as_py()
    assert f" shows {uid}, " in showcase.write_showcase(home, tmp_path / "a.png", uid)


def test_a_product_outside_of_test_is_refused(home, tmp_path):
    with pytest.raises(MufinError, match="not a product of the test split"):
        showcase.write_showcase(home, tmp_path / "a.png", "nobody")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("title", ["", "a" * 300, "word " * 100, "one two three"])
def test_a_title_is_cut_to_its_box(title):
    lines = showcase._wrapped(title, 168)
    assert len(lines) <= showcase.LINES
    assert all(showcase._font(20).getlength(line) <= 168 for line in lines)
    whole = " ".join(lines) == title.strip()
    assert whole or lines[-1].endswith("...")
