"""contents.json: every change of an artifact's files is seen, and says what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mufin.artifacts import contents
from mufin.artifacts.contents import NAME, check, check_made_from, checked, contents_of, seal
from mufin.errors import ArtifactError

FILES = {"a.bin": b"0123456789" * 30, "deep/b.json": b"{}", "deep/er/empty": b""}


def artifact(folder: Path, made_from: dict | None = None) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    seal(folder, made_from)
    return folder


def test_a_whole_artifact_passes_every_check(tmp_path):
    folder = artifact(tmp_path / "x", {"data/curated": "7" * 64})
    found = checked(folder)
    assert {name: size for name, (size, _) in found.files.items()} == {
        name: len(content) for name, content in FILES.items()
    }
    assert found.made_from == {"data/curated": "7" * 64}
    for name in FILES:
        check(folder / name)


def test_the_id_depends_on_content_and_origin_alone(tmp_path):
    ids = {artifact(tmp_path / name) and contents_of(tmp_path / name).id for name in ("x", "y")}
    assert len(ids) == 1
    (tmp_path / "x/a.bin").write_bytes(b"other")
    seal(tmp_path / "x")
    seal(tmp_path / "y", {"data/curated": "1"})
    assert len(ids | {contents_of(tmp_path / name).id for name in ("x", "y")}) == 3


@given(st.integers(0, 299), st.integers(1, 255))
def test_a_changed_byte_is_seen_when_the_file_is_read(tmp_path_factory, place, change):
    folder = artifact(tmp_path_factory.mktemp("x"))
    content = bytearray(FILES["a.bin"])
    content[place] ^= change
    (folder / "a.bin").write_bytes(content)
    checked(folder)  # which looks at sizes alone
    with pytest.raises(ArtifactError, match="a.bin is damaged: its bytes have changed; `dvc check"):
        check(folder / "a.bin")


def test_a_large_mapped_file_is_known_by_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "LARGE", 100)
    folder = artifact(tmp_path / "x")
    (folder / "a.bin").write_bytes(b"x" * 300)
    check(folder / "a.bin", mapped=True)
    with pytest.raises(ArtifactError, match="its bytes have changed"):
        check(folder / "a.bin")
    (folder / "a.bin").write_bytes(b"x" * 299)
    with pytest.raises(ArtifactError, match="it has 299 bytes and not 300"):
        check(folder / "a.bin", mapped=True)


def test_a_file_is_hashed_once_unless_it_changes(tmp_path, monkeypatch):
    folder, hashed = artifact(tmp_path / "x"), []
    hash_of = contents.hash_of
    monkeypatch.setattr(contents, "hash_of", lambda path: hashed.append(path) or hash_of(path))
    for _ in range(3):
        check(folder / "a.bin")
    assert len(hashed) == 1
    (folder / "a.bin").write_bytes(FILES["a.bin"])
    os.utime(folder / "a.bin", (1, 1))
    check(folder / "a.bin")
    assert len(hashed) == 2


@pytest.mark.parametrize("name", FILES)
def test_missing_and_foreign_files_are_named(tmp_path, name):
    folder = artifact(tmp_path / "x")
    (folder / ".hidden").write_text("does not count")
    checked(folder)
    (folder / "deep/more").write_text("")
    with pytest.raises(ArtifactError, match="x/deep/more is not of the pipeline; move it away"):
        checked(folder)
    with pytest.raises(ArtifactError, match="more is not of the pipeline: contents.json does not"):
        check(folder / "deep/more")
    (folder / name).unlink()
    for reader in (lambda: checked(folder), lambda: check(folder / name)):
        with pytest.raises(ArtifactError, match=f"x/{name} is missing; "):
            reader()


def values(content: dict) -> list[dict]:
    return [
        content | {"written_by": "somebody"},
        content | {"id": "0" * 64},
        content | {"files": {}},
        content | {"files": {"a.bin": [1]}},
        content | {"files": {"a.bin": "12"}},
        content | {"files": 7},
        content | {"made_from": {"x": "y"}},
        {name: value for name, value in content.items() if name != "made_from"},
    ]


def test_a_broken_or_foreign_contents_file_is_one_sentence(tmp_path):
    folder = artifact(tmp_path / "x")
    whole = (folder / NAME).read_text()
    texts = [json.dumps(value) for value in values(json.loads(whole))]
    texts += ["", "{}", "[]", "null", "7", whole[:-30], "[" * 5000, "\x00", "9" * 5000]
    for text in texts:
        (folder / NAME).write_text(text)
        with pytest.raises(ArtifactError, match=f"{NAME} is damaged; `dvc checkout") as error:
            checked(folder)
        assert len(str(error.value)) <= 300
    (folder / NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(ArtifactError, match="is damaged"):
        checked(folder)
    (folder / NAME).unlink()
    os.mkfifo(folder / NAME)
    with pytest.raises(ArtifactError, match="is damaged"):
        checked(folder)
    (folder / NAME).unlink()
    with pytest.raises(ArtifactError, match="contents.json is missing, so the folder is not"):
        checked(folder)
    with pytest.raises(ArtifactError, match="no folder above it has a contents.json"):
        check(folder / "a.bin")
    with pytest.raises(ArtifactError, match="nowhere is missing; run `dvc repro`"):
        checked(tmp_path / "nowhere")


def test_artifacts_of_different_runs_are_refused_together(tmp_path):
    source = artifact(tmp_path / "source")
    folder = artifact(tmp_path / "x", {"models/finetune": contents_of(source).id})
    check_made_from(folder, "models/finetune", source)
    (source / "a.bin").write_bytes(b"of another run")
    seal(source)
    for name in ("models/finetune", "models/unknown"):
        with pytest.raises(ArtifactError, match="x and .*source are of different runs; run `dvc"):
            check_made_from(folder, name, source)


def test_links_into_a_cache_are_read_through(tmp_path):
    """As DVC makes them with `cache.type symlink`."""
    folder = artifact(tmp_path / "x")
    (folder / "a.bin").rename(tmp_path / "cached")
    (folder / "a.bin").symlink_to(tmp_path / "cached")
    checked(folder)
    check(folder / "a.bin")
    (tmp_path / "cached").write_bytes(b"y" * 300)
    with pytest.raises(ArtifactError, match="its bytes have changed"):
        check(folder / "a.bin")
