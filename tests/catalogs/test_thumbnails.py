"""Sizes in Amazon's URLs: all URLs at once against the regular expression."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mufin.catalogs.thumbnails import without_size, without_sizes

PIECES = ["._", "_", ".", "/", "a", "SX38", "jpg", ",", "-", "_.jpg", "._SS40_.jpg"]
URLS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@given(st.lists(URLS, max_size=6), st.integers(0, 3))
def test_all_at_once_is_as_one_by_one(urls, skipped):
    wanted = [without_size(url) for url in urls][skipped:]
    assert without_sizes(pa.array(urls, pa.string())[skipped:]).to_pylist() == wanted


def test_only_a_marker_before_the_extension_goes():
    assert without_size("https://a/I/51x._SX38_SY50_CR,0,0,38,50_.jpg") == "https://a/I/51x.jpg"
    for url in (
        "https://a/I/51x.jpg",
        "https://a/._a_/b.jpg",
        "https://a/b._c_",
        "https://a/b._.d",
    ):
        assert without_size(url) == url
