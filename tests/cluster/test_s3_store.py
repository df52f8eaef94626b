"""The store on an object store with the protocol of S3: the same bytes as in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest

from mufin.artifacts.contents import hash_of
from mufin.cluster.store import Store
from mufin.errors import MufinError
from tests.support.s3_server import BREAKS, KEY, SECRET, S3Server, s3_serving

FILES = {"a.txt": b"one", "below/b c.txt": b"two", "below/c+&<.txt": b"one", "none": b""}
LARGE = 24 * 10**6  # bytes; pyarrow sends parts of 10 MB


@pytest.fixture(scope="module")
def shared() -> Iterator[S3Server]:
    with s3_serving(page=3) as server:
        yield server


@pytest.fixture
def server(shared) -> Iterator[S3Server]:
    shared.objects.clear()
    shared.asked.clear()
    yield shared
    shared.trouble = lambda method, name: None


@pytest.fixture
def store(server) -> Store:
    return Store(server.uri("bucket/folder"))


@pytest.fixture
def impatient(server, store) -> Store:
    """The same; it does not try again, which lasts 6 seconds by default."""
    at = "{}:{}".format(*server.server_address)
    once = pafs.AwsStandardS3RetryStrategy(max_attempts=1)
    keys = {"access_key": KEY, "secret_key": SECRET, "region": "us-east-1"}
    store.system = pafs.S3FileSystem(
        **keys, endpoint_override=at, scheme="http", retry_strategy=once
    )
    return store


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a store on a disk."""
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(np.random.default_rng(0).bytes(LARGE))
    return path


def in_objects(server: S3Server) -> dict[str, bytes]:
    """What is in bucket/folder; without names of folders, which pyarrow adds."""
    found = {name.removeprefix("bucket/folder/"): c for name, c in server.objects.items()}
    return {name: content for name, content in found.items() if not name.endswith("/")}


def in_folder(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_objects_are_the_files_of_a_folder(server, store, folder, tmp_path):
    source = tmp_path / "source"
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    for number, each in enumerate((store, Store(folder.as_uri()))):
        run, back = each.within("runs/one"), tmp_path / f"back-{number}"
        assert not run.has_folder("x")
        each.put_folder(source, "models")
        run.put_folder(source, "x")
        assert run.has_folder("x") and not run.has_folder("y") and not each.has_folder("x")
        back.mkdir()
        run.get_folder("x", back)
        assert in_folder(back) == FILES
    assert in_objects(server) == in_folder(folder) and len(in_folder(folder)) == 8
    for each in (store, Store(folder.as_uri())):
        each.within("runs/one").remove()  # more objects than a page of the listing has
        assert not each.within("runs/one").has_folder("x") and each.has_folder("models")
        each.within("runs/one").remove()
    assert in_objects(server) == in_folder(folder) and len(in_folder(folder)) == 4


def test_a_large_file_is_sent_in_parts_and_read_by_range(server, store, folder, large, tmp_path):
    digest = store.put(large)
    assert server.count("PUT", "partNumber") == 3
    store.put(large)
    assert server.count("PUT", "partNumber") == 3  # it is there
    assert Store(folder.as_uri()).put(large) == digest
    assert in_objects(server) == in_folder(folder)
    store.get(digest, tmp_path / "back")
    content = large.read_bytes()
    assert (tmp_path / "back").read_bytes() == content
    ranges = [(0, 1), (LARGE - 3, 3), (10**7 - 5, 10), (12, 0), (5, 2 * 10**7)]
    assert list(store.read(digest, ranges)) == [content[a : a + n] for a, n in ranges]
    with pytest.raises(MufinError, match="is not whole; delete it and run the same command"):
        list(store.read(digest, [(LARGE - 3, 4)]))


def test_an_upload_that_breaks_off_leaves_no_half_object(server, impatient, large, tmp_path):
    def breaks(method: str, name: str) -> int | None:
        return BREAKS if method == "PUT" and server.count("PUT") > 1 else None

    server.trouble = breaks
    with pytest.raises(MufinError, match="MUFIN_RAY_STORE .* fails"):
        impatient.put(large)
    assert server.count("PUT") > 1 and not in_objects(server)
    server.trouble = lambda method, name: None
    impatient.get(impatient.put(large), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


@pytest.mark.parametrize("trouble", [BREAKS, 500])
def test_a_request_that_fails_once_is_sent_again(server, store, tmp_path, trouble):
    seen: set[tuple[str, str]] = set()

    def first(method: str, name: str) -> int | None:
        known = (method, name) in seen
        seen.add((method, name))
        return None if known else trouble

    source, back = tmp_path / "source", tmp_path / "back"
    for path in (source, back):
        path.mkdir()
    (source / "file").write_bytes(b"short")  # shorter than the text of an error
    server.trouble = first
    store.put_folder(source, "x")
    store.get_folder("x", back)
    assert in_folder(back) == {"file": b"short"}
    seen.clear()
    assert list(store.read(hash_of(source / "file"), [(1, 2)])) == [b"ho"]


@pytest.mark.parametrize("kind", ["object store", "disk"])
def test_a_source_that_fails_leaves_no_half_file(
    server, folder, large, tmp_path, monkeypatch, kind
):
    uri = server.uri("bucket/folder") if kind == "object store" else folder.as_uri()
    store, copied = Store(uri), shutil.copyfileobj

    def fails(source, target, size):
        target.write(source.read(LARGE // 2))
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "copyfileobj", fails)
    with pytest.raises(MufinError, match="Input/output error"):
        store.put(large)
    assert not in_objects(server) and not in_folder(folder)
    monkeypatch.setattr(shutil, "copyfileobj", copied)
    store.get(store.put(large), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


def failing(store: Store, path: Path) -> list:
    """All operations of a store."""
    return [
        lambda: store.put(path),
        lambda: store.get("0" * 64, path.with_name("back")),
        lambda: list(store.read("0" * 64, [(0, 1)])),
        lambda: store.put_folder(path.parent, "x"),
        lambda: store.get_folder("x", path.parent),
        lambda: store.has_folder("x"),
        lambda: store.remove(),
    ]


@pytest.mark.parametrize("status, reason", [(403, "ACCESS_DENIED"), (500, "HTTP status 500")])
def test_an_error_of_the_server_is_one_sentence_without_keys(
    server, impatient, tmp_path, status, reason
):
    (tmp_path / "file").write_bytes(b"content")
    server.trouble = lambda method, name: status
    for operation in failing(impatient, tmp_path / "file"):
        with pytest.raises(MufinError, match=rf"'s3://\.\.\.@bucket.* fails .*{reason}") as found:
            operation()
        said = str(found.value)
        assert KEY not in said and SECRET not in said and "\n" not in said and len(said) <= 300
        assert said.endswith("look whether this machine may read and write there")
