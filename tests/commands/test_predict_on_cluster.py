"""What `mufin predict` sends to a cluster: lines with their pictures, and the model.

`tests/cluster/test_two_workers.py` compares a whole run on a cluster with one on this machine.
"""

from __future__ import annotations

import tempfile

import pytest

from mufin.artifacts.contents import seal
from mufin.cluster.store import Store
from mufin.commands.predict_lines import Line
from mufin.commands.predict_on_cluster import fetch_home, read_lines, send_home, write_lines


def test_lines_and_pictures_arrive_in_their_groups(tmp_path):
    new = Line(3, "né \u2028", title="Mug", texts=("of iron", ""), category=("Home", "Mugs"))
    sent = [
        [(Line(1, "a", uid="a"), ()), (new, (b"one", b"", b"\xff\xd8"))],
        [(Line(7, None, problem="it is not JSON"), ())],
        [],
    ]
    write_lines(iter(sent), tmp_path / "lines.parquet")
    assert list(read_lines(tmp_path / "lines.parquet")) == sent


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store; models go to a temporary folder of the test."""
    (tmp_path / "store").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Store((tmp_path / "store").as_uri())


def test_a_model_is_sent_and_fetched_once(store, tmp_path):
    home, files = tmp_path / "home", tmp_path / "store/files"
    for name in ("data/curated", "data/precomputed/encoders", "models/index", "models/finetune"):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_text(name)
    for name in ("data/curated", "data/precomputed", "models/index"):
        seal(home / name)
    (home / "params.yaml").write_text("seed: 0")
    (home / "data/raw").mkdir()
    (home / "data/raw/file").write_text("not sent")
    name = send_home(home, store)
    there = fetch_home(store, name)
    kept = {p.relative_to(home): p.read_bytes() for p in home.rglob("*") if p.is_file()}
    del kept[(home / "data/raw/file").relative_to(home)]
    assert {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()} == kept
    count = len(list(files.iterdir()))
    (files / next(files.iterdir()).name).write_bytes(b"")  # is not read again
    assert send_home(home, store) == name and fetch_home(store, name) == there
    (home / "models/finetune/file").write_text("another model")
    assert send_home(home, store) != name and len(list(files.iterdir())) == count + 1
