"""The store that machines share: whole files and folders, hashes, and its sentences."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mufin.artifacts.contents import hash_of
from mufin.cluster.settings import cluster
from mufin.cluster.store import Store
from mufin.errors import MufinError


@pytest.fixture
def store(tmp_path) -> Store:
    (tmp_path / "store").mkdir()
    return Store((tmp_path / "store").as_uri())


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


FILES = {"a.txt": b"one", "below/b.txt": b"two", "below/c.txt": b"one", "none": b""}


def test_a_folder_comes_back_as_it_was_sent(store, tmp_path):
    source, back = folder_of(tmp_path / "source", FILES), tmp_path / "back"
    back.mkdir()
    run = pickle.loads(pickle.dumps(store.within("runs/one")))
    assert not run.has_folder("x")
    run.put_folder(source, "x")
    listed = run.get_folder("x", back)
    assert run.has_folder("x") and not store.has_folder("x")
    assert {n: (back / n).read_bytes() for n in listed} == FILES
    assert listed == {n: (len(c), hash_of(source / n)) for n, c in FILES.items()}
    assert len(list((tmp_path / "store/runs/one/files").iterdir())) == 3  # equal bytes once
    run.remove()
    assert not run.has_folder("x")
    run.remove()  # nothing is there


def test_a_file_that_broke_off_is_sent_again(store, tmp_path):
    path = folder_of(tmp_path, {"a": b"content"}) / "a"
    digest = store.put(path)
    [sent] = (tmp_path / "store/files").iterdir()
    sent.write_bytes(b"cont")
    store.put(path)
    store.get(digest, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"


def test_other_bytes_than_were_sent_are_refused(store, tmp_path):
    path = folder_of(tmp_path, {"a": b"content"}) / "a"
    digest = store.put(path)
    (tmp_path / "store/files" / digest).write_bytes(b"CONTENT")
    with pytest.raises(MufinError, match="other bytes than were sent; delete it"):
        store.get(digest, tmp_path / "b")


def test_a_store_that_fails_is_one_sentence(store, tmp_path):
    with pytest.raises(MufinError, match="MUFIN_RAY_STORE .* fails .*read and write"):
        store.get("0" * 64, tmp_path / "b")
    with pytest.raises(MufinError, match="MUFIN_RAY_STORE .* fails"):
        store.get_folder("none", tmp_path)


@pytest.mark.parametrize(
    "address, uri, sentence",
    [
        ("", "file:///", "MUFIN_RAY_ADDRESS is ''; set it to auto or to host:port"),
        ("ray://head:10001", "file:///", "set it to auto or to host:port"),
        ("head", "file:///", "MUFIN_RAY_ADDRESS is 'head'; set it to auto"),
        ("auto", None, "MUFIN_RAY_STORE is not; set it to a folder that all machines see"),
        ("auto", "", "MUFIN_RAY_STORE is not; set it to a folder"),
        ("auto", "shared", "MUFIN_RAY_STORE is 'shared' .*; set it to a folder that all"),
        ("auto", "nothing://x/y", "MUFIN_RAY_STORE is 'nothing://x/y' .*; set it to a folder"),
        ("auto", "file:///no/such/folder", "has no such folder; create it or mount it on all"),
    ],
)
def test_a_wrong_variable_is_one_sentence(monkeypatch, address, uri, sentence):
    monkeypatch.setenv("MUFIN_RAY_ADDRESS", address)
    monkeypatch.delenv("MUFIN_RAY_STORE", raising=False)
    if uri is not None:
        monkeypatch.setenv("MUFIN_RAY_STORE", uri)
    with pytest.raises(MufinError, match=sentence) as found:
        cluster()
    assert len(str(found.value)) <= 300


@pytest.mark.parametrize("keys", ["AKID:secret", "AKID", "AKID:secr/et+"])
def test_keys_in_a_uri_are_in_no_sentence(keys):
    with pytest.raises(MufinError, match="MUFIN_RAY_STORE is 'nothing://...@") as found:
        Store(f"nothing://{keys}@bucket/x")
    assert "AKID" not in str(found.value) and "secr" not in str(found.value)


def test_without_an_address_all_runs_here(monkeypatch):
    monkeypatch.delenv("MUFIN_RAY_ADDRESS", raising=False)
    monkeypatch.setenv("MUFIN_RAY_STORE", "nothing")
    assert cluster() is None
