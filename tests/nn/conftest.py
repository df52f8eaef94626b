"""A catalog whose products lack one modality, the other, or both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stages import inside, products, run_stages, write_products


@pytest.fixture(scope="module")
def catalog(tmp_path_factory) -> Path:
    """Of the sample, product 4 without a title, 5 without a picture, 9 with neither."""
    folder = tmp_path_factory.mktemp("catalog")
    with inside(folder, **{"download.sample.products": 120}):
        run_stages(folder, "download", "curate")
    table = products(folder)
    titles, images = table["title"].to_pylist(), table["images"].to_pylist()
    every = sorted(k for row in images for k in row)
    titles[3:10] = ["mug", "", "blue kettle", "a", "b", "c", ""]
    images[3:10] = [every[:4], every[:1], [], *images[6:9], []]
    write_products(folder, titles, images)
    return folder
