"""The table of digests against a dict, and the sorted log of images against one sorted list."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mufin.artifacts.tables import write_table
from mufin.corpus import image_log
from mufin.corpus.digests import PAIR, Digests
from mufin.corpus.image_log import ImageLog


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 127) | st.integers(0, 2**40)), max_size=60)
)
def test_digests_hold_what_a_dict_holds(pairs):
    large = max((number for _, number in pairs), default=0) > 127
    found, wanted = Digests(2, "q" if large else "b"), {}
    for key, number in pairs:  # heads that differ in bits above the mask, and equal ones
        digest = PAIR.pack((key // 2) << 60, key)
        found.put(digest, number)
        wanted[digest] = number
        assert len(found) == len(wanted)
        assert all(found.get(d) == n for d, n in wanted.items())
    assert found.get(bytes(16)) == wanted.get(bytes(16), -1)


@settings(max_examples=20, deadline=None)
@given(
    st.sets(st.text(max_size=4).filter(lambda t: t.isprintable()), max_size=30),
    st.sampled_from([6, 100]),
)
def test_an_image_log_has_the_bytes_of_one_sorted_list(tmp_path_factory, references, most):
    folder, rows = tmp_path_factory.mktemp("log"), [(r, r * 2, "") for r in references]
    log = ImageLog(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_log, "PENDING", 3)
        patch.setattr(image_log, "RUN", most)
        for row in rows:
            log.add(*row)
        log.write(folder / "a.parquet")
    columns = zip(*sorted(rows)) if rows else ((), (), ())
    texts = (pa.array(column, pa.string()) for column in columns)
    write_table(dict(zip(("url", "key", "reason"), texts)), "image_log", folder / "b.parquet")
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()


@pytest.mark.parametrize("run", [3, 2**20])
def test_row_groups_of_an_image_log_are_bounded(tmp_path, monkeypatch, run):
    monkeypatch.setattr(image_log, "ROWS", 4)
    monkeypatch.setattr(image_log, "PENDING", 2)
    monkeypatch.setattr(image_log, "RUN", run)
    log = ImageLog(tmp_path)
    for number in range(10):
        log.add(f"{9 - number}", "", "HTTP 404")
    log.write(tmp_path / "log.parquet")
    file = pq.ParquetFile(tmp_path / "log.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [4, 4, 2]
    assert file.read()["url"].to_pylist() == [f"{number}" for number in range(10)]
