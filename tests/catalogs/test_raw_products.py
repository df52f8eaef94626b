"""The distinct references of images in products.parquet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.tables import SCHEMAS
from mufin.catalogs.raw_products import References


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.lists(st.text("ab/é", max_size=2), max_size=4), max_size=9))
def test_references_come_once_in_order(tmp_path_factory, images):
    path, schema = tmp_path_factory.mktemp("raw") / "products.parquet", SCHEMAS["raw_products"]
    columns = {name: [None] * len(images) for name in schema.names} | {"images": images}
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=2)
    wanted = list(dict.fromkeys(text for texts in images for text in texts or []))
    references = References(path)
    assert list(references) == wanted
    assert list(references) == wanted  # again
